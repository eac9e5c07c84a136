"""A table of what there is: a value that is missing is a dash with its reason. Its caption says so,
so that nobody takes it for the finished table."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pandas as pd

from mofe.files import write_atomic
from mofe.report import frames, tables
from mofe.report.tables import Absent
from mofe.study.setting import Setting
from mofe.study.tables import Cell, Row, Table
from mofe.study.values import TIMES

DASH = "–"
_LONGEST = 300  # characters of a reason that are shown

Why = Mapping[tuple[int, str], str]  # by (row from 1, heading), why a cell is not shown


def reasons(table: Table, unusable: Mapping[str, str]) -> dict[tuple[int, str], str]:
    """Why cells of a table cannot be shown. unusable: by file, why it cannot be read."""
    found = {}
    for number, _, cell in _cells(table):
        told = [f"{file}: {unusable[file]}" for file in _files(cell) if file in unusable]
        if told:
            more = f" (and {len(told) - 1} more files)" if len(told) > 1 else ""
            found[number, cell.column] = told[0][:_LONGEST] + more
    return found


def write(
    table: Table,
    setting: Setting,
    why: Why,
    tex: str | os.PathLike,
    md: str | os.PathLike,
    csv: str | os.PathLike,
) -> None:
    """Write the three files of a table without the cells that cannot be shown. why: `reasons`.
    Raises what frames.tidy raises."""
    shown = _without(table, why)
    frame, absent = frames.tidy(shown, setting), _absent(why)
    texts = {
        tex: tables.latex(shown, frame, setting, absent),
        md: tables.markdown(shown, frame, setting, absent),
        csv: tables.to_csv(_with_reasons(shown, frame, setting, why)),
    }
    for path, text in texts.items():
        write_atomic(path, text)


def _without(table: Table, why: Why) -> Table:
    """The table without the files of these cells, and with a caption that says so."""

    def left(number: int, cells: tuple[Cell, ...]) -> tuple[Cell, ...]:
        return tuple(replace(c, files=()) if (number, c.column) in why else c for c in cells)

    rows = tuple(
        replace(row, cells=left(number, row.cells), beside=left(number, row.beside))
        for number, row in enumerate(table.rows, start=1)
    )
    said = f"PARTIAL, not the finished table: {len(why)} of its values are missing."
    return replace(table, rows=rows, caption=f"{said} {table.caption}")


def _absent(why: Why) -> Absent:
    """A dash for each cell, with the number of its reason."""
    numbers = {reason: n for n, reason in enumerate(dict.fromkeys(why.values()), start=1)}
    texts = {cell: f"{DASH} [{numbers[reason]}]" for cell, reason in why.items()}
    return Absent(texts, " ".join(f"[{n}] {reason}." for reason, n in numbers.items()))


def _with_reasons(table: Table, frame: pd.DataFrame, setting: Setting, why: Why) -> pd.DataFrame:
    """The tidy frame with a column `missing`, which has a reason for each missing value."""
    shown = {
        (n, frames.time_column(c.column, setting.unit) if c.kind in TIMES else c.column): (
            row,
            why[n, c.column],
        )
        for n, row, c in _cells(table)
        if (n, c.column) in why
    }
    there = set(zip(frame["row"], frame["column"], strict=True))
    lines = [
        {
            "row": number,
            "label": frames.label(row),
            "column": column,
            "study": setting.study,
            "scale": setting.scale,
        }
        for (number, column), (row, _) in shown.items()
        if (number, column) not in there
    ]
    added = pd.DataFrame(lines, columns=list(frame.columns)).astype(frame.dtypes.to_dict())
    found = pd.concat([frame, added]) if lines else frame
    keys = zip(found["row"], found["column"], strict=True)
    told = [shown[key][1] if key in shown else None for key in keys]
    return found.assign(missing=told).sort_values("row", kind="stable")


def _cells(table: Table) -> Iterator[tuple[int, Row, Cell]]:
    for number, row in enumerate(table.rows, start=1):
        yield from ((number, row, cell) for cell in (*row.cells, *row.beside))


def _files(cell: Cell) -> list[str]:
    """A cell's files, whether it has one per seed or one per stage and seed."""
    runs = [[run] if isinstance(run, str) else run for run in cell.files]
    return [file for files in runs for file in files]
