"""A table's results as one tidy frame, read from the JSON files that the plan lists for its
cells."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pandas as pd

from mofe import paper
from mofe.report import noise
from mofe.report.kinds import Measured, measure
from mofe.study.setting import Setting, Unit
from mofe.study.tables import Row, Table
from mofe.study.values import TIMES

COLUMNS = ("row", "label", "column", "paper", "value", "sd", "stderr", "n", "seeds")
COLUMNS += ("paper_in_noise", "study", "scale")


def label(row: Row) -> str:
    """The row's labels as printed, joined by " | ", which identify it in its table."""
    return paper.LABEL_SEPARATOR.join(row.labels)


def time_column(column: str, unit: Unit) -> str:
    """The heading of our training time. The paper's heading says hours, so seconds have another."""
    if unit == "hours":
        return column
    return re.sub(r"\(hr\)$|$", "(s)", column, count=1)


def tidy(table: Table, setting: Setting) -> pd.DataFrame:
    """One line per cell of a table: what the paper prints and what we measured.

    Columns: row (from 1), label, column (the heading; those of `table.beside` come last), paper
    (published value), value, sd, stderr, n, seeds (see Measured), paper_in_noise (whether the
    published value is inside the paper's own noise of the best that it prints in the column; NA
    where nothing is known of the noise), study and scale (what `value` is of). Parameters are
    counts, scores are fractions of 1, memory is in bytes and CPU time in seconds. Training time is
    in the setting's unit. Hours are in the same line as the paper's hours; seconds have a line of
    their own under "Training Time(s)". An empty field is NaN or NA. A cell that neither the paper
    nor we fill has no line, and a row that the paper lacks has no paper values.

    Raises ValueError where a file is invalid, or where the seeds of a cell contradict each other.
    """
    frame = pd.DataFrame(_lines(table, setting), columns=list(COLUMNS))
    floats = dict.fromkeys(("paper", "value", "sd", "stderr"), "float64")
    counts = {"n": "Int64", "seeds": "Int64", "paper_in_noise": "boolean"}
    return frame.astype({"row": "int64", **counts, **floats})


def _lines(table: Table, setting: Setting) -> Iterator[tuple]:
    marked = inside_noise(table)
    for number, row in enumerate(table.rows, start=1):
        for cell in (*row.cells, *row.beside):
            published = published_value(table, row, cell.column)
            ours = measure(cell, setting.unit)
            if cell.kind in TIMES and setting.unit != "hours":
                seconds = time_column(cell.column, setting.unit)
                shown = [(cell.column, published, None), (seconds, None, ours)]
            else:
                shown = [(cell.column, published, ours)]
            for column, value, measured in shown:
                if value is not None or measured is not None:
                    noisy = None if value is None else marked.get((number, column))
                    told = (*_fields(measured), noisy, setting.study, setting.scale)
                    yield (number, label(row), column, value, *told)


def _fields(measured: Measured | None) -> tuple:
    if measured is None:
        return (None,) * 5
    return measured.value, measured.sd, measured.stderr, measured.n, measured.seeds


def published_value(table: Table, row: Row, column: str) -> float | None:
    """What the paper prints in a cell, as a number; None where it prints nothing."""
    printed = paper.printed(table.number, label(row), column)
    return None if printed is None else paper.number(printed)


def inside_noise(table: Table) -> dict[tuple[int, str], bool]:
    """By (row from 1, task's column): whether the paper's score is inside its own noise of the
    column's best. The best itself is not."""
    rows = dict(enumerate(table.rows, start=1))
    found = {}
    for column in table.columns:
        scores = {n: published_value(table, row, column) for n, row in rows.items()}
        scores = {n: score for n, score in scores.items() if score is not None}
        if scores and column in paper.BENCHMARKS:
            trained = {n: rows[n].recipe is not None for n in scores}
            marked = noise.inside(column, scores, trained)
            found |= {(n, column): n in marked for n in scores}
    return found
