"""Kinds of values that a configuration holds, and the base of its parts.

A name is checked against what the configuration declares (the context of pydantic's validation): a
misspelt name is a fault, and its sentence proposes the nearest known name. A text's `format` says
in words what the text is, in the JSON schema and in the documentation.
"""

import difflib
import re
from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
# What a table's column can show besides a task: a kind of mofe/report/kinds.py, and its meaning.
SHOWS = {
    "trainable": "the parameters that the last stage trains",
    "time": "the time of training on all its GPUs, added up (GPU-hours), in `time_unit`",
    "wall_time": "the time of training by the clock, in `time_unit`",
    "cpu_seconds": "the seconds that CPU cores worked for it",
    "tokens_per_second": "the tokens that one device reads per second of it",
    "memory": "the most memory that a process of it held",
    "flops": "its floating-point operations",
    "rate": "the learning rate of the last stage",
}
TIMES = ("time", "wall_time")  # those of them that are printed in `time_unit`
# Those that would be another mixture's where equal frozen experts are computed once.
COMPUTED = (*TIMES, "cpu_seconds", "tokens_per_second", "memory", "flops")
METRICS = ("acc", "acc_norm", "f1", "exact")  # what a task's column can show: task.metric
LABEL_SEPARATOR = " | "  # joins a row's labels to its name


class ConfigError(ValueError):
    """The configuration has faults; `problems` holds one sentence each."""

    def __init__(self, problems: list[str]):
        self.problems = problems
        super().__init__(
            f"{len(problems)} fault(s) in the configuration:\n  " + "\n  ".join(problems)
        )


def suggest(word: Any, known: Iterable[str]) -> str:
    """'; did you mean ...?' for the nearest known word, else the list of what is known."""
    known = sorted({str(k) for k in known})
    near = difflib.get_close_matches(str(word), known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known are {', '.join(known)}" if known else ""


def _text(words: str, **constraints: Any) -> Any:
    return Field(json_schema_extra={"format": words}, **constraints)


def _known(*sections: str):
    """The type of a name that is declared in one of the `sections`."""

    def check(value: str, info):
        declared = [n for s in sections for n in info.context.get(s, ())]
        if value not in declared:
            raise _undeclared(value, " or ".join(sections), declared)
        return value

    return Annotated[str, AfterValidator(check), _text(f"name from {' or '.join(sections)}")]


def _or(*words: str) -> str:
    return " or ".join(", ".join(words).rsplit(", ", 1))


def _undeclared(value: str, sections: str, known: Iterable[str]) -> PydanticCustomError:
    return PydanticCustomError(
        "unknown_name",
        "{value} is not declared under {sections}{hint}",
        {"value": repr(value), "sections": sections, "hint": suggest(value, known)},
    )


def _is_name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise PydanticCustomError(
            "bad_name",
            "{value} cannot be a name: it becomes part of paths, so use letters, digits, '.', '_' "
            "and '-', starting with a letter or digit",
            {"value": repr(value)},
        )
    return value


def _scored(*extra: str):
    """The type of what a column shows: a declared task, one of its metrics, or one of `extra`."""

    def check(value: str, info):
        declared = list(info.context.get("tasks", ()))
        task, metric = task_metric(value, declared)
        if metric is not None and metric not in METRICS:
            raise PydanticCustomError(
                "unknown_name",
                "{value} names no metric of a task{hint}",
                {"value": repr(value), "hint": suggest(metric, METRICS)},
            )
        if task not in (*declared, *extra):
            raise _undeclared(task, "tasks", [*declared, *extra])
        return value

    words = _or("name from tasks", "task.metric", *extra)
    return Annotated[str, AfterValidator(check), _text(words)]


def task_metric(shown: str, tasks: Iterable[str]) -> tuple[str, str | None]:
    """The task and the metric that a column shows; None means the task's headline metric. A task's
    name may have dots itself, so a declared name is always read as a task."""
    task, _, metric = shown.rpartition(".")
    return (task, metric) if shown not in tasks and task in tasks else (shown, None)


def _table_key(value: Any) -> int | str:
    """A number from 1, or a word that can be a name; a number in quotes is a number."""
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if isinstance(value, str):
        return _is_name(value)
    if type(value) is not int or value < 1:
        raise PydanticCustomError("table_key", "a table's key is a number from 1 or a name")
    return value


def _row_name(value: Any) -> str:
    """The row's labels as one text. YAML reads the label of "8: {...}" as a number."""
    return str(value) if type(value) is int else value


Name = Annotated[str, AfterValidator(_is_name), _text("name")]
TableKey = Annotated[int | str, WrapValidator(lambda value, _: _table_key(value))]
RowName = Annotated[str, BeforeValidator(_row_name)]
ModelName = _known("models")
SourceName = _known("sources")
DataName = _known("data")
MixName = _known("mixes", "data")
TaskName = _known("tasks")
RecipeName = _known("recipes")
MixtureName = _known("mixtures")
SearchName = _known("searches")
Scored = _scored()
Shown = _scored(*SHOWS)
Repository = Annotated[str, _text("org/name", pattern=r"^[\w.-]+/[\w.-]+$")]
Folder = Annotated[str, _text("folder", pattern=r"^[^{}*?\s]+$")]
Stages = dict[MixName, RecipeName]  # in order: trained on this mix by this recipe, then ...
Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0, allow_inf_nan=False)]  # a learning rate


def count_or(word: str):
    """The type of a count, or of one word in its place.

    Reports one error; pydantic's union would report one per alternative.
    """

    def check(value: Any, either) -> int | str:
        try:
            return either(value)
        except ValidationError:
            raise PydanticCustomError(
                "count_or", f"Input should be a whole number from 1, or '{word}'"
            ) from None

    return Annotated[Count | Literal[word], WrapValidator(check)]


Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]  # a mean, such as tokens per row


class Part(BaseModel):
    """A part of the configuration: unknown keys are faults, values are never coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def exactly_one(part: Part, *keys: str) -> Part:
    given = [k for k in keys if getattr(part, k) is not None]
    if len(given) != 1:
        raise PydanticCustomError(
            "exactly_one",
            "needs exactly one of {keys}, has {given}",
            {"keys": ", ".join(keys), "given": ", ".join(given) or "none"},
        )
    return part


Seed = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
