"""A benchmark's questions in tokens, as models are asked them: made by lm-eval, once per task and
tokenizer.

lm-eval reads, renders and orders the questions. That takes longer than a small model takes to
answer them, and gives the same for every variant. So they are stored as parquet, one row per
AskedQuestion.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from lm_eval.models.utils import normalize_gen_kwargs

from mofe import tasks
from mofe.data.schema import CLUSTER
from mofe.files import write_atomic
from mofe.models import load
from mofe.records import AskedQuestion
from mofe.study import harness
from mofe.tasks import training
from mofe.training import encoding, tokens

# How parquet stores the fields of an AskedQuestion, by their type.
STORED = {
    str: pa.string(),
    int: pa.int64(),
    tuple[str, ...]: pa.list_(pa.string()),
    list[int]: pa.list_(pa.int32()),  # tokens, and positions in them
    list[list[int]]: pa.list_(pa.list_(pa.int32())),
}


def _type(annotation: Any) -> Any:
    """A field's type without None and without annotations."""
    if get_origin(annotation) is UnionType or get_origin(annotation) is Union:
        annotation = next(kind for kind in get_args(annotation) if kind is not type(None))
    return get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation


COLUMNS = pa.schema(
    {name: STORED[_type(field.annotation)] for name, field in AskedQuestion.model_fields.items()}
)
# The file's metadata if lm-eval also scores the task by `acc_norm`.
NORMED = {b"acc_norm": b"true"}
# The file's metadata if only a sample is asked: how many questions the task has, and the seed.
SAMPLE_OF = b"sample_of"
SAMPLE_SEED = b"sample_seed"
SAMPLE = tuple(b"sample")  # makes the stream of random numbers that a sample is drawn by


def make(*, params: Mapping[str, Any], tokenizer: str, out: Path) -> str:
    """Write the questions of a task. params: Plan.params.task; tokenizer: a model's folder. Returns
    a line for the user. Raises as `build` does."""
    found, there = _built(params, load.tokenizer(tokenizer))
    sink = pa.BufferOutputStream()
    marks = NORMED if not is_text(params) and tasks.has_norm(params) else {}
    if len(found) < there:
        marks = marks | {SAMPLE_OF: f"{there}".encode(), SAMPLE_SEED: f"{params['seed']}".encode()}
    schema = COLUMNS.with_metadata(marks or None)
    table = pa.Table.from_pylist([question.model_dump() for question in found], schema)
    pq.write_table(table, sink, compression="zstd")
    write_atomic(out, sink.getvalue().to_pybytes())
    return f"{len(found)} questions" + (f" of {there}" if len(found) < there else "")


def read(file: str | Path) -> list[AskedQuestion]:
    """The questions as `build` gave them."""
    return [AskedQuestion(**row) for row in pq.read_table(file).to_pylist()]


def has_norm(file: str | Path) -> bool:
    """Whether lm-eval also scores the task of these questions by `acc_norm`."""
    return NORMED.items() <= (pq.read_schema(file).metadata or {}).items()


@dataclass(frozen=True)
class Sample:
    """Which sample of a task's questions is asked. of: how many there are. seed: it was drawn by.
    sha256: of a line for each of its questions, as AskedQuestion names them."""

    of: int
    seed: int
    sha256: str


def sample(file: str | Path, found: Sequence[AskedQuestion]) -> Sample | None:
    """What sample the questions are that were found in a file; None for all."""
    marks = pq.read_schema(file).metadata or {}
    if SAMPLE_OF not in marks:
        return None
    lines = "".join(f"{question.task} {question.question}\n" for question in found)
    digest = hashlib.sha256(lines.encode()).hexdigest()
    return Sample(int(marks[SAMPLE_OF]), int(marks[SAMPLE_SEED]), digest)


def build(params: Mapping[str, Any], tokenizer) -> list[AskedQuestion]:
    """Every question, or the sample of them that the study asks, in lm-eval's order.

    Raises ValueError for a task that mofe.stages.evaluate cannot score, for a question without
    exactly one right option, for a sample larger than the task, and as encoding.pairs. Raises also
    what mofe.tasks.build raises, or for a task with `held_out` mofe.tasks.training.held_out and
    held_out_texts.
    """
    return _built(params, tokenizer)[0]


def _built(params: Mapping[str, Any], tokenizer) -> tuple[list[AskedQuestion], int]:
    """The questions that are asked, and how many the task has."""
    if is_text(params):
        found = _of_text(params, tokenizer)
        return found, len(found)
    found, key = [], f"tasks.{params['name']}"
    add_bos_token = params.get("add_bos_token", True)
    with tasks.lm_evals_seeds():
        built = training.held_out(params) if "held_out" in params else tasks.build(params)
        there = {name: len(task.task_docs) for name, task in built.items()}
        drawn = _drawn(params, there)
        for name, numbers in drawn.items():
            _check(params["name"], name, built[name])
            everything = len(numbers) == there[name]
            built[name].build_all_requests(samples=None if everything else set(numbers))
    for name, numbers in drawn.items():
        task = built[name]
        asked = [instance.args for instance in task.instances]
        is_choice = task.OUTPUT_TYPE == "multiple_choice"
        if is_choice:
            encoded = encoding.pairs(tokenizer, asked, key, add_bos_token)
        else:
            prompts = encoding.texts(tokenizer, [prompt for prompt, _ in asked], add_bos_token)
            encoded = [(ids, len(ids)) for ids in prompts]
        for number, group in groupby(zip(task.instances, encoded, strict=True), _number):
            instances, pairs = zip(*group, strict=True)
            doc, (prompt, settings) = instances[0].doc, instances[0].args
            ids, starts = zip(*pairs, strict=True)
            given = _choice(task, doc) if is_choice else _free_text(task, doc, settings)
            found.append(
                AskedQuestion(
                    task=name,
                    question=numbers[number],
                    prompt_sha256=hashlib.sha256(prompt.encode()).hexdigest(),
                    cluster=_cluster(params, task, doc),
                    ids=list(ids),
                    starts=list(starts),
                    **given,
                )
            )
    return found, sum(there.values())


def is_text(params: Mapping[str, Any]) -> bool:
    """Whether a task asks for nothing, and its questions are raw text to be read."""
    return "held_out" in params and params["held_out"]["data"]["task"] is None


def _of_text(params: Mapping[str, Any], tokenizer) -> list[AskedQuestion]:
    """Held-out raw text, cut as training cuts it. Texts of one document are alike. A text of which
    no token follows another is left out, as in training."""
    held = training.held_out_texts(params)
    told = encoding.texts(tokenizer, [one.text for one in held], params.get("add_bos_token", True))
    found = []
    for one, ids in zip(held, told, strict=True):
        if pieces := tokens.pieces(ids, params["max_length"]):
            found.append(
                AskedQuestion(
                    task=params["name"],
                    question=one.number,
                    prompt_sha256=hashlib.sha256(one.text.encode()).hexdigest(),
                    cluster=f"document {one.document}",
                    ids=pieces,
                    starts=[1] * len(pieces),
                )
            )
    return found


def _drawn(params: Mapping[str, Any], there: Mapping[str, int]) -> dict[str, list[int]]:
    """The numbers of the questions that are asked, by lm-eval's name of their task: all, or the
    study's sample. there: how many each task has. A larger sample holds the smaller ones. Raises
    ValueError where there are fewer."""
    wanted, total = params.get("sample"), sum(there.values())
    if wanted is None:
        return {name: list(range(count)) for name, count in there.items()}
    if wanted > total:
        raise ValueError(
            f"tasks.{params['name']}.sample: {wanted} questions are to be asked, but the task has "
            f"{total}; lower it, or leave it out to ask them all"
        )
    random = np.random.default_rng([params["seed"], *SAMPLE])
    chosen = set(random.permutation(total)[:wanted].tolist())
    drawn, first = {}, 0
    for name, count in there.items():
        if numbers := [n for n in range(count) if first + n in chosen]:
            drawn[name] = numbers
        first += count
    return drawn


def _number(pair) -> int:
    return pair[0].doc_id


def _cluster(params: Mapping[str, Any], task, doc: Mapping[str, Any]) -> str | None:
    """What a question asks for, where the study names a column of it."""
    if params["cluster"] is None:
        return None
    if CLUSTER not in doc:
        raise ValueError(
            f"tasks.{params['name']}.cluster: {task.config.task} drops the columns of its source, "
            "so its questions have no clusters; leave 'cluster' out"
        )
    return doc[CLUSTER]


def _choice(task, doc: Mapping[str, Any]) -> dict[str, Any]:
    """What an AskedQuestion of multiple choice has besides its tokens."""
    return {"options": task.doc_to_choice(doc), "target": tasks.right_option(task, doc)}


def _free_text(task, doc: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What an AskedQuestion of free text has besides its tokens."""
    stops, most = greedy(settings)
    reference, row = task.doc_to_target(doc), json.dumps(doc, default=str)
    return {"reference": reference, "row": row, "stops": list(stops), "most": most}


def _check(key: str, name: str, task) -> None:
    """Raises ValueError for a task that mofe.stages.evaluate cannot score. Multiple choice is
    scored by lm-eval's `acc`, free text by `f1` and `exact` from the task file's
    process_results."""
    scores, own = set(task.aggregation()), callable(task.config.process_results)
    several = task.multiple_input or task.multiple_target
    if not harness.is_scored(task.OUTPUT_TYPE, scores, own) or (not own and several):
        raise ValueError(harness.unscored(key, name, scores))


def greedy(settings: Mapping[str, Any]) -> tuple[tuple[str, ...], int]:
    """A task's generation_kwargs as its stop strings and the most tokens of an answer. Raises
    ValueError for settings that are not greedy."""
    normal = normalize_gen_kwargs(dict(settings))
    more = set(normal) - {"until", "max_gen_toks", "do_sample", "temperature"}
    if more or normal["do_sample"]:
        raise ValueError(
            f"tasks: generation_kwargs {dict(settings)} ask for more than the likeliest next "
            "token; only 'until' and 'max_gen_toks' can be set"
        )
    return tuple(normal["until"]), normal["max_gen_toks"]
