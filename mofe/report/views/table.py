"""What the page shows of a table: its headings, rows, footer and sentences."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mofe import records
from mofe.metrics import METRICS, SHARES
from mofe.records import EvalRecord
from mofe.report import frames
from mofe.report.kinds import KINDS, floor, sample_of
from mofe.report.tables import (
    BESIDE,
    entry,
    headings,
    in_noise,
    is_published,
    kind_by_column,
    shown_labels,
    times_told,
)
from mofe.study.setting import Setting
from mofe.study.tables import Cell, Row, Table
from mofe.units import MINUS

PAPER = "mofe/paper.csv"  # where the values are that the paper prints


@dataclass(frozen=True)
class Field:
    """A cell of the page's table.

    part: paper, ours or difference. sd, unit: of our value. mark: the mark of a value of the paper
    that is inside its own noise of the best. best: whether it is the best score of its column, and
    no other is within its noise. first: whether it is the first part of its column. apart: whether
    the paper's table lacks this column. files: what its number is read from.
    """

    part: str
    text: str
    sd: str = ""
    unit: str = ""
    mark: str = ""
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


def view(table: Table, setting: Setting) -> dict[str, Any]:
    """What the template shows of a table: headings, rows, footer, and sentences on what its numbers
    are of."""
    frame = frames.tidy(table, setting)
    labels = len(table.label_headings)
    heads = headings(table, setting)
    columns = [
        column
        for (group, shown), heading in zip(heads[labels:], table.columns, strict=True)
        for column in _columns(table, frame, setting, group, heading, shown)
    ]
    columns += [_column_beside(table, frame, heading) for heading in table.beside]
    groups = [group for group, _ in heads[:labels]]
    groups += [column.group for column in columns for _ in column.parts]
    return {
        "number": table.number,
        "caption": table.caption,
        "ours": setting.ours,
        "in_noise": in_noise(frame),
        "times": times_told(table, setting, bool(frame["paper"].notna().any())),
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
        "others": others(table),
    }


def _columns(
    table: Table, frame: pd.DataFrame, setting: Setting, group: str, heading: str, shown: str
) -> list[Column]:
    """The page's columns for a column of the table: two if its time is not in the paper's unit. A
    difference from the paper's value is shown in the paper's own setting only."""
    kind = kind_by_column(table)[heading]
    if heading != shown:
        rows = _rows(table, frame, shown, kind, ("ours",), of=heading)
        ours = Column(group, shown, ("ours",), rows)
        if not is_published(frame, heading):
            return [ours]
        theirs = _rows(table, frame, heading, kind, ("paper",))
        return [Column(group, heading, ("paper",), theirs), ours]
    parts: tuple[str, ...] = ("ours",)
    if is_published(frame, heading):
        parts = ("paper", "ours")
        if setting.is_papers and KINDS[kind].difference is not None:
            parts += ("difference",)
    rows = _rows(table, frame, heading, kind, parts)
    footer = _footer(table, frame, heading, kind)
    return [Column(group, heading, parts, rows, **footer)]


def _column_beside(table: Table, frame: pd.DataFrame, heading: str) -> Column:
    """The page's column for a column that the paper's table lacks."""
    kind = kind_by_column(table)[heading]
    rows = _rows(table, frame, heading, kind, ("ours",), apart=True)
    footer = _footer(table, frame, heading, kind)
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
    of_column = frame[frame["column"] == heading]
    lines = {line.row: line for line in of_column.itertuples()}
    best = {"ours": _best_of_ours(of_column, kind)}
    if kind == "task":
        best["paper"] = _best_of_paper(of_column)
    rows = []
    for number, row in enumerate(table.rows, start=1):
        line = lines.get(number)
        texts = entry(line, kind, table.number, frames.label(row))
        fields = {
            "paper": {"text": texts.paper, "mark": texts.mark},
            "ours": {"text": texts.ours, "sd": texts.sd, "unit": texts.unit},
            "difference": {"text": _difference(line, kind)},
        }
        ours = _files(row, of or heading)
        read = {"paper": (PAPER,), "ours": ours, "difference": (PAPER, *ours)}
        rows.append(
            tuple(
                Field(
                    part,
                    **fields[part],
                    best=best.get(part) == number,
                    first=part == parts[0],
                    apart=apart,
                    files=read[part],
                )
                for part in parts
            )
        )
    return rows


def _files(row: Row, heading: str) -> tuple[str, ...]:
    """The files of a row's cell in a column; none where it has no cell or shows nothing."""
    found = (cell.files for cell in (*row.cells, *row.beside) if cell.column == heading)
    runs = (run for files in found for run in files)
    return tuple(file for run in runs for file in ([run] if isinstance(run, str) else run))


def _best_of_paper(lines: pd.DataFrame) -> int | None:
    """The row of a column's best published score; None where another is inside its noise, or where
    nothing is known of the noise."""
    lines = lines[lines["paper"].notna()]
    if lines.empty or lines["paper_in_noise"].fillna(True).any():
        return None
    return int(lines.loc[lines["paper"].idxmax(), "row"])


def _best_of_ours(lines: pd.DataFrame, kind: str) -> int | None:
    """The row of a column's best measured value; None where another is within one standard error of
    it, and where no value is the best, as of times and sizes."""
    wanted = "greatest" if kind == "task" else METRICS[kind].best if kind in METRICS else None
    lines = lines[lines["value"].notna()].sort_values("value", ascending=wanted == "least")
    if wanted is None or lines.empty or pd.isna(lines["stderr"].iloc[0]):
        return None
    near = (lines["value"] - lines["value"].iloc[0]).abs() <= lines["stderr"].iloc[0]
    return int(lines["row"].iloc[0]) if near.sum() == 1 else None


def _difference(line, kind: str) -> str:
    """Our value minus the paper's, with a sign; empty if either is missing, or if the kind has no
    difference."""
    decimals = KINDS[kind].difference
    if line is None or decimals is None or pd.isna(line.value) or pd.isna(line.paper):
        return ""
    return f"{line.value - line.paper:+.{decimals}f}".replace("-", MINUS)


def _footer(table: Table, frame: pd.DataFrame, heading: str, kind: str) -> dict[str, str]:
    """A task's floor, the standard error of its evaluation and its number of questions; none for a
    column that shows no task."""
    lines = frame[(frame["column"] == heading) & frame["stderr"].notna()]
    if lines.empty:
        return {}
    cell = next(cell for cell in _evaluated(table) if cell.column == heading)
    least_score, there = floor(cell), sample_of(cell)
    least, most = lines["stderr"].min(), lines["stderr"].max()
    return {
        "floor": f"{least_score.value:.4f}" if least_score else "none",
        "stderr": span((least, most), ".4f" if kind in ("task", "entropy") else ".4g"),
        "n": " or ".join(f"{n:,}" for n in sorted(set(lines["n"])))
        + (f" of {there:,} (a sample)" if there else ""),
    }


def _evaluated(table: Table) -> list[Cell]:
    """The table's cells that show something of a task."""
    cells = [cell for row in table.rows for cell in (*row.cells, *row.beside)]
    return [cell for cell in cells if cell.task and cell.kind != "floor" and cell.files]


def floors(table: Table) -> list[str]:
    """How each floor of a table is reached, in words, each once."""
    found = (floor(cell) for cell in _evaluated(table))
    return list(dict.fromkeys(one.how for one in found if one))


def others(table: Table) -> list[str]:
    """Sentences on the other scores of the evaluations whose score a column shows."""
    found: dict[tuple[str, str], list[float]] = {}
    for cell in (cell for cell in _evaluated(table) if cell.kind == "task"):
        for record in (records.read(file, EvalRecord) for file in cell.files):
            shown = cell.metric or record.headline
            for metric in sorted(record.metrics.keys() & {*SHARES} - {shown}):
                value = record.metrics[metric].value
                found.setdefault((cell.column, metric), []).append(value)
    return [
        f"{column}: {METRICS[metric].says} is {span(values, '.4f')}."
        for (column, metric), values in found.items()
    ]


def span(values: Iterable[float], form: str) -> str:
    """The least and the greatest value, "3 to 5", or only one if they print the same."""
    shown = dict.fromkeys(f"{value:{form}}" for value in (min(values), max(values)))
    return " to ".join(shown)
