"""A table's results as one tidy frame, read from the JSON files that the plan lists for its
cells."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from mofe import paper, records
from mofe.records import EvalRecord, Floor, TrainRecord
from mofe.study.tables import Cell, Row, Table

Unit = Literal["hours", "seconds"]

COLUMNS = ("row", "label", "column", "paper", "value", "sd", "stderr", "n", "seeds")

SECONDS_PER = {"hours": 3600.0, "seconds": 1.0}


@dataclass(frozen=True)
class Measured:
    """What the runs measured for one cell.

    value: mean over seeds. sd: sample standard deviation over seeds, None for one seed. stderr:
    standard error of one seed's score, which comes from the choice of questions: the root mean
    square of the seeds' standard errors. More seeds do not make it smaller, because all answer the
    same questions. n: questions per seed. seeds: the number of seeds. stderr and n are None where
    nothing was evaluated.
    """

    value: float
    sd: float | None
    stderr: float | None
    n: int | None
    seeds: int


def label(row: Row) -> str:
    """The row's labels as printed, joined by " | ", which identify it in its table."""
    return paper.LABEL_SEPARATOR.join(row.labels)


def time_column(column: str, unit: Unit) -> str:
    """The heading of our training time. The paper's heading says hours, so seconds have another."""
    if unit == "hours":
        return column
    return re.sub(r"\(hr\)$|$", "(s)", column, count=1)


def tidy(table: Table, unit: Unit) -> pd.DataFrame:
    """One line per cell of a table: what the paper prints and what we measured.

    Columns: row (from 1), label, column (the heading; those of `table.beside` come last), paper
    (published value), value, sd, stderr, n, seeds (see Measured). Parameters are counts and scores
    are fractions of 1. Training time is in `unit`. Hours are in the same line as the paper's hours;
    seconds have a line of their own under "Training Time(s)". An empty field is NaN or NA. A cell
    that neither the paper nor we fill has no line, and a row that the paper lacks has no paper
    values.

    Raises ValueError where a file is invalid, or where the seeds of a cell contradict each other.
    """
    if unit not in SECONDS_PER:
        raise ValueError(f"unit is {unit!r}; training time is in hours or in seconds")
    frame = pd.DataFrame(_lines(table, unit), columns=list(COLUMNS))
    floats = dict.fromkeys(("paper", "value", "sd", "stderr"), "float64")
    return frame.astype({"row": "int64", "n": "Int64", "seeds": "Int64", **floats})


def _lines(table: Table, unit: Unit) -> Iterator[tuple]:
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


def measure(cell: Cell, unit: Unit) -> Measured | None:
    """What a cell's files hold; None for a cell without files, such as an untuned row's time."""
    if not cell.files:
        return None
    kinds = {"trainable": _trainable, "time": _time, "rate": _rate, "task": _score}
    return kinds[cell.kind](cell, unit)


def _trainable(cell: Cell, unit: Unit) -> Measured:
    """Parameters trained in the last stage. The recipe decides them, so all seeds have the same."""
    last = [records.read(stages[-1], TrainRecord) for stages in cell.files]
    counts = [record.trainable_parameters for record in last]
    if len(set(counts)) > 1:
        raise ValueError(
            f"{cell.files[0][-1]}: trainable_parameters differs between seeds: "
            f"{', '.join(map(str, counts))}"
        )
    return Measured(counts[0], _sd(counts), None, None, len(counts))


def _rate(cell: Cell, unit: Unit) -> Measured:
    """The learning rate of the last stage. One search serves all seeds, so all have the same."""
    rates = [records.read(stages[-1], TrainRecord).learning_rate for stages in cell.files]
    if len(set(rates)) > 1:
        raise ValueError(
            f"{cell.files[0][-1]}: learning_rate differs between seeds: "
            f"{', '.join(map(str, rates))}"
        )
    return Measured(rates[0], _sd(rates), None, None, len(rates))


def _time(cell: Cell, unit: Unit) -> Measured:
    """The sum of a row's training times over its stages. The times of all GPUs of a stage count, or
    a model that needs several GPUs would seem cheaper than it is."""
    times = [
        sum(records.read(path, TrainRecord).device_seconds for path in stages) / SECONDS_PER[unit]
        for stages in cell.files
    ]
    return Measured(statistics.fmean(times), _sd(times), None, None, len(times))


def _score(cell: Cell, unit: Unit) -> Measured:
    evals = [records.read(path, EvalRecord) for path in cell.files]
    for key in ("n", "headline"):
        if len(found := {getattr(record, key) for record in evals}) > 1:
            raise ValueError(
                f"{cell.files[0]}: {key} differs between seeds: {', '.join(map(str, sorted(found)))}"
            )
    metric = cell.metric or evals[0].headline
    for path, record in zip(cell.files, evals, strict=True):
        if metric not in record.metrics:
            raise ValueError(
                f"{path}: has no {metric}, only {', '.join(record.metrics)}; let the column show one "
                f"of those, or evaluate again where lm-eval's task has {metric}"
            )
    scores = [record.metrics[metric].value for record in evals]
    squares = [record.metrics[metric].stderr ** 2 for record in evals]
    stderr = math.sqrt(statistics.fmean(squares))
    return Measured(statistics.fmean(scores), _sd(scores), stderr, evals[0].n, len(scores))


def _sd(values: list) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def floor(cell: Cell) -> Floor | None:
    """The score that a task cell's questions give without a model; None for free text, which has no
    such score."""
    return records.read(cell.files[0], EvalRecord).floor
