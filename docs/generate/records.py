"""The tables of docs/results.md and docs/schemas/*.json, from the classes of mofe/records.py."""

import inspect
import json
from collections.abc import Iterator
from typing import Any, get_args, get_origin

from mofe import markdown, records
from mofe.records import Record

SCHEMAS = "docs/schemas"

# Part of docs/results.md -> the record that its table describes, and the records whose keys it
# leaves out because another table has them.
TABLES: dict[str, tuple[type[Record], tuple[type[Record], ...]]] = {
    "train": (records.TrainRecord, ()),
    "train-dense": (records.DenseTrainRecord, (records.TrainRecord,)),
    "log": (records.LossStep, ()),
    "search": (records.SearchRecord, ()),
    "merge": (records.MergeManifest, ()),
    "asked": (records.AskedQuestion, ()),
    "eval": (records.EvalRecord, ()),
    "question": (records.Question, ()),
    "answer-choice": (records.ChoiceAnswer, (records.Question,)),
    "answer-text": (records.WrittenAnswer, (records.Question,)),
    "answer-raw": (records.TextAnswer, (records.Question,)),
    "counts-task": (records.TaskCounts, ()),
    "counts-text": (records.TextCounts, ()),
    "hub": (records.HubManifest, ()),
    "pushed": (records.PushRecord, ()),
    "claim": (records.ClaimRecord, ()),
    "claims": (records.ClaimsRecord, (records.ClaimRecord,)),
    "replications": (records.ReplicationsRecord, (records.Replicated,)),
    "plan": (records.PlanRecord, ()),
    "check": (records.CheckRecord, ()),
}


def table(part: str) -> str:
    """The table of a part: every key with its meaning, in the order of the file."""
    kind, others = TABLES[part]
    known = {key for other in others for key, _ in _keys(other, "", set())}
    rows = [
        (f"`{key}`", meaning) for key, meaning in _keys(kind, "", set(others)) if key not in known
    ]
    return markdown.table(("Key", "Meaning"), rows)


def _keys(kind: type[Record], before: str, seen: set[type[Record]]) -> Iterator[tuple[str, str]]:
    """(key, meaning) of a record and of the records in it. `seen` collects the inner records, each
    of which is described once. before: the path to the record."""
    for name, field in kind.model_fields.items():
        yield f"{before}{name}", field.description
        for inner, between in _inner(field.annotation):
            if inner not in seen:
                seen.add(inner)
                yield from _keys(inner, f"{before}{name}{between}.", seen)


def _inner(annotation: Any) -> Iterator[tuple[type[Record], str]]:
    """The records in a type, with the text between the type's key and theirs."""
    if inspect.isclass(annotation) and issubclass(annotation, Record):
        yield annotation, ""
    here = {dict: ".*", tuple: "[]"}.get(get_origin(annotation), "")
    for argument in get_args(annotation):
        for inner, between in _inner(argument):
            yield inner, here + between


def schema(name: str) -> str:
    """The JSON schema of a kind of record (mofe.records.KINDS)."""
    kind = records.KINDS[name]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(head | kind.model_json_schema(), indent=2, ensure_ascii=False) + "\n"


PARTS = {("docs/results.md", part): lambda part=part: table(part) for part in TABLES}
FILES = {f"{SCHEMAS}/{name}.json": lambda name=name: schema(name) for name in records.KINDS}
