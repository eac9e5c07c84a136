"""Kinds of values that a configuration holds, and the base of its parts.

A name is checked against what the configuration declares (the context of pydantic's validation): a
misspelt name is a fault, and its sentence proposes the nearest known name. A text's `format` says
in words what the text is, in the JSON schema and in the documentation.
"""

import os
import re
from collections.abc import Iterable, Mapping
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

from mofe.metrics import METRICS
from mofe.study.words import quoted, shown, suggest

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
TOKENS_UPDATED = "tokens_updated"
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
    TOKENS_UPDATED: "the share of tokens' choices that went to experts which the last stage "
    "updates; where it updates some of them, as `training.record_router` records it",
    "drift_experts": "how far the last stage moved the updated experts' weights (relative change); "
    "0 where all are frozen",
    "drift_attention": "the same of attention",
    "drift_embeddings": "the same of the embeddings and lm_head",
    "drift_norms": "the same of the norms",
    "drift_router": "the same of the routers",
}
TIMES = ("time", "wall_time")  # those of them that are printed in `time_unit`
# Those that would be another mixture's where equal frozen experts are computed once.
COMPUTED = (*TIMES, "cpu_seconds", "tokens_per_second", "memory", "flops")
REPOSITORY = r"^[\w.-]+/[\w.-]+$"
VARIABLE = re.compile(r"\$(\w+|\{[^}]*\}?)")
LONGEST_NAME = 80  # a file's name has at most 255 bytes, and several names make one


class ConfigError(ValueError):
    """The configuration has faults; `problems` holds one sentence each."""

    def __init__(self, problems: list[str]):
        self.problems = problems
        super().__init__(
            f"{len(problems)} fault(s) in the configuration:\n  " + "\n  ".join(problems)
        )


def _text(words: str, **schema: Any) -> Any:
    return Field(json_schema_extra={"format": words, **schema})


def _known(*sections: str):
    """The type of a name that is declared in one of the `sections`."""

    def check(value: str, info):
        return _declared(value, sections, info.context)

    return Annotated[str, AfterValidator(check), _text(f"name from {' or '.join(sections)}")]


def _declared(value: str, sections: Iterable[str], context: Mapping[str, Any]) -> str:
    """The name, which one of the `sections` must declare."""
    known = [context[s] for s in sections if s in context]
    declared = [name for names in known for name in names]
    if known and value not in declared:  # a section that is no mapping is a fault of its own
        raise _undeclared(value, sections, declared, context)
    return value


def _or(*words: str) -> str:
    return " or ".join(", ".join(words).rsplit(", ", 1))


def _undeclared(
    value: str, sections: Iterable[str], known: Iterable[str], context: Mapping[str, Any]
) -> PydanticCustomError:
    """The fault of a name that no section declares. Under "removed", the context has the paths that
    an overlay takes out."""
    where = " or ".join(sections)
    removed = [s for s in sections if (s, value) in context.get("removed", ())]
    if removed:
        told = f"{quoted(value)} is taken out of {removed[0]} by null; name another, or keep it"
    else:
        told = f"{quoted(value)} is not declared under {where}{suggest(value, known)}"
    return PydanticCustomError("unknown_name", "{told}", {"told": told})


def _is_name(value: str) -> str:
    if not NAME.fullmatch(value):
        raise PydanticCustomError(
            "bad_name",
            "{value} cannot be a name: it becomes part of paths; use letters, digits, '.', '_' and "
            "'-', starting with a letter or digit",
            {"value": quoted(value)},
        )
    if len(value) > LONGEST_NAME:
        raise PydanticCustomError(
            "long_name",
            "{value} is a name of {count} characters, and becomes part of paths; use at most "
            "{most}",
            {"value": quoted(value), "count": len(value), "most": LONGEST_NAME},
        )
    return value


def _scored(*extra: str):
    """The type of what a column shows: a declared task, one of its metrics, or one of `extra`."""

    def check(value: str, info):
        if "tasks" not in info.context:  # it is no mapping, a fault of its own
            return value
        declared = list(info.context["tasks"])
        task, metric = task_metric(value, declared)
        if metric is not None and metric not in METRICS:
            raise PydanticCustomError(
                "unknown_name",
                "{value} names no metric of a task{hint}",
                {"value": quoted(value), "hint": suggest(metric, METRICS)},
            )
        if task not in (*declared, *extra):
            raise _undeclared(task, ["tasks"], [*declared, *extra], info.context)
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
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        value = int(value)
    if isinstance(value, str):
        return _is_name(value)
    if type(value) is not int or value < 1:
        raise PydanticCustomError(
            "table_key",
            "a table's key is a number from 1 or a name, and {value} is neither; write one of them",
            {"value": shown(value)},
        )
    return value


def _experts(value: Any, info) -> int | str | list[int | str]:
    """Some of a layer's experts: `all`, how many, or models' names and numbers of slots."""
    if value == "all" or (type(value) is int and value >= 1):
        return value
    if not isinstance(value, list) or not value:
        raise PydanticCustomError(
            "experts",
            "a whole number from 1, 'all' or a list of models is needed, but it is {value}; write "
            "one of them",
            {"value": shown(value)},
        )
    for named in value:
        if isinstance(named, str):
            _declared(named, ("models",), info.context or {})
        elif type(named) is not int or named < 0:
            raise PydanticCustomError(
                "experts",
                "{value} names no experts: write a model's name, or the number of a slot, from 0",
                {"value": shown(named)},
            )
    if twice := [named for n, named in enumerate(value) if named in value[:n]]:
        raise PydanticCustomError(
            "experts", "{value} stands there twice; name it once", {"value": shown(twice[0])}
        )
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
Stages = dict[MixName, RecipeName]  # in order: trained on this mix by this recipe, then ...
Count = Annotated[int, Field(ge=1)]
# Some of a mixture's experts, which are in slots from 0.
Experts = Annotated[
    Count | Literal["all"] | list[ModelName | int],
    WrapValidator(lambda value, _, info: _experts(value, info)),
]
Whole = Annotated[int, Field(ge=0)]  # a count that may be 0
Rate = Annotated[float, Field(gt=0)]  # a learning rate
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]  # what numpy's and torch's generators take
Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=1)]  # a mean, such as tokens per row


def _is_repository(value: str) -> str:
    """org/name, of which the hub's folder is made."""
    parts = value.split("/")
    wrong = {".", ".."} & set(parts) or len(value) > 200
    if wrong or not re.fullmatch(REPOSITORY, value):
        raise PydanticCustomError(
            "repository", "{value} is no repository; write org/name", {"value": quoted(value)}
        )
    return value


def _folder(value: str) -> str:
    """A folder as it is used: `~` and variables are replaced, and what its spelling leaves open
    (`./a`, `a//b`, `a/../b`, `a/`) is settled."""

    def refuse(told: str) -> PydanticCustomError:
        return PydanticCustomError("folder", "{told}", {"told": f"{quoted(value)} {told}"})

    if not value.strip():
        raise refuse("names no folder; write its path")
    path = os.path.expandvars(os.path.expanduser(value))
    if path.startswith("~"):
        raise refuse("begins with ~, but there is no such user; write the folder's path")
    if unset := VARIABLE.search(path):
        raise refuse(f"has the variable {unset[0]}, which is not set; set it, or write the path")
    if set("{}") & set(path):
        raise refuse("has a brace, which the workflow reads as a wildcard; rename the folder")
    if not path.isprintable():
        raise refuse("has a character that cannot be seen; rename the folder")
    if any(len(part.encode(errors="replace")) > 255 for part in path.split("/")):
        raise refuse("has a name of more than 255 bytes, which no disk takes; name a shorter one")
    path = os.path.normpath(path)
    return f"/{path.lstrip('/')}" if path.startswith("/") else path


def _output_folder(value: str) -> str:
    """A folder that the workflow writes to."""
    path = _folder(value)
    if set(path) & set("*?") or re.search(r"\s", path):
        told = "{value} has a space, '*' or '?', which no output folder can have; name another"
        raise PydanticCustomError("folder", told, {"value": quoted(value)})
    if path in (".", "/") or set(path.split("/")) == {".."}:
        told = "{value} is no folder of its own; name one to be made, such as results/mine"
        raise PydanticCustomError("folder", told, {"value": quoted(value)})
    return path


Repository = Annotated[str, AfterValidator(_is_repository), _text("org/name", pattern=REPOSITORY)]
Folder = Annotated[str, AfterValidator(_folder), _text("folder")]
OutputFolder = Annotated[str, AfterValidator(_output_folder), _text("folder")]


def count_or(word: str):
    """The type of a count, or of one word in its place.

    Reports one error; pydantic's union would report one per alternative.
    """

    def check(value: Any, either) -> int | str:
        try:
            return either(value)
        except ValidationError:
            raise PydanticCustomError("count_or", "{word}", {"word": word}) from None

    return Annotated[Count | Literal[word], WrapValidator(check)]


class Part(BaseModel):
    """A part of the configuration: unknown keys and infinite numbers are faults, values are never
    coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def exactly_one(part: Part, *fields: str) -> Part:
    keys = {name: type(part).model_fields[name].alias or name for name in fields}
    given = [key for name, key in keys.items() if getattr(part, name) is not None]
    if len(given) != 1:
        known = ", ".join(keys.values())
        told = f"needs exactly one of {known}, has {', '.join(given) or 'none'}; give one of them"
        raise PydanticCustomError("exactly_one", "{told}", {"told": told})
    return part
