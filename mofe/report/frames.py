"""A table's results as one tidy frame, read from the JSON files the plan lists for its cells."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from mofe import records
from mofe.records import EvalRecord, Floor, TrainRecord
from mofe.report import paper

Unit = Literal["hours", "seconds"]

COLUMNS = ("row", "label", "column", "paper", "value", "sd", "stderr", "n", "seeds")

SECONDS_PER = {"hours": 3600.0, "seconds": 1.0}


@dataclass(frozen=True)
class Measured:
    """What the runs say about one cell.

    value: mean over seeds. sd: sample standard deviation over seeds, None for one seed.
    stderr: standard error of the evaluation, None where nothing was evaluated: the root mean
    square of the seeds' own standard errors. It is what one seed's score carries from the choice
    of questions; it does not shrink with the seeds, which all answer the same questions.
    n: questions a seed answered, None where nothing was evaluated. seeds: their count.
    """

    value: float
    sd: float | None
    stderr: float | None
    n: int | None
    seeds: int


def label(row) -> str:
    """The row's address within its table: its labels as printed, joined by " | "."""
    return paper.LABEL_SEPARATOR.join(row.labels)


def time_column(column: str, unit: Unit) -> str:
    """The heading of our training time: the paper's says hours, so seconds get their own."""
    if unit == "hours":
        return column
    return re.sub(r"\(hr\)$|$", "(s)", column, count=1)


def tidy(table, unit: Unit) -> pd.DataFrame:
    """One line a cell of ``table``: what the paper prints, what we measured.

    Columns: row (from 1), label, column (the paper's heading; at the row's end those of the columns
    that only we have, ``table.beside``), paper (published value), value,
    sd, stderr, n, seeds (see Measured). Parameters are counted in ones, scores are fractions of 1.
    Training time is in ``unit``: hours compare with the paper's; seconds never stand in one line
    with them, but in a line of their own under "Training Time(s)". Empty is NaN or NA; a cell that
    neither the paper nor we fill has no line. A row the paper lacks has no paper values.

    Raises:
        ValueError: a file is not what it should be, or the seeds of a cell contradict each other.
    """
    if unit not in SECONDS_PER:
        raise ValueError(f"unit is {unit!r}; training time is in hours or in seconds")
    frame = pd.DataFrame(_lines(table, unit), columns=list(COLUMNS))
    floats = dict.fromkeys(("paper", "value", "sd", "stderr"), "float64")
    return frame.astype({"row": "int64", "n": "Int64", "seeds": "Int64", **floats})


def _lines(table, unit: Unit) -> Iterator[tuple]:
    for number, row in enumerate(table.rows, start=1):
        for cell in (*row.cells, *row.beside):
            printed = paper.printed(table.number, label(row), cell.column)
            published = None if printed is None else paper.number(printed)
            ours = measure(cell, unit)
            if cell.kind == "time" and unit != "hours":
                seconds = time_column(cell.column, unit)
                shown = [(cell.column, published, None), (seconds, None, ours)]
            else:
                shown = [(cell.column, published, ours)]
            for column, value, measured in shown:
                if value is not None or measured is not None:
                    yield (number, label(row), column, value, *_fields(measured))


def _fields(measured: Measured | None) -> tuple:
    if measured is None:
        return (None,) * 5
    return measured.value, measured.sd, measured.stderr, measured.n, measured.seeds


def measure(cell, unit: Unit) -> Measured | None:
    """Read a cell's files; None for a cell without any, as an untuned row's training time."""
    if not cell.files:
        return None
    return {"trainable": _trainable, "time": _time, "task": _score}[cell.kind](cell, unit)


def _trainable(cell, unit: Unit) -> Measured:
    """Parameters trained in the last stage: a fact of the recipe, so equal whatever the seed."""
    last = [records.read(stages[-1], TrainRecord) for stages in cell.files]
    counts = [record.trainable_parameters for record in last]
    if len(set(counts)) > 1:
        raise ValueError(
            f"{cell.files[0][-1]}: trainable_parameters differs between seeds: "
            f"{', '.join(map(str, counts))}"
        )
    return Measured(counts[0], _sd(counts), None, None, len(counts))


def _time(cell, unit: Unit) -> Measured:
    """Training time of all stages of a row, added up: of a stage that several GPUs computed
    together, of each of them, or a model that was shared out would seem cheaper than it is."""
    times = [
        sum(records.read(path, TrainRecord).device_seconds for path in stages) / SECONDS_PER[unit]
        for stages in cell.files
    ]
    return Measured(statistics.fmean(times), _sd(times), None, None, len(times))


def _score(cell, unit: Unit) -> Measured:
    evals = [records.read(path, EvalRecord) for path in cell.files]
    for key in ("n", "headline"):
        if len(found := {getattr(record, key) for record in evals}) > 1:
            raise ValueError(
                f"{cell.files[0]}: {key} differs between seeds: {', '.join(map(str, sorted(found)))}"
            )
    headlines = [record.metrics[record.headline] for record in evals]
    scores = [headline.value for headline in headlines]
    squares = [headline.stderr**2 for headline in headlines]
    stderr = math.sqrt(statistics.fmean(squares))
    return Measured(statistics.fmean(scores), _sd(scores), stderr, evals[0].n, len(scores))


def _sd(values: list) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def floor(cell) -> Floor | None:
    """The score that needs no model on a task cell's questions; None where answers are in words,
    which have no such score."""
    return records.read(cell.files[0], EvalRecord).floor
