"""What the page shows of a table: its headings, rows, footer and sentences."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mofe import records
from mofe.records import EvalRecord
from mofe.report import frames
from mofe.report.tables import BESIDE, entry, headings, kind_by_column, shown_labels
from mofe.study.tables import Cell, Row, Table

_METRICS = {
    "acc": "accuracy (acc)",
    "exact": "the share of exact matches",
    "acc_norm": "accuracy by log-likelihood per character (acc_norm)",
}
PAPER = "mofe/paper.csv"  # where the values are that the paper prints
_MINUS = "\u2212"


@dataclass(frozen=True)
class Field:
    """A cell of the page's table.

    part: paper, ours or difference. best: whether it is the best score of its column. first:
    whether it is the first part of its column. apart: whether the paper's table lacks this column.
    files: what its number is read from.
    """

    part: str
    text: str
    sd: str = ""
    best: bool = False
    first: bool = False
    apart: bool = False
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """A column of the page's table: its parts, its fields row by row, and its footer (floor,
    stderr, n), which is read from the files of all fields."""

    group: str
    heading: str
    parts: tuple[str, ...]
    rows: list[tuple[Field, ...]]
    floor: str = ""
    stderr: str = ""
    n: str = ""
    apart: bool = False

    @property
    def files(self) -> list[str]:
        return [file for row in self.rows for field in row for file in field.files]


def view(table: Table, unit: frames.Unit) -> dict[str, Any]:
    """What the template shows of a table: headings, rows, footer and sentences on the order."""
    frame = frames.tidy(table, unit)
    labels = len(table.label_headings)
    heads = headings(table, unit)
    columns = [
        column
        for (group, shown), heading in zip(heads[labels:], table.columns, strict=True)
        for column in _columns(table, frame, group, heading, shown)
    ]
    columns += [_column_beside(table, frame, heading) for heading in table.beside]
    groups = [group for group, _ in heads[:labels]]
    groups += [column.group for column in columns for _ in column.parts]
    return {
        "number": table.number,
        "caption": table.caption,
        "groups": [
            (text, len(list(run))) for text, run in itertools.groupby(groups) if any(groups)
        ],
        "label_headings": table.label_headings,
        "columns": columns,
        "blocks": any(not shown[0] for shown in shown_labels(table)),
        "rows": [
            (shown, [field for column in columns for field in column.rows[at]])
            for at, shown in enumerate(shown_labels(table))
        ],
        "files": [PAPER, *(file for column in columns for file in column.files)],
        "floors": floors(table),
        "orders": [words for column in _tasks(table) if (words := order(frame, column))],
        "others": others(table),
    }


def _tasks(table: Table) -> list[str]:
    kinds = kind_by_column(table)
    return [column for column in table.columns if kinds[column] == "task"]


def _columns(
    table: Table, frame: pd.DataFrame, group: str, heading: str, shown: str
) -> list[Column]:
    """The page's columns for a column of the table: two if its time is not in the paper's unit."""
    kind = kind_by_column(table)[heading]
    if heading != shown:
        return [
            Column(group, heading, ("paper",), _rows(table, frame, heading, kind, ("paper",))),
            Column(
                group, shown, ("ours",), _rows(table, frame, shown, kind, ("ours",), of=heading)
            ),
        ]
    parts = ("paper", "ours") if kind == "trainable" else ("paper", "ours", "difference")
    rows = _rows(table, frame, heading, kind, parts)
    footer = _footer(table, frame, heading) if kind == "task" else {}
    return [Column(group, heading, parts, rows, **footer)]


def _column_beside(table: Table, frame: pd.DataFrame, heading: str) -> Column:
    """The page's column for a column that the paper's table lacks."""
    rows = _rows(table, frame, heading, "task", ("ours",), apart=True)
    footer = _footer(table, frame, heading)
    return Column(BESIDE, heading, ("ours",), rows, **footer, apart=True)


def _rows(
    table: Table,
    frame: pd.DataFrame,
    heading: str,
    kind: str,
    parts: tuple[str, ...],
    apart: bool = False,
    of: str | None = None,
) -> list[tuple[Field, ...]]:
    """The fields of a column, row by row. of: the heading of its cells, if it is another."""
    lines = {line.row: line for line in frame[frame["column"] == heading].itertuples()}
    # The best scores are marked, the paper's and ours; time and size have none.
    scores = lines.values() if kind == "task" else ()
    best = {
        "paper": max((line.paper for line in scores if pd.notna(line.paper)), default=None),
        "ours": max((line.value for line in scores if pd.notna(line.value)), default=None),
    }
    rows = []
    for number, row in enumerate(table.rows, start=1):
        line = lines.get(number)
        texts = entry(line, kind, table.number, frames.label(row))
        fields = {
            "paper": (texts.paper, "", line is not None and line.paper == best["paper"]),
            "ours": (texts.ours, texts.sd, line is not None and line.value == best["ours"]),
            "difference": (_difference(line, kind), "", False),
        }
        ours = _files(row, of or heading)
        read = {"paper": (PAPER,), "ours": ours, "difference": (PAPER, *ours)}
        rows.append(
            tuple(Field(part, *fields[part], part == parts[0], apart, read[part]) for part in parts)
        )
    return rows


def _files(row: Row, heading: str) -> tuple[str, ...]:
    """The files of a row's cell in a column; none where it has no cell or shows nothing."""
    found = (cell.files for cell in (*row.cells, *row.beside) if cell.column == heading)
    runs = (run for files in found for run in files)
    return tuple(file for run in runs for file in ([run] if isinstance(run, str) else run))


def _difference(line, kind: str) -> str:
    """Our value minus the paper's, with a sign; empty if either is missing."""
    if line is None or pd.isna(line.value) or pd.isna(line.paper):
        return ""
    text = f"{line.value - line.paper:+.{4 if kind == 'task' else 1}f}"
    return text.replace("-", _MINUS)


def _footer(table: Table, frame: pd.DataFrame, heading: str) -> dict[str, str]:
    """A task's floor, the standard error of its evaluation and its number of questions."""
    lines = frame[(frame["column"] == heading) & frame["value"].notna()]
    if lines.empty:
        return {}
    floor = frames.floor(next(cell for cell in _scored(table) if cell.column == heading))
    least, most = lines["stderr"].min(), lines["stderr"].max()
    return {
        "floor": f"{floor.value:.4f}" if floor else "none",
        "stderr": span((least, most), ".4f"),
        "n": " or ".join(f"{n:,}" for n in sorted(set(lines["n"]))),
    }


def _scored(table: Table) -> list[Cell]:
    """The table's cells that show a task's score."""
    cells = [cell for row in table.rows for cell in (*row.cells, *row.beside)]
    return [cell for cell in cells if cell.kind == "task" and cell.files]


def floors(table: Table) -> list[str]:
    """How each floor of a table is reached, in words, each once."""
    found = (frames.floor(cell) for cell in _scored(table))
    return list(dict.fromkeys(floor.how for floor in found if floor))


def others(table: Table) -> list[str]:
    """Sentences on the other metrics of the evaluations whose score a column shows."""
    found: dict[tuple[str, str], list[float]] = {}
    for cell in _scored(table):
        for record in (records.read(file, EvalRecord) for file in cell.files):
            for metric in sorted(record.metrics.keys() - {cell.metric or record.headline}):
                value = record.metrics[metric].value
                found.setdefault((cell.column, metric), []).append(value)
    return [
        f"{column}: {_METRICS.get(metric, metric)} is {span(values, '.4f')}."
        for (column, metric), values in found.items()
    ]


def span(values: Iterable[float], form: str) -> str:
    """The least and the greatest value, "3 to 5", or only one if they print the same."""
    shown = dict.fromkeys(f"{value:{form}}" for value in (min(values), max(values)))
    return " to ".join(shown)


def order(frame: pd.DataFrame, column: str) -> str | None:
    """A sentence on whether a task's rows are ordered as in the paper; None if no two can be
    compared.

    It counts the pairs of rows whose values differ in the paper. It does not test whether a
    difference is more than noise.
    """
    lines = frame[frame["column"] == column].dropna(subset=["paper", "value"])
    pairs = [
        (one.value - two.value) * (one.paper - two.paper) > 0
        for one, two in itertools.combinations(lines.itertuples(), 2)
        if one.paper != two.paper
    ]
    if not pairs:
        return None
    same, count = sum(pairs), len(pairs)
    number = "all" if same == count else "none" if same == 0 else f"{same}"
    theirs, ours = (_best(lines, name) for name in ("paper", "value"))
    best = f"best is {ours}" + (" in both" if ours == theirs else f", in the paper {theirs}")
    noun = "pair of rows is" if count == 1 else "pairs of rows are"
    return f"{column}: {number} of {count} {noun} in the paper's order; {best}."


def _best(lines: pd.DataFrame, name: str) -> str:
    """The labels of all rows that have the greatest value."""
    best = lines.loc[lines[name] == lines[name].max(), "label"]
    labels = [f"“{label}”" for label in best]
    return " and ".join(filter(None, (", ".join(labels[:-1]), labels[-1])))
