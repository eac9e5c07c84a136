"""pydantic's errors as sentences: the path that the user wrote, its place, the value and the
remedy.

pydantic's own messages name classes and patterns, so none is shown: every type of error has its
words here. The messages of this project's validators are complete.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from pydantic_core import core_schema

from mofe.study.kinds import Path, located
from mofe.study.words import dotted, quoted, read_as, shown, suggest
from mofe.study.written import Written

NOTHING = Written()


@dataclass(frozen=True)
class Fault:
    """One of pydantic's errors.

    path: where it is. beside: the keys that may stand there. given: the value that was read.
    written: the value, or the key, as it stands in the file, if it has no quotes there. by_command:
    whether --config gives it. message, context: pydantic's sentence, and what it was made from.
    """

    path: Path
    beside: tuple[str, ...]
    given: Any
    written: str | None
    by_command: bool
    message: str
    context: Mapping[str, Any]


def path_of(error: Mapping[str, Any], kind: Any) -> Path:
    """The path that the user wrote for one of pydantic's errors."""
    return _located(error, kind)[0]


def sentence(error: Mapping[str, Any], kind: Any, written: Written = NOTHING) -> str:
    """One of pydantic's errors as a sentence with the key, its place, the value and the remedy.

    error: an item of ValidationError.errors(). kind: the type that was validated, such as `Study`.
    """
    path, beside = _located(error, kind)
    of_key = error["loc"][-1:] == ("[key]",) and error["type"] != "extra_forbidden"
    fault = Fault(
        path,
        beside,
        error["input"],
        written.key(path) if of_key else written.value(path),
        written.by_command(path),
        error["msg"],
        error.get("ctx", {}),
    )
    ours = error["type"] not in get_args(core_schema.ErrorType)
    describe = SENTENCES.get(error["type"], _as_it_is if ours else _otherwise)
    said = describe(fault)
    if of_key and not ours:
        said = f"the key {said}"
    head = f"{dotted(path)}{written.where(path)}"
    return f"{head}: {said}" if path else said


def _located(error: Mapping[str, Any], kind: Any) -> tuple[Path, tuple[str, ...]]:
    path, beside = located(kind, error["loc"], unknown_key=error["type"] == "extra_forbidden")
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        path = (*path, error["ctx"]["discriminator"].strip("'"))
    return path, beside


# ---------------------------------------------------------------------------- what is said of each


def _unknown_key(fault: Fault) -> str:
    return f"unknown key{suggest(fault.path[-1], fault.beside) or '; remove it'}"


def _missing(fault: Fault) -> str:
    return "this key is missing; add it"


def _unknown_alternative(fault: Fault) -> str:
    known = fault.context["expected_tags"].replace("'", "").split(", ")
    given = fault.given[fault.path[-1]]
    return f"{shown(given)} is not one of the choices{suggest(fault.context['tag'], known)}"


def _text(fault: Fault) -> str:
    if isinstance(fault.given, Mapping | list):
        return f"a text is needed, but it is {shown(fault.given)}; write one text"
    if fault.given is None:
        if not fault.written:
            return "a text is needed, but there is none; write one"
        return f"`{fault.written}` is read as nothing; write a text, or put it in quotes"
    if fault.by_command:
        told = f"a text is needed, but --config reads it as {read_as(fault.given)}"
        return f"{told}; write it in a file, in quotes"
    said, read = fault.written or shown(fault.given), read_as(fault.given)
    return f"`{said}` is read as {'a number' if said == read else read}; put it in quotes"


def _mapping(fault: Fault) -> str:
    return f"keys with values are needed, but it is {shown(fault.given)}; write 'key: value' lines"


def _list(fault: Fault) -> str:
    return f"a list is needed, but it is {shown(fault.given)}; write it in [ ]"


def _truth(fault: Fault) -> str:
    return f"true or false is needed, but it is {shown(fault.given)}; write one of them"


def _number(fault: Fault) -> str:
    if isinstance(fault.given, str):
        hint = _number_in_quotes(fault.given)
        return hint or f"{quoted(fault.given)} is text, a number is needed; write one"
    return f"a number is needed, but it is {shown(fault.given)}; write one"


def _whole_number(fault: Fault) -> str:
    if isinstance(fault.given, str):
        return _number(fault)
    return f"a whole number is needed, but it is {shown(fault.given)}; write one"


def _finite(fault: Fault) -> str:
    return f"a finite number is needed, but it is {shown(fault.given)}; write one"


def _count_or_word(fault: Fault) -> str:
    hint = _number_in_quotes(fault.given) if isinstance(fault.given, str) else None
    needed = f"a whole number from 1 or '{fault.context['word']}' is needed"
    return hint or f"{needed}, but it is {shown(fault.given)}; write one of them"


def _bound(limit: str, size: str, advice: str) -> Callable[[Fault], str]:
    def describe(fault: Fault) -> str:
        return f"{shown(fault.given)} is too {size}; give {advice} {fault.context[limit]:.15g}"

    return describe


def _too_few(fault: Fault) -> str:
    there, least = fault.context["actual_length"], fault.context["min_length"]
    return f"has {there} of at least {least} entries; add {least - there}"


def _too_many(fault: Fault) -> str:
    return f"has more than {fault.context['max_length']} entries; leave some out"


def _literal(fault: Fault) -> str:
    expected = fault.context["expected"].replace("True", "true").replace("False", "false")
    if isinstance(fault.given, str):
        known = [word.strip("'") for word in expected.replace(" or ", ", ").split(", ")]
        near = suggest(fault.given, known)
        remedy = near if near.startswith("; did") else "; choose one"
        return f"{expected} is needed, but it is {quoted(fault.given)}{remedy}"
    given = shown(fault.given)
    if fault.written and fault.written != given:
        given = f"`{fault.written}`, which is read as {given}"
    return f"{expected} is needed, but it is {given}; choose one"


def _as_it_is(fault: Fault) -> str:
    return fault.message


def _otherwise(fault: Fault) -> str:
    return f"does not take {shown(fault.given)}; docs/configuration.md says what it takes"


# pydantic's type of error -> what the sentence says after the path
SENTENCES: dict[str, Callable[[Fault], str]] = {
    "extra_forbidden": _unknown_key,
    "invalid_key": _unknown_key,
    "missing": _missing,
    "union_tag_not_found": _missing,
    "union_tag_invalid": _unknown_alternative,
    "string_type": _text,
    "string_sub_type": _text,
    "dict_type": _mapping,
    "mapping_type": _mapping,
    "model_type": _mapping,
    "model_attributes_type": _mapping,
    "list_type": _list,
    "tuple_type": _list,
    "bool_type": _truth,
    "float_type": _number,
    "finite_number": _finite,
    "int_type": _whole_number,
    "int_from_float": _whole_number,
    "int_parsing_size": _whole_number,
    "greater_than": _bound("gt", "small", "more than"),
    "greater_than_equal": _bound("ge", "small", "at least"),
    "less_than": _bound("lt", "large", "less than"),
    "less_than_equal": _bound("le", "large", "at most"),
    "too_short": _too_few,
    "too_long": _too_many,
    "literal_error": _literal,
    "count_or": _count_or_word,
}


def _number_in_quotes(text: str) -> str | None:
    """What to say of a number that was given as text; None if the text is no number."""
    try:
        value = float(text)
    except ValueError:
        return None
    hint = f"write {_yaml_number(value)} in a file (--config gives nested numbers as text)"
    return f"{quoted(text)} is text, not a number; {hint}" if math.isfinite(value) else None


def _yaml_number(value: float) -> str:
    """A number as YAML 1.1 reads it: with a point before the exponent."""
    if value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    mantissa, e, exponent = repr(value).partition("e")
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}{e}{exponent}"
