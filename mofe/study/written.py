"""What the user wrote: the YAML files of a configuration and the command line's --config, with the
place of every key, and what is wrong with them whatever the keys mean.

YAML reads some words as another type than they look (`no`, `0123`, `1:30`, a date). A fault says
what stands in the file, not only what it was read as.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from mofe.study.values import ConfigError
from mofe.study.words import dotted, number, quoted, read_as

COMMAND_LINE = "--config"
DEEPEST = 40  # levels of a configuration; config.yaml has eight
MOST = 200_000  # values that a configuration may have, aliases written out; config.yaml has 1,500
LARGEST = 1e15  # numbers beyond this are no count, size or rate of any study

Keys = tuple[str, ...]  # a path of keys and indices, as text


class Place(NamedTuple):
    """Where a key or a list's item stands.

    where: the file and line, or --config; "" if a program gives it. key, value: both as they are
    written there, where they are plain scalars without quotes.
    """

    where: str
    key: str | None = None
    value: str | None = None


@dataclass(frozen=True)
class Written:
    """Where everything stands; of what several files write, where the last one does.

    top: where a key could be added at the top.
    """

    places: Mapping[Keys, Place] = field(default_factory=dict)
    top: str = ""

    def where(self, path: Iterable[Any]) -> str:
        """' (file:line)' of a path, or of the part that would hold it; '' if nothing is known."""
        found = _keys(path)
        while found:
            if found in self.places:
                where = self.places[found].where
                return f" ({where})" if where else ""
            found = found[:-1]
        return f" ({self.top})" if self.top else ""

    def value(self, path: Iterable[Any]) -> str | None:
        """A plain value as it is written."""
        place = self.places.get(_keys(path))
        return place.value if place else None

    def key(self, path: Iterable[Any]) -> str | None:
        """A plain key as it is written."""
        place = self.places.get(_keys(path))
        return place.key if place else None

    def by_command(self, path: Iterable[Any]) -> bool:
        """Whether the command line gives the value."""
        place = self.places.get(_keys(path))
        return place is not None and place.where == COMMAND_LINE

    def located(self, sentence: str) -> str:
        """A sentence that begins with a path of keys, with the place of that path behind it."""
        names = self._dotted
        ends = [i for i, c in enumerate(sentence) if c in ".: " and sentence[:i] in names]
        head = max(ends, default=0)
        stop = head if sentence[head : head + 1] == " " else sentence.find(":", head)
        if stop < 0:
            return sentence
        return sentence[:stop] + self.where(names.get(sentence[:head], ())) + sentence[stop:]

    @cached_property
    def _dotted(self) -> dict[str, Keys]:
        return {dotted(path): path for path in self.places}


def _keys(path: Iterable[Any]) -> Keys:
    return tuple(map(str, path))


# ------------------------------------------------------------------------------------ the files


@dataclass(frozen=True)
class Layer:
    """A file or the command line: its content as plain data, the place of each key, and a message
    for each fault of its YAML, by path. twice: a sentence for each key that stands twice."""

    content: Mapping[Any, Any]
    places: Mapping[Keys, Place]
    faults: Mapping[Keys, str] = field(default_factory=dict)
    twice: tuple[str, ...] = ()


def file(path: Path) -> Layer:
    """A YAML file. Raises ConfigError where it cannot be read as keys and values at all."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        told = f"{path}: is no text in UTF-8 (byte {error.start}); save it as UTF-8"
        raise ConfigError([told]) from None
    reader = _Reader(path)
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        reader.read(loader, node)
        content = loader.construct_document(node) if node else None
    except yaml.YAMLError as error:
        mark, told = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        line = f":{mark.line + 1}" if mark else ""
        said = " ".join(str(told or error).split())
        raise ConfigError([f"{path}{line}: cannot be read as YAML: {said}; correct it"]) from None
    except ValueError as error:  # a date such as 2026-13-45, a number of 5,000 digits
        said = str(error).partition(";")[0]
        told = f"{path}: has a value that YAML cannot read ({said}); put it in quotes"
        raise ConfigError([told]) from None
    if not isinstance(content, Mapping):
        raise ConfigError([f"{path}: has no keys at its top; write lines such as 'study: name'"])
    return Layer(content, reader.places, reader.faults, tuple(reader.twice))


def given(content: Mapping[str, Any], where: str) -> Layer:
    """What the command line or a program gives. where: COMMAND_LINE, or "" for a program."""
    return Layer(content, {path: Place(where) for path in _paths(content)})


def all_of(layers: Iterable[Layer]) -> Written:
    """Where everything of these layers stands; later ones override earlier ones."""
    layers, places = list(layers), {}
    for layer in layers:
        replaced = set(_replacing(layer.content))
        below = (p for p in places if any(p[:n] in replaced for n in range(1, len(p))))
        for path in list(below):
            del places[path]
        places |= layer.places
    files = [p.where for layer in layers for p in layer.places.values() if ":" in p.where]
    return Written(places, f"{files[0].rpartition(':')[0]}:1" if files else "")


def _replacing(content: Mapping[Any, Any], path: Keys = ()) -> Iterator[Keys]:
    """The paths of lists and single values, which replace what earlier layers have there."""
    for key, value in content.items():
        if isinstance(value, Mapping) and len(path) < DEEPEST:
            yield from _replacing(value, (*path, str(key)))
        else:
            yield (*path, str(key))


def _paths(content: Any, path: Keys = ()) -> Iterator[Keys]:
    if len(path) > DEEPEST:  # `sound` says so
        return
    items = content.items() if isinstance(content, Mapping) else ()
    for key, value in enumerate(content) if isinstance(content, list) else items:
        yield (*path, str(key))
        yield from _paths(value, (*path, str(key)))


class _Endless(yaml.error.MarkedYAMLError):
    """YAML that is nested without end, or too deep or too large to be read."""


class _Loader(yaml.SafeLoader):
    """PyYAML's loader, which stops where YAML is nested without end."""

    def __init__(self, text: str):
        super().__init__(text)
        self._open: list[str | None] = []

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            if event.anchor in self._open:
                told = f"*{event.anchor} stands inside itself, write out what it stands for"
                raise _Endless(problem=told, problem_mark=event.start_mark)
            return super().compose_node(parent, index)
        if len(self._open) > DEEPEST:
            told = f"it is nested more than {DEEPEST} levels deep"
            raise _Endless(problem=told, problem_mark=event.start_mark)
        self._open.append(event.anchor)
        node = super().compose_node(parent, index)
        self._open.pop()
        return node


class _Reader:
    """Walks a file's nodes: the place of each key, keys that stand twice, and what is written in a
    way that YAML reads differently than it looks."""

    def __init__(self, path: Path):
        self.path = path
        self.places: dict[Keys, Place] = {}
        self.faults: dict[Keys, str] = {}
        self.twice: list[str] = []

    def read(self, loader: yaml.SafeLoader, node: yaml.Node | None) -> None:
        self.loader, self.count = loader, 0
        self._below(node, ())

    def _below(self, node: yaml.Node | None, path: Keys) -> None:
        if isinstance(node, yaml.MappingNode):
            self._find_twice(node, path)
            self.loader.flatten_mapping(node)  # `<<: *other`
            for key, value in node.value:
                here = (*path, str(self.loader.construct_object(key, deep=True)))
                self._item(here, key, key, value)
        elif isinstance(node, yaml.SequenceNode):
            for index, value in enumerate(node.value):
                self._item((*path, str(index)), value, None, value)

    def _item(self, here: Keys, at: yaml.Node, key: yaml.Node | None, value: yaml.Node) -> None:
        self.count += 1
        if self.count > MOST:
            told = f"it has more than {MOST:,} values, with aliases written out"
            raise _Endless(problem=told, problem_mark=at.start_mark)
        self.places[here] = Place(self._where(at), _plain(key), _plain(value))
        for node in (key, value):
            if (text := _plain(node)) and (fault := self._other_base(node, text)):
                self.faults[here] = fault
        self._below(value, here)

    def _where(self, node: yaml.Node) -> str:
        return f"{self.path}:{node.start_mark.line + 1}"

    def _find_twice(self, node: yaml.MappingNode, path: Keys) -> None:
        seen: set[str] = set()
        for key, _ in node.value:
            if (name := str(key.value)) in seen:
                here = f"{dotted((*path, name))} ({self._where(key)})"
                self.twice.append(f"{here}: this key stands twice; remove one")
            seen.add(name)

    def _other_base(self, node: yaml.Node, text: str) -> str | None:
        """What to say of a number that YAML reads to another base than ten: 1:30 is 90, 010 is
        8."""
        is_number = node.tag.rpartition(":")[2] in ("int", "float")
        if not (is_number and (":" in text or re.fullmatch(r"[-+]?0[0-9_]+", text))):
            return None
        read = self.loader.construct_object(node)
        return f"`{text}` is read as {read}; put it in quotes, or write {read}"


def _plain(node: yaml.Node | None) -> str | None:
    """A scalar without quotes, as it is written."""
    plain = isinstance(node, yaml.ScalarNode) and not node.style
    return node.value if plain else None


# ------------------------------------------------------------------------------- the plain data


class Sound(NamedTuple):
    """Plain data whose keys are texts and whole numbers, and a message for each fault, by path."""

    content: dict[Any, Any]
    faults: dict[tuple, str]


def sound(content: Mapping[Any, Any], written: Written) -> Sound:
    """Plain data, and what no key takes: keys that are no text, control characters, numbers that
    are infinite or beyond every use, other types of YAML's.

    Raises ConfigError where the data are nested without end.
    """
    faults: dict[tuple, str] = {}
    left = [MOST]

    def walk(value: Any, path: tuple) -> Any:
        left[0] -= 1
        if len(path) > DEEPEST or left[0] < 0:
            told = "is nested too deep or too large, or stands inside itself; write it out"
            raise ConfigError([f"{dotted(path[:3])}{written.where(path[:3])}: {told}"])
        if isinstance(value, Mapping):
            return dict(pair(key, inner, path) for key, inner in value.items())
        if isinstance(value, list):
            return [walk(inner, (*path, index)) for index, inner in enumerate(value)]
        if fault := _unusable(value, written.value(path)):
            faults[path] = fault
        return value

    def pair(key: Any, value: Any, path: tuple) -> tuple[Any, Any]:
        if isinstance(key, str):
            if fault := _unprintable(key):
                faults[*path, key] = f"the key {fault}"
        elif type(key) is not int:
            text = written.key((*path, key)) or str(key)
            told = f"the key `{text}` is read as {read_as(key)}; put it in quotes"
            key = str(key)
            faults[*path, key] = told
        return key, walk(value, (*path, key))

    return Sound(walk(content, ()), faults)


def _unusable(value: Any, text: str | None) -> str | None:
    """Why no key takes a value, whatever it means; None where one may. text: as it is written."""
    if isinstance(value, str):
        return _unprintable(value)
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return f"a finite number is needed, but it is {text or value}; write one"
    if isinstance(value, int | float):
        large = abs(value) > LARGEST
        return f"{number(value)} is too large; write a smaller number" if large else None
    return f"`{text or value}` is read as {read_as(value)}; put it in quotes"


def _unprintable(text: str) -> str | None:
    for character in text:
        code = ord(character)
        if (code < 32 and character not in "\t\n\r") or 127 <= code < 160:
            return f"{quoted(text)} has the control character {character!r}; remove it"
        if 0xD800 <= code < 0xE000:
            return f"{quoted(text)} has half a character, {character!r}; remove it"
    return None
