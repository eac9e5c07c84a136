"""Benchmarks: lm-eval's own tasks and ours, which read the sources that the study names.

The same task objects render training rows, so training prompts equal evaluation prompts by
construction.
"""

import logging
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import lm_eval.tasks
import lm_eval.utils
import yaml
from datasets import Dataset
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Kind
from lm_eval.tasks._yaml_loader import load_yaml

from mofe.data import schema, sources
from mofe.tasks import finance, mcq, pubmedqa

HERE = Path(__file__).parent
STOCK = Path(lm_eval.tasks.__file__).parent

# For data sets with only one split: the function that divides it into train and test, by task.
PARTS: dict[str, Callable[[Dataset, str, int], Dataset]] = {
    "mofe_pubmedqa": pubmedqa.part,
    "mofe_finance": finance.part,
    "mofe_finance_open": finance.open_part,
}

logging.getLogger("lm_eval").setLevel(logging.ERROR)
# lm-eval compiles a prompt's template anew for every question, which takes longer than the answer.
lm_eval.utils.env.from_string = cache(lm_eval.utils.env.from_string)


def build(params: dict[str, Any]) -> dict[str, ConfigurableTask]:
    """The lm-eval task objects of one of the study's tasks, by lm-eval name.

    params: Plan.params.task. A group such as `mmlu` becomes its leaf tasks. Raises ValueError for a
    task name that neither lm-eval nor mofe/tasks has, for kinds of questions that have no score in
    common, and for a source without a row to ask.
    """
    leaves = [config for name in params["harness"] for config in _leaves(name)]
    if len({config["output_type"] for config in leaves}) > 1:
        raise ValueError(
            f"tasks.{params['name']}.harness: mixes questions that are answered by choice and in "
            "words, which have no score in common; make it two tasks"
        )
    return {
        config["task"]: ConfigurableTask(config=_configure(config, params)) for config in leaves
    }


def answer_scores(params: dict[str, Any]) -> dict[str, Callable[..., dict[str, float]]]:
    """By lm-eval name, the function of (row, [answer]) that scores a free-text answer."""
    if "held_out" in params:
        return {params["name"]: _first(params)["process_results"]}
    leaves = [config for name in params["harness"] for config in _leaves(name)]
    return {config["task"]: config["process_results"] for config in leaves}


def has_norm(params: dict[str, Any]) -> bool:
    """Whether lm-eval scores all of a task's questions by `acc_norm` too. Where a task file lists no
    metrics, lm-eval's defaults hold, of which it is one."""
    leaves = [config for name in params["harness"] for config in _leaves(name)]
    listed = [config.get("metric_list") or [{"metric": "acc_norm"}] for config in leaves]
    choices = all(config["output_type"] == "multiple_choice" for config in leaves)
    return choices and all(
        "acc_norm" in [metric["metric"] for metric in metrics] for metrics in listed
    )


def training_rows(params: dict[str, Any], rows: Dataset) -> Iterator[tuple[str, str]]:
    """(prompt, answer) of every labelled row, as the task would ask and score it.

    rows: a training split in the task's schema, or the only split, whose training part is taken.
    Rows without a question or with label -1 are left out. The answer is the option that the task
    scores, after the task's delimiter. Raises ValueError where a row does not fit the task's
    schema.
    """
    for row in render(params, training_part(params, complete(params, rows))):
        yield row.prompt, row.answer


def complete(params: dict[str, Any], rows: Dataset) -> Dataset:
    """The rows of a source that have everything that a question needs."""
    return schema.complete(_first(params)["dataset_path"], rows, params["source"]["repo"])


def training_part(params: dict[str, Any], rows: Dataset) -> Dataset:
    """The rows that may be trained on: all of a training split, or all but the test part of the
    only split. Raises ValueError where a row does not fit the task's schema."""
    config = _first(params)
    if config["task"] == mcq.NAME:
        return mcq.training_rows(params, rows)
    rows = schema.check(config["dataset_path"], rows, params["source"]["repo"], labelled=False)
    part = PARTS.get(config["task"])
    return part(rows, "train", params["seed"]) if part else rows


class Rendered(NamedTuple):
    """A labelled row of a training part: its number there, its prompt and its answer."""

    number: int
    prompt: str
    answer: str


def render(params: dict[str, Any], rows: Dataset) -> Iterator[Rendered]:
    """Every labelled row of a training part."""
    task = asking(params, rows)
    delimiter = task.config.target_delimiter
    for number, doc in enumerate(rows):
        target = task.doc_to_target(doc)
        if target == -1:
            continue
        answer = task.doc_to_choice(doc)[target] if isinstance(target, int) else target
        yield Rendered(number, task.doc_to_text(doc), delimiter + answer)


def asking(params: dict[str, Any], rows: Dataset, **changes: Any) -> ConfigurableTask:
    """The task object that asks rows of a training part, without examples. changes: keys of its
    configuration that differ."""
    # given as the test split, because lm-eval takes prompt, options and target from its documents
    config = _overridden(_first(params), {**params, "shots": 0})
    config |= {"custom_dataset": lambda **_: {"rows": rows}}
    config |= {"test_split": "rows", "validation_split": None}
    return ConfigurableTask(config=config | changes)


def _first(params: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a task's first leaf. All leaves of a group read their rows alike."""
    return next(c for name in params["harness"] for c in _leaves(name))


def _configure(config: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """A leaf task's configuration, reading the study's source and dividing it where needed."""
    part, shots = PARTS.get(config["task"]), params["shots"]
    asked = config.get("test_split") or config["validation_split"]
    examples = config.get("fewshot_split") or config.get("training_split")
    if part:
        load = partial(_parts, part, params, config, asked)
        asked, examples = "test", "train"
    elif config["task"] == mcq.NAME:
        load, asked = partial(mcq.splits, params), "test"
        examples = "train" if params["mcq"]["test_share"] or params["mcq"]["examples"] else None
    else:
        names = [asked, examples] if shots else [asked]
        load = partial(_splits, params, config, names)
    if shots and examples in (None, asked):
        raise ValueError(
            f"shots: task {config['task']!r} has no rows to take {shots} examples from"
        )
    config = _overridden(config, params) | {"custom_dataset": load, "test_split": asked}
    return config | {"validation_split": None, "fewshot_split": examples if shots else None}


def _overridden(config: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    """The configuration with the study's scoring and number of shots."""
    config = {**config, "num_fewshot": params["shots"], "training_split": None, "metadata": {}}
    config["fewshot_split"] = None
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
    if not len(parts["test"]):
        raise ValueError(
            f"tasks.{params['name']}: the test part of {params['source']['repo']} has no row that "
            f"{config['task']} asks; leave the task out of 'tables' (a table's 'beside: null' does "
            "for one shown there), or read a source that has such rows"
        )
    return parts


@cache
def _manager(everything: bool) -> TaskManager:
    # Indexing all of lm-eval's files takes seconds, so the study's own families are tried first.
    folders = [STOCK / "mmlu" / "default", STOCK / "medmcqa", HERE]
    return TaskManager(include_path=folders, include_defaults=everything)


def _leaves(name: str) -> list[dict[str, Any]]:
    """The resolved configurations of a task, or of every task in a group or tag."""
    for everything in (False, True):
        index = _manager(everything).task_index
        if name in index:
            return [load_yaml(path, recursive=True) for path in _paths(name, index)]
    raise ValueError(f"tasks: neither lm-eval nor mofe/tasks has a task named {name!r}")


def _paths(name: str, index) -> Iterator[Path]:
    entry = index[name]
    if entry.kind is Kind.TASK:
        yield entry.yaml_path
    elif entry.kind is Kind.GROUP:
        for child in entry.cfg["task"]:
            yield from _paths(child, index)
    elif entry.kind is Kind.TAG:
        for child in sorted(entry.tags):
            yield from _paths(child, index)
