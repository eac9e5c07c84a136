"""Rows of a table that are written as a list, each with its `labels`, as mappings by name.

A file may write rows in either way; everything after this module knows rows by name.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from mofe.paper import LABEL_SEPARATOR
from mofe.study.words import read_as
from mofe.study.written import Keys, Layer


def by_name(content: Mapping[Any, Any]) -> dict[Any, Any]:
    """A configuration whose tables have their rows by name. Rows without labels, or whose names
    are equal, stay a list."""
    named = {key: rows for key, rows, _ in _listed(content)}
    if not named:
        return dict(content)
    tables = {
        key: {**table, "rows": named[key]} if key in named else table
        for key, table in content["tables"].items()
    }
    return {**content, "tables": tables}


def layer_by_name(layer: Layer) -> Layer:
    """A file whose tables have their rows by name, with the places of these names, and with a fault
    for each label that is no text."""
    moved = {
        ("tables", str(key), "rows", str(number)): ("tables", str(key), "rows", name)
        for key, _, names in _listed(layer.content)
        for number, name in enumerate(names)
    }
    named = {_moved(path, moved): place for path, place in layer.places.items()}
    faults = {_moved(path, moved): told for path, told in layer.faults.items()}
    for path, label in _labels(layer.content):
        if not isinstance(label, str) and type(label) is not int and path not in faults:
            place = layer.places.get(path)
            said = (place and place.value) or str(label)
            faults[path] = f"`{said}` is read as {read_as(label)}; put it in quotes"
    return replace(
        layer, content=by_name(layer.content), places=layer.places | named, faults=faults
    )


def _moved(path: Keys, moved: Mapping[Keys, Keys]) -> Keys:
    return (*moved.get(path[:4], path[:4]), *path[4:])


def _listed(content: Mapping[Any, Any]) -> Iterator[tuple[Any, dict[str, Any], list[str]]]:
    """(key of the table, its rows by name, their names) of every table whose rows are such a
    list."""
    for key, rows in _lists(content):
        names = [_name(row) for row in rows]
        if None not in names and len(set(names)) == len(names):
            plain = ({k: v for k, v in row.items() if k != "labels"} for row in rows)
            yield key, dict(zip(names, plain, strict=True)), names


def _labels(content: Mapping[Any, Any]) -> Iterator[tuple[Keys, Any]]:
    """Every label of such rows, with its path."""
    for key, rows in _lists(content):
        for number, row in enumerate(rows):
            labels = row.get("labels") if isinstance(row, Mapping) else None
            for at, label in enumerate(labels if isinstance(labels, list) else ()):
                yield ("tables", str(key), "rows", str(number), "labels", str(at)), label


def _lists(content: Mapping[Any, Any]) -> Iterator[tuple[Any, list[Any]]]:
    tables = content.get("tables")
    for key, table in tables.items() if isinstance(tables, Mapping) else ():
        rows = table.get("rows") if isinstance(table, Mapping) else None
        if isinstance(rows, list) and rows:
            yield key, rows


def _name(row: Any) -> str | None:
    labels = row.get("labels") if isinstance(row, Mapping) else None
    if not isinstance(labels, list) or not labels:
        return None
    return LABEL_SEPARATOR.join(map(str, labels))
