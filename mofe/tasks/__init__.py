"""Benchmarks: lm-eval's own tasks and ours, which read the sources that the study names.

The same task objects render training rows, so training prompts equal evaluation prompts by
construction.
"""

import logging
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import lm_eval.utils
import numpy as np
import yaml
from datasets import Dataset
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml

from mofe.data import schema, sources
from mofe.study import harness
from mofe.study.harness import Leaf
from mofe.tasks import finance, mcq, pubmedqa

HERE = Path(__file__).parent
STOCK = Path(lm_eval.utils.__file__).parent / "tasks"

# For data sets with only one split: the function that divides it into train and test, by task.
PARTS: dict[str, Callable[[Dataset, str, int], Dataset]] = {
    "mofe_pubmedqa": pubmedqa.part,
    "mofe_finance": finance.part,
    "mofe_finance_open": finance.open_part,
}
# Where not every row of the train part may be a few-shot example: the function that takes those
# that may.
EXAMPLES: dict[str, Callable[[Dataset], Dataset]] = {"mofe_finance": finance.closed_rows}
# The keys of a task's file that say how it reads a row.
READING = ("process_docs", "doc_to_text", "doc_to_choice", "doc_to_target", "output_type")
READING += ("target_delimiter", "gen_prefix", "use_prompt")

logging.getLogger("lm_eval").setLevel(logging.ERROR)
# lm-eval compiles a prompt's template anew for every question, which takes longer than the answer.
lm_eval.utils.env.from_string = cache(lm_eval.utils.env.from_string)


@contextmanager
def lm_evals_seeds() -> Iterator[None]:
    """Python's and numpy's global generators as lm-eval's `simple_evaluate` seeds them: some tasks'
    files shuffle options with them. Afterwards they are as they were."""
    kept = random.getstate(), np.random.get_state()
    random.seed(0)
    np.random.seed(1234)
    try:
        yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])


def build(params: dict[str, Any]) -> dict[str, ConfigurableTask]:
    """The lm-eval task objects of one of the study's tasks, by lm-eval name.

    params: Plan.params.task. A group such as `mmlu` becomes its leaf tasks. Few-shot examples are
    drawn by `shots_seed`, anew for each leaf, as lm-eval's `simple_evaluate` does. Raises
    ValueError for a task name that neither lm-eval nor mofe/tasks has, for kinds of questions that
    have no score in common, for a source without a row to ask, and for more shots than there are
    rows.
    """
    leaves = _leaves(params)
    if len({leaf.kind for leaf in leaves}) > 1:
        raise ValueError(harness.mixed(params["name"]))
    return {leaf.name: _built(leaf, params) for leaf in leaves}


def _built(leaf: Leaf, params: dict[str, Any]) -> ConfigurableTask:
    task, shots = ConfigurableTask(config=_configure(leaf, params)), params["shots"]
    if shots:
        there = len(task.sampler.fewshot_docs())
        if there < shots:
            raise ValueError(
                f"shots: {shots} examples are asked for, but tasks.{params['name']} ({leaf.name}) "
                f"has {there} rows to take them from; lower 'shots'"
            )
        task.set_fewshot_seed(params.get("shots_seed", harness.SHOTS_SEED))
    return task


def answer_scores(params: dict[str, Any]) -> dict[str, Callable[..., dict[str, float]]]:
    """By lm-eval name, the function of (row, [answer]) that scores a free-text answer."""
    scores = {leaf.name: _resolved(leaf)["process_results"] for leaf in _leaves(params)}
    if "held_out" in params:
        scores[params["name"]] = next(iter(scores.values()))
    return scores


def has_norm(params: dict[str, Any]) -> bool:
    """Whether lm-eval scores all of a task's questions by `acc_norm` too. Where a task file lists
    no metrics, lm-eval's defaults hold, of which it is one."""
    leaves = _leaves(params)
    choices = all(leaf.kind == "multiple_choice" for leaf in leaves)
    return choices and all("acc_norm" in leaf.metrics for leaf in leaves)


def training_rows(params: dict[str, Any], rows: Dataset) -> Iterator[tuple[str, str]]:
    """(prompt, answer) of every labelled row, as the task would ask and score it.

    rows: a training split in the task's schema, or the only split, whose training part is taken.
    Rows without a question or with label -1 are left out. The answer is the option that the task
    scores, after the task's delimiter. Raises ValueError where a row does not fit the task's
    schema.
    """
    part = training_part(params, complete(params, rows))
    for row in render(readings(params, part)):
        yield row.prompt, row.answer


def complete(params: dict[str, Any], rows: Dataset) -> Dataset:
    """The rows of a source that have everything that a question needs."""
    path = _leaves(params)[0].config["dataset_path"]
    return schema.complete(path, rows, params["source"]["repo"])


def training_part(params: dict[str, Any], rows: Dataset) -> Dataset:
    """The rows that may be trained on: all of a training split, or all but the test part of the
    only split. Raises ValueError where a row does not fit the task's schema."""
    first = _leaves(params)[0]
    if first.name == harness.GENERIC:
        return mcq.training_rows(params, rows)
    path, repo = first.config["dataset_path"], params["source"]["repo"]
    rows = schema.check(path, rows, repo, labelled=False)
    part = PARTS.get(first.name)
    return part(rows, "train", params["seed"]) if part else rows


class Reading(NamedTuple):
    """A way in which a task reads rows, and the documents that its `process_docs` makes of them.

    leaf: the first task of a group that reads so. task: the object that asks the documents, without
    examples.
    """

    leaf: str
    docs: Dataset
    task: ConfigurableTask


class Rendered(NamedTuple):
    """A labelled document: which reading has it, its number there, its prompt and its answer."""

    reading: int
    number: int
    prompt: str
    answer: str


def readings(params: dict[str, Any], rows: Dataset) -> list[Reading]:
    """The documents that a task makes of a training part's rows: as its files say, which may leave
    rows out or write them anew. Tasks of a group that read alike, as MMLU's subjects do, are one
    reading; those that do not (parts of a data set, languages) each read all rows. A reading
    without a document is left out."""
    kinds: list[dict[str, Any]] = []
    found = []
    for leaf in _leaves(params):
        config = _overridden(_resolved(leaf), {**params, "shots": 0})
        kind = {key: config.get(key) for key in READING}
        if kind in kinds:
            continue
        kinds.append(kind)
        process, where = config.get("process_docs"), f"tasks.{params.get('name', '*')}: {leaf.name}"
        docs = _processed(process, rows, where, params) if process and len(rows) else rows
        if len(docs):
            found.append(Reading(leaf.name, docs, _asking(config, docs)))
    return found


def render(found: list[Reading]) -> Iterator[Rendered]:
    """Every labelled document."""
    for index, (_, docs, task) in enumerate(found):
        for number, doc in enumerate(docs):
            if pair := _answered(task, doc):
                yield Rendered(index, number, *pair)


def reselected(params: dict[str, Any], reading: Reading, docs: Dataset, name: str):
    """The task object that asks some of a reading's documents under another name, without a
    description."""
    leaf = next(leaf for leaf in _leaves(params) if leaf.name == reading.leaf)
    config = _overridden(_resolved(leaf), {**params, "shots": 0})
    return _asking(config | {"task": name, "description": ""}, docs)


def prompt(task: ConfigurableTask, doc: Any) -> str:
    """What a task asks of a document, without examples and without a description."""
    turn = task.build_qa_turn(
        q=task.doc_to_text(doc),
        gen_prefix=task.doc_to_prefix(doc),
        tgt_delim=task.config.target_delimiter,
        few_delim="",
    )
    return "".join(message.to_text() for message in turn)


def right_option(task: ConfigurableTask, doc: Any) -> int:
    """The number of a document's right option. Raises ValueError where none or several are
    right."""
    options, target = task.doc_to_choice(doc), task.doc_to_target(doc)
    target = options.index(target) if target in options else target
    if not isinstance(target, int) or not 0 <= target < len(options):
        raise ValueError(
            f"tasks: {task.config.task} has a question whose right answer is {target!r}, which is "
            f"not one of its options {options}"
        )
    return target


def _answered(task: ConfigurableTask, doc: Any) -> tuple[str, str] | None:
    """(prompt, answer) of a document, as the task would ask and score it; None without a label.
    Raises ValueError for tasks whose prompts differ by option, and as `right_option`."""
    target = task.doc_to_target(doc)
    if target is None or str(target) in ("", str(schema.UNLABELLED)):
        return None
    if task.OUTPUT_TYPE == "multiple_choice":
        if task.multiple_input:
            raise ValueError(
                f"tasks: {task.config.task} puts its options into the prompt, so a row has no one "
                "prompt to train on; name another task"
            )
        target = task.doc_to_choice(doc)[right_option(task, doc)]
    elif isinstance(target, list):  # several are right: lm-eval shows the first in examples
        target = target[0]
    return prompt(task, doc), task.config.target_delimiter + target


def _asking(config: dict[str, Any], docs: Dataset) -> ConfigurableTask:
    """The task object of a configuration that asks documents as they are."""
    # given as the test split, because lm-eval takes prompt, options and target from its documents
    config = config | {"custom_dataset": lambda **_: {"docs": docs}, "process_docs": None}
    return ConfigurableTask(config=config | {"test_split": "docs", "validation_split": None})


def _configure(leaf: Leaf, params: dict[str, Any]) -> dict[str, Any]:
    """A leaf task's configuration, reading the study's source and dividing it where needed."""
    config, part, shots = _resolved(leaf), PARTS.get(leaf.name), params["shots"]
    asked, examples = leaf.asked, leaf.examples
    if part:
        load = partial(_parts, part, params, config, asked)
        asked, examples = "test", "train"
    elif leaf.name == harness.GENERIC:
        load, asked = partial(mcq.splits, params), "test"
        examples = "train" if params["mcq"]["test_share"] or params["mcq"]["examples"] else None
    else:
        load = partial(
            _splits, params, config, [asked, examples] if shots and examples else [asked]
        )
    if shots and not leaf.samples and examples in (None, asked):
        raise ValueError(
            f"shots: task {leaf.name!r} has no rows to take {shots} examples from; set 'shots' to 0"
        )
    splits = {"test_split": asked, "validation_split": None}
    splits["fewshot_split"] = examples if shots else None
    if not part and leaf.name != harness.GENERIC:
        # lm-eval draws one example more where a task names neither split, so its names stay
        splits["test_split"] = config.get("test_split")
        splits["validation_split"] = None if splits["test_split"] else asked
        if shots and not config.get("fewshot_split"):
            kept = next((k for k in ("training", "validation") if _is(config, k, examples)), None)
            splits |= {"fewshot_split": None} | ({f"{kept}_split": examples} if kept else {})
    config = _overridden(config, params) | {"custom_dataset": load} | splits
    if process := config.get("process_docs"):
        config["process_docs"] = _Once(process, f"tasks.{params['name']}: {leaf.name}", params)
    return config


def _is(config: dict[str, Any], kind: str, split: str | None) -> bool:
    return split is not None and config.get(f"{kind}_split") == split


class _Once:
    """A task's `process_docs`, called once for the same rows: some shuffle options, and lm-eval
    asks for its documents several times. Raises ValueError where no document is left."""

    def __init__(self, process: Callable[[Dataset], Dataset], where: str, params: dict[str, Any]):
        self.process, self.where, self.params = process, where, params
        self.made: dict[int, tuple[Dataset, Dataset]] = {}

    def __call__(self, rows: Dataset) -> Dataset:
        if id(rows) not in self.made:
            docs = _processed(self.process, rows, self.where, self.params)
            if not len(docs):
                raise ValueError(
                    f"{self.where} asks none of the {len(rows)} rows of "
                    f"{self.params['source']['repo']}; read a source "
                    "that has such rows, or leave the task out"
                )
            self.made[id(rows)] = rows, docs
        return self.made[id(rows)][1]


def _processed(
    process: Callable[[Dataset], Dataset], rows: Dataset, where: str, params: dict[str, Any]
) -> Dataset:
    """The documents that a task's `process_docs` makes of rows. Raises ValueError where it fails,
    which is in ways of its own."""
    try:
        return process(rows)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"{where} cannot read the rows of {params['source']['repo']} ({reason}); give rows "
            "that have what its process_docs reads in each, or leave out those that lack it"
        ) from error


def _overridden(config: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the study's scoring and number of shots."""
    config = {**config, "num_fewshot": params["shots"], "training_split": None, "metadata": {}}
    config["fewshot_split"] = None
    if not params["shots"]:
        config["fewshot_config"] = None
    if params["scoring"] == "text":
        config |= yaml.safe_load((HERE / "text_scoring.yaml").read_text()).get(
            config["dataset_path"], {}
        )
    return config


def _rows(params, config, split: str, only_complete: bool = False) -> Dataset:
    """A split that questions or examples are taken from, checked against the task's schema.

    A split that is divided into train and test loses its incomplete rows first (`only_complete`),
    for both parts. A benchmark's own test split is asked as it is.
    """
    rows = sources.load(params["source"], config.get("dataset_name"), split, params["mirror"])
    key = f"tasks.{params['name']}.cluster"
    rows = schema.clustered(rows, params["cluster"], key, params["source"]["repo"])
    rows = complete(params, rows) if only_complete else rows
    return schema.check(config["dataset_path"], rows, params["source"]["repo"], labelled=True)


def _splits(params, config, names, **_) -> dict[str, Dataset]:
    return {name: _rows(params, config, name) for name in names}


def _parts(part, params, config, split, **_) -> dict[str, Dataset]:
    rows = _rows(params, config, split, only_complete=True)
    parts = {which: part(rows, which, params["seed"]) for which in ("test", "train")}
    if allowed := EXAMPLES.get(config["task"]):
        parts["train"] = allowed(parts["train"])
    if not len(parts["test"]):
        raise ValueError(
            f"tasks.{params['name']}: the test part of {params['source']['repo']} has no row that "
            f"{config['task']} asks; leave the task out of 'tables' (a table's 'beside: null' does "
            "for one shown there), or read a source that has such rows"
        )
    return parts


def _leaves(params: dict[str, Any]) -> list[Leaf]:
    """The tasks that a study's task stands for."""
    key = params.get("name", "*")
    return [leaf for name in params["harness"] for leaf in harness.leaves(key, name)]


def _resolved(leaf: Leaf) -> dict[str, Any]:
    """A task's keys, functions included."""
    return load_yaml(leaf.path, recursive=True)
