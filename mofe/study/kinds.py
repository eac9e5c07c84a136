"""The types of the configuration's models, followed along a path of keys.

Faults find the path that the user wrote in them, and overlays the mappings whose entries have names
of their own.
"""

import types
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from mofe.study.values import Part

Path = tuple[str | int, ...]  # keys, names and indices from the top of the configuration


class Entry(NamedTuple):
    """An entry of a mapping whose keys are names: a model, a recipe, a column of a table."""

    path: Path
    value: Any


def entries(kind: Any, value: Any, path: Path = ()) -> Iterator[Entry]:
    """Every entry, at any depth, of the mappings in `value` whose keys are names. kind: the type
    that `value` is to have."""
    for key, inner, named, found in _inside(kind, value):
        if named:
            yield Entry((*path, key), found)
        yield from entries(inner, found, (*path, key))


def without_nulls(kind: Any, value: Any) -> Any:
    """`value` without the entries that are null, of every mapping whose keys are names: an overlay
    takes an entry out so. kind: the type that `value` is to have."""
    if isinstance(value, Mapping):
        typed = {key: (inner, named) for key, inner, named, _ in _inside(kind, value)}
        return {
            key: without_nulls(typed[key][0], found) if key in typed else found
            for key, found in value.items()
            if not (found is None and key in typed and typed[key][1])
        }
    if isinstance(value, list) and (inside := _inside(kind, value)):
        return [without_nulls(inner, found) for _, inner, _, found in inside]
    return value


def _inside(kind: Any, value: Any) -> list[tuple[str | int, Any, bool, Any]]:
    """(key, type, whether the key is a name, value) of what is directly in `value`; nothing of what
    the type does not know."""
    kinds = [k for alternative in alternatives(kind) for k in alternatives(alternative)]
    if isinstance(value, Mapping):
        known = {name: inner for k in kinds if is_part(k) for name, inner in fields(k).items()}
        if known:
            return [(key, known[key], False, v) for key, v in value.items() if key in known]
        inner = next((element(k, "") for k in kinds if get_origin(k) is dict), None)
        return [(key, inner, True, v) for key, v in value.items()] if inner is not None else []
    if isinstance(value, list):
        sequences = [k for k in kinds if get_origin(k) in (list, tuple)]
        return [
            (index, element(k, index), False, v)
            for k in sequences[:1]
            for index, v in enumerate(value)
        ]
    return []


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
        members, rest = alternatives(kind), loc[index + 1 :]
        if len(members) > 1:
            kind = _chosen(members, key, rest)
            continue
        (kind,) = members
        if is_part(kind):
            known = fields(kind)
            path, beside, kind = (*path, key), tuple(known), known.get(key)
        elif get_origin(kind) in (dict, list, tuple):
            path, beside = (*path, key), ()
            if get_origin(kind) is dict and rest == ("[key]",) and not unknown_key:
                break
            kind = element(kind, key)
        else:
            break
    return path, beside


def fields(part: type[Part]) -> dict[str, Any]:
    """The type of each of a part's keys, by the name that the user writes."""
    return {field.alias or name: field.annotation for name, field in part.model_fields.items()}


def alternatives(kind: Any) -> tuple:
    """What a value may be besides None: the members of a union, or the type alone."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) not in (Union, types.UnionType):
        return (kind,)
    others = tuple(k for k in get_args(kind) if k is not types.NoneType)
    return alternatives(others[0]) if len(others) == 1 else others


def element(kind: Any, key: str | int) -> Any:
    """The type of a dict's, list's or tuple's element."""
    inner = get_args(kind)
    if get_origin(kind) is tuple and inner[-1] is not ...:
        return inner[key] if key < len(inner) else None
    return inner[1] if get_origin(kind) is dict else inner[0]


def is_part(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Part)


def _chosen(members: tuple, tag: str | int, rest: Path) -> Any:
    """The alternative that pydantic means: the one that the tag chooses, else the first that holds
    what comes next."""
    return next(
        (k for k in members if _has_word(k, tag)),
        next((k for k in members if rest and _can_hold(k, rest[0])), None),
    )


def _has_word(kind: Any, word: str | int) -> bool:
    """Whether one of a part's keys takes this word, as a discriminator does."""
    (kind, *_) = alternatives(kind)
    annotations = [f.annotation for f in kind.model_fields.values()] if is_part(kind) else []
    return any(get_origin(a) is Literal and word in get_args(a) for a in annotations)


def _can_hold(kind: Any, key: str | int) -> bool:
    (kind, *_) = alternatives(kind)
    if isinstance(key, int) and get_origin(kind) in (list, tuple):
        return True
    return is_part(kind) or get_origin(kind) is dict
