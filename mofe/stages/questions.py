"""A benchmark's questions in tokens, as models are asked them: made by lm-eval, once per task and
tokenizer.

lm-eval reads, renders and orders the questions. That takes longer than a small model takes to
answer them, and gives the same for every variant. So they are stored as parquet, one row per
AskedQuestion.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import pyarrow as pa
import pyarrow.parquet as pq
from lm_eval.models.utils import normalize_gen_kwargs

from mofe import tasks
from mofe.data.schema import CLUSTER
from mofe.files import write_atomic
from mofe.models import load
from mofe.records import AskedQuestion
from mofe.tasks import training

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


def make(*, params: Mapping[str, Any], tokenizer: str, out: Path) -> str:
    """Write the questions of a task. params: Plan.params.task; tokenizer: a model's folder. Returns
    a line for the user. Raises as `build` does."""
    found = build(params, load.tokenizer(tokenizer))
    sink = pa.BufferOutputStream()
    schema = COLUMNS.with_metadata(NORMED) if tasks.has_norm(params) else COLUMNS
    table = pa.Table.from_pylist([question.model_dump() for question in found], schema)
    pq.write_table(table, sink, compression="zstd")
    write_atomic(out, sink.getvalue().to_pybytes())
    return f"{len(found)} questions"


def read(file: str | Path) -> list[AskedQuestion]:
    """The questions as `build` gave them."""
    return [AskedQuestion(**row) for row in pq.read_table(file).to_pylist()]


def has_norm(file: str | Path) -> bool:
    """Whether lm-eval also scores the task of these questions by `acc_norm`."""
    return NORMED.items() <= (pq.read_schema(file).metadata or {}).items()


def build(params: Mapping[str, Any], tokenizer) -> list[AskedQuestion]:
    """Every question, in lm-eval's order.

    Raises ValueError for a task that mofe.stages.evaluate cannot score, for a question without
    exactly one right option, and for an answer that adds no token to its prompt. Raises also what
    mofe.tasks.build raises, or for a task with `held_out` mofe.tasks.training.held_out.
    """
    found = []
    built = training.held_out(params) if "held_out" in params else tasks.build(params)
    for name, task in built.items():
        _check(params["name"], name, task)
        task.build_all_requests()
        asked = [instance.args for instance in task.instances]
        is_choice = task.OUTPUT_TYPE == "multiple_choice"
        if is_choice:
            encoded = encode(tokenizer, asked)
        else:
            prompts = tokenizer([prompt for prompt, _ in asked])["input_ids"]
            encoded = [(ids, len(ids)) for ids in prompts]
        for number, group in groupby(zip(task.instances, encoded, strict=True), _number):
            instances, tokens = zip(*group, strict=True)
            doc, (prompt, settings) = instances[0].doc, instances[0].args
            ids, starts = zip(*tokens, strict=True)
            given = _choice(task, doc) if is_choice else _free_text(task, doc, settings)
            found.append(
                AskedQuestion(
                    task=name,
                    question=number,
                    prompt_sha256=hashlib.sha256(prompt.encode()).hexdigest(),
                    cluster=_cluster(params, task, doc),
                    ids=list(ids),
                    starts=list(starts),
                    **given,
                )
            )
    return found


def _number(pair) -> int:
    return pair[0].doc_id


def _cluster(params: Mapping[str, Any], task, doc: Mapping[str, Any]) -> str | None:
    """What a question asks for, where the study names a column of it."""
    if params["cluster"] is None:
        return None
    if CLUSTER not in doc:
        raise ValueError(
            f"tasks.{params['name']}.cluster: {task.config.task} drops the columns of its source, so "
            "its questions have no clusters; leave 'cluster' out"
        )
    return doc[CLUSTER]


def _choice(task, doc: Mapping[str, Any]) -> dict[str, Any]:
    """What an AskedQuestion of multiple choice has besides its tokens."""
    options, target = task.doc_to_choice(doc), task.doc_to_target(doc)
    target = options.index(target) if target in options else target
    if not isinstance(target, int) or not 0 <= target < len(options):
        raise ValueError(
            f"tasks: {task.config.task} has a question whose right answer is {target!r}, which is not "
            f"one of its options {options}"
        )
    return {"options": options, "target": target}


def _free_text(task, doc: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """What an AskedQuestion of free text has besides its tokens."""
    stops, most = greedy(settings)
    reference, row = task.doc_to_target(doc), json.dumps(doc, default=str)
    return {"reference": reference, "row": row, "stops": list(stops), "most": most}


def _check(key: str, name: str, task) -> None:
    """Raises ValueError for a task that mofe.stages.evaluate cannot score. Multiple choice is
    scored by lm-eval's `acc`, free text by `f1` and `exact` from the task file's
    process_results."""
    scores, own = set(task.aggregation()), task.config.process_results
    if task.OUTPUT_TYPE == "multiple_choice":
        several = task.multiple_input or task.multiple_target or "acc_mutual_info" in scores
        known = "acc" in scores and not callable(own) and not several
    else:
        known = callable(own) and {"f1", "exact"} <= scores
    if not known:
        raise ValueError(
            f"tasks.{key}.harness: {name} is scored by {', '.join(sorted(scores))} in a way of its own; "
            "what can be evaluated is the likeliest of a question's options (acc), of which one is right, "
            "and answers in words whose process_results give f1 and exact, as mofe/tasks/answers.py does"
        )


def encode(tokenizer, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], int]]:
    """(tokens of context + continuation, where the continuation starts) per pair, as lm-eval splits
    it.

    Raises ValueError for a context without a token, and for a continuation that adds none.
    """
    contexts = list(dict.fromkeys(context for context, _ in pairs))
    lengths = dict(zip(contexts, map(len, tokenizer(contexts)["input_ids"]), strict=True))
    texts = tokenizer([context + continuation for context, continuation in pairs])["input_ids"]
    for ids, (context, continuation) in zip(texts, pairs, strict=True):
        if not 0 < lengths[context] < len(ids):
            raise ValueError(f"tasks: {continuation!r} adds no token after {context[-40:]!r}")
    return [(ids, lengths[context]) for ids, (context, _) in zip(texts, pairs, strict=True)]


def greedy(settings: Mapping[str, Any]) -> tuple[tuple[str, ...], int]:
    """A task's generation_kwargs as its stop strings and the most tokens of an answer. Raises
    ValueError for settings that are not greedy."""
    normal = normalize_gen_kwargs(dict(settings))
    more = set(normal) - {"until", "max_gen_toks", "do_sample", "temperature"}
    if more or normal["do_sample"]:
        raise ValueError(
            f"tasks: generation_kwargs {dict(settings)} ask for more than the likeliest next token; "
            "only 'until' and 'max_gen_toks' can be set"
        )
    return tuple(normal["until"]), normal["max_gen_toks"]
