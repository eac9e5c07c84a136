"""What a study with the paper's name may not change: its numbers are compared with the paper's."""

from collections.abc import Iterator, Mapping
from typing import Any

from mofe.study.setting import PAPER
from mofe.study.words import dotted

# the sections whose entries decide results; names may be added to them, and taken out
SECTIONS = ("models", "sources", "data", "mixes", "tasks", "mixtures", "recipes", "searches")
# what decides results of every row
SETTINGS = ("merge", "training", "scoring", "shots", "sampling_seed", "add_bos_token")
# Keys of an entry that may differ, by section. Only estimates use them, but `questions` also
# decides what is held out; `sample` has a check of its own (checks/rows.py).
FREE = {
    "models": {"shape"},
    "data": {"tokens"},
    "tasks": {"tokens", "generated", "questions", "sample"},
}
# Of `training` and what overrides it: rows at a time, and what is recorded.
NO_RESULT = ("micro_batch", "record_router")
SHOWN = ("rows", "columns")  # of a table, by the headings and labels that the paper prints

Path = tuple[Any, ...]


def changed(study: str, first: Mapping[str, Any], merged: Mapping[str, Any]) -> Iterator[str]:
    """A sentence for every key that a study with the paper's name sets differently than the first
    configuration file, which has the paper's setting. first, merged: plain data without nulls.

    Tables, rows and columns may be left out and added: the paper's values are looked up by their
    names. What a row or a column of that name shows stays.
    """
    if study != PAPER or first.get("study") != PAPER:
        return
    for path in _differences(first, merged):
        yield (
            f"{dotted(path)}: the study '{PAPER}' has the paper's own setting, and this changes "
            "it; give the study another name, such as 'study: own'"
        )


def _differences(first: Mapping[str, Any], merged: Mapping[str, Any]) -> Iterator[Path]:
    for key in SETTINGS:
        yield from _below((key,), first.get(key), merged.get(key))
    for section in SECTIONS:
        yield from _entries((section,), first, merged)
    for number, table in _mapping(first.get("tables")).items():
        given = _mapping(_mapping(merged.get("tables")).get(number))
        for part in SHOWN if given else ():
            yield from _entries(("tables", number, part), {part: table[part]}, given)


def _entries(path: Path, first: Mapping[str, Any], merged: Mapping[str, Any]) -> Iterator[Path]:
    """The differences of entries that both have."""
    ours, theirs = _mapping(merged.get(path[-1])), _mapping(first.get(path[-1]))
    for name in theirs.keys() & ours.keys():
        free = FREE.get(path[0], set())
        if path[0] == "tasks" and "held_out" in _mapping(theirs[name]):
            free = free - {"questions"}
        for found in _below((*path, name), theirs[name], ours[name]):
            if found[2:3] not in {(key,) for key in free}:
                yield found


def _below(path: Path, first: Any, merged: Any) -> Iterator[Path]:
    """The paths at which two values differ. A key that is null or empty is like none."""
    if isinstance(first, Mapping) and isinstance(merged, Mapping):
        for key in dict.fromkeys([*first, *merged]):
            yield from _below((*path, key), first.get(key), merged.get(key))
    elif (
        path[-1] not in NO_RESULT and first != merged and (first or merged or 0 in (first, merged))
    ):
        yield path


def _mapping(value: Any) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {}
