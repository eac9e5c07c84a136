"""pydantic's errors as sentences: the path that the user wrote, its line, and the remedy."""

import math
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic_core import core_schema

from mofe.study.values import Part, suggest

Path = tuple[str | int, ...]  # keys, names and indices from the top of the configuration
Lines = Mapping[tuple[str, ...], str]  # such a path, as text -> ' (file:line)'


@dataclass(frozen=True)
class Fault:
    """One of pydantic's errors.

    path: where it is. beside: the keys that may stand there. given: the value that the user wrote.
    message, context: pydantic's sentence, and what it was made from.
    """

    path: Path
    beside: tuple[str, ...]
    given: Any
    message: str
    context: Mapping[str, Any]


def sentence(error: Mapping[str, Any], kind: Any, lines: Lines) -> str:
    """One of pydantic's errors as a sentence with the key, its line, the value and the remedy.

    error: an item of ValidationError.errors(). kind: the type that was validated, such as `Study`.
    """
    path, beside = located(kind, error["loc"], unknown_key=error["type"] == "extra_forbidden")
    context = error.get("ctx", {})
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path = (*path, context["discriminator"].strip("'"))
    fault = Fault(path, beside, error["input"], error["msg"], context)
    ours = error["type"] not in get_args(core_schema.ErrorType)
    describe = SENTENCES.get(error["type"], _as_it_is if ours else _with_value)
    return f"{'.'.join(map(str, path))}{lines.get(tuple(map(str, path)), '')}: {describe(fault)}"


def _unknown_key(fault: Fault) -> str:
    return f"unknown key{suggest(fault.path[-1], fault.beside)}"


def _missing(fault: Fault) -> str:
    return "this key is missing; add it"


def _unknown_alternative(fault: Fault) -> str:
    known = fault.context["expected_tags"].replace("'", "").split(", ")
    return (
        f"{fault.context['tag']!r} is not one of the choices{suggest(fault.context['tag'], known)}"
    )


def _number(fault: Fault) -> str:
    if not isinstance(fault.given, str):
        return _with_value(fault)
    return _quoted(fault.given) or f"{fault.given!r} is text, a number is needed"


def _count_or_word(fault: Fault) -> str:
    quoted = _quoted(fault.given) if isinstance(fault.given, str) else None
    return quoted or _with_value(fault)


def _as_it_is(fault: Fault) -> str:
    return fault.message


def _with_value(fault: Fault) -> str:
    return f"{fault.message}, but it is {fault.given!r}"


# pydantic's type of error -> what the sentence says after the path. Of other errors, our own
# messages are complete, and pydantic's lack the value.
SENTENCES: dict[str, Callable[[Fault], str]] = {
    "extra_forbidden": _unknown_key,
    "missing": _missing,
    "union_tag_not_found": _missing,
    "union_tag_invalid": _unknown_alternative,
    "float_type": _number,
    "int_type": _number,
    "count_or": _count_or_word,
}


def _quoted(text: str) -> str | None:
    """What to say of a number that was given as text; None if the text is no number."""
    try:
        number = float(text)
    except ValueError:
        return None
    hint = f"write {_yaml_number(number)} in a file (--config gives nested numbers as text)"
    return f"{text!r} is text, not a number; {hint}" if math.isfinite(number) else None


def _yaml_number(number: float) -> str:
    """A number as YAML 1.1 reads it: with a point before the exponent."""
    if number.is_integer() and abs(number) < 1e15:
        return str(int(number))
    mantissa, e, exponent = repr(number).partition("e")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}{e}{exponent}"


def located(kind: Any, loc: Path, unknown_key: bool = False) -> tuple[Path, tuple[str, ...]]:
    """The path that the user wrote for one of pydantic's locations, and the keys that may stand
    there.

    pydantic adds the alternative of a union that it tried, and "[key]" after a mapping's key that
    is itself wrong. The user may have chosen such names too, so the location is followed through
    the types. kind: the type that was validated. unknown_key: whether the location ends in an
    unknown key.
    """
    path: Path = ()
    beside: tuple[str, ...] = ()
    for index, key in enumerate(loc):
        alternatives, rest = _alternatives(kind), loc[index + 1 :]
        if len(alternatives) > 1:
            kind = _chosen(alternatives, key, rest)
            continue
        (kind,) = alternatives
        if _is_part(kind):
            fields = {f.alias or name: f.annotation for name, f in kind.model_fields.items()}
            path, beside, kind = (*path, key), tuple(fields), fields.get(key)
        elif get_origin(kind) in (dict, list, tuple):
            path, beside = (*path, key), ()
            if get_origin(kind) is dict and rest == ("[key]",) and not unknown_key:
                break
            kind = _element(kind, key)
        else:
            break
    return path, beside


def _alternatives(kind: Any) -> tuple:
    """What a value may be besides None: the members of a union, or the type alone."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) not in (Union, types.UnionType):
        return (kind,)
    others = tuple(k for k in get_args(kind) if k is not types.NoneType)
    return _alternatives(others[0]) if len(others) == 1 else others


def _element(kind: Any, key: str | int) -> Any:
    """The type of a dict's, list's or tuple's element."""
    inner = get_args(kind)
    if get_origin(kind) is tuple and inner[-1] is not ...:
        return inner[key] if key < len(inner) else None
    return inner[1] if get_origin(kind) is dict else inner[0]


def _chosen(alternatives: tuple, tag: str | int, rest: Path) -> Any:
    """The alternative that pydantic means: the one that the tag chooses, else the first that holds
    what comes next."""
    return next(
        (k for k in alternatives if _has_word(k, tag)),
        next((k for k in alternatives if rest and _can_hold(k, rest[0])), None),
    )


def _has_word(kind: Any, word: str | int) -> bool:
    """Whether one of a part's keys takes this word, as a discriminator does."""
    (kind, *_) = _alternatives(kind)
    annotations = [f.annotation for f in kind.model_fields.values()] if _is_part(kind) else []
    return any(get_origin(a) is Literal and word in get_args(a) for a in annotations)


def _can_hold(kind: Any, key: str | int) -> bool:
    (kind, *_) = _alternatives(kind)
    if isinstance(key, int) and get_origin(kind) in (list, tuple):
        return True
    return _is_part(kind) or get_origin(kind) is dict


def _is_part(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Part)
