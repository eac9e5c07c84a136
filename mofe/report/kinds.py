"""What a table's column can show: how each kind is measured from a cell's files, and printed.

A kind is one function that measures and one that prints, declared in KINDS under its name in the
configuration (mofe.study.values.SHOWS), or under what a cell shows of a task
(mofe.study.tables.Cell).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mofe import records, units
from mofe.metrics import METRICS
from mofe.records import EvalRecord, Floor, TrainRecord
from mofe.study.setting import Unit
from mofe.study.tables import Cell
from mofe.study.values import TOKENS_UPDATED

SECONDS_PER = {"hours": 3600.0, "seconds": 1.0}


@dataclass(frozen=True)
class Measured:
    """What the runs measured for one cell.

    value: mean over seeds. sd: sample standard deviation over seeds, None for one seed. stderr:
    standard error of one seed's score, which comes from the choice of questions: the root mean
    square of the seeds' standard errors. More seeds do not make it smaller, because all answer the
    same questions. n: questions per seed. seeds: the number of seeds. stderr and n are None where
    nothing was evaluated, stderr and seeds where no model was.
    """

    value: float
    sd: float | None = None
    stderr: float | None = None
    n: int | None = None
    seeds: int | None = None


@dataclass(frozen=True)
class Printed:
    """A value as text, its standard deviation (empty if there is none), and its unit (empty where
    the heading names it)."""

    value: str
    sd: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Kind:
    """What a column shows.

    measure: what a cell with files shows, None where they tell nothing; times are in the given
    unit. print: the text of a value and its standard deviation, which may be NaN. difference: the
    decimals of a difference from the paper's value; None where none is shown.
    """

    measure: Callable[[Cell, Unit], Measured | None]
    print: Callable[[float, float], Printed]
    difference: int | None = None


# --- measured ---------------------------------------------------------------------------------


def _trainings(cell: Cell) -> list[list[TrainRecord]]:
    """The records of a cell's trainings: of each seed, of every stage."""
    return [[records.read(path, TrainRecord) for path in stages] for stages in cell.files]


def _mean(values: Sequence[float]) -> Measured:
    return Measured(statistics.fmean(values), _sd(values), seeds=len(values))


def _sd(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None


def _of_last_stage(key: str) -> Callable[[Cell, Unit], Measured]:
    """The value that the last stages of all seeds share."""

    def measure(cell: Cell, unit: Unit) -> Measured:
        found = [getattr(stages[-1], key) for stages in _trainings(cell)]
        if len(set(found)) > 1:
            raise ValueError(
                f"{cell.files[0][-1]}: {key} differs between seeds: {', '.join(map(str, found))}"
            )
        return Measured(found[0], _sd(found), seeds=len(found))

    return measure


def _drift(group: str) -> Callable[[Cell, Unit], Measured | None]:
    """The mean over seeds of how far the last stage moved a group's weights; None where its records
    do not say so (mofe.records.Drift)."""

    def measure(cell: Cell, unit: Unit) -> Measured | None:
        found = [stages[-1].drift for stages in _trainings(cell)]
        values = [drift and getattr(drift, group) for drift in found]
        return None if None in values else _mean(values)

    return measure


def _over_stages(combine: Callable[[list[TrainRecord]], float]) -> Callable[[Cell, Unit], Measured]:
    """The mean over seeds of a number that `combine` makes of the stages' records."""

    def measure(cell: Cell, unit: Unit) -> Measured:
        return _mean([combine(stages) for stages in _trainings(cell)])

    return measure


def _time(seconds: Callable[[list[TrainRecord]], float]) -> Callable[[Cell, Unit], Measured]:
    """The mean over seeds of a row's training time, in the unit."""

    def measure(cell: Cell, unit: Unit) -> Measured:
        return _mean([seconds(stages) / SECONDS_PER[unit] for stages in _trainings(cell)])

    return measure


def _device_seconds(stages: list[TrainRecord]) -> float:
    """The stages' times on all of their GPUs, or a model that needs several GPUs would seem cheaper
    than it is. The paper's hours are of a machine, so no difference from them is shown."""
    return sum(stage.device_seconds for stage in stages)


def _wall_seconds(stages: list[TrainRecord]) -> float:
    """The stages' times by the clock."""
    return sum(stage.seconds for stage in stages)


def _speed(stages: list[TrainRecord]) -> float:
    """Tokens per second of one device."""
    return sum(stage.tokens for stage in stages) / _device_seconds(stages)


def _tokens_updated(cell: Cell, unit: Unit) -> Measured | None:
    """The share of tokens' choices that went to experts which the last stage updates. A dense model
    has no router, and nothing to tell."""
    if cell.known is not None:
        return _mean([cell.known for _ in cell.files])
    shares = [stages[-1].token_share for stages in _trainings(cell)]
    return None if None in shares else _mean([share.updated for share in shares])


def _score(cell: Cell, unit: Unit) -> Measured:
    evals = [records.read(path, EvalRecord) for path in cell.files]
    for key in ("n", "headline"):
        if len(found := {getattr(record, key) for record in evals}) > 1:
            raise ValueError(
                f"{cell.files[0]}: {key} differs between seeds: "
                f"{', '.join(map(str, sorted(found)))}"
            )
    metric = cell.metric or evals[0].headline
    for path, record in zip(cell.files, evals, strict=True):
        if metric not in record.metrics:
            raise ValueError(f"{path}: has no {metric}{_why_not(path, record, metric)}")
    scores = [record.metrics[metric].value for record in evals]
    squares = [record.metrics[metric].stderr ** 2 for record in evals]
    stderr = math.sqrt(statistics.fmean(squares))
    return Measured(statistics.fmean(scores), _sd(scores), stderr, evals[0].n, len(scores))


def _why_not(path: str, record: EvalRecord, metric: str) -> str:
    """Why an evaluation lacks a metric, and what to do."""
    if not METRICS[metric].is_share and record.headline == "acc":
        if "entropy" in record.metrics:
            return ", because it is above 1e300; let the column show another metric"
        return (
            ", because an earlier version of the workflow made it; make it again: snakemake ... "
            f"--forcerun {path} -- {path}"
        )
    return (
        f", only {', '.join(record.metrics)}; let the column show one of those, or evaluate again "
        f"where lm-eval's task has {metric}"
    )


def _constant(cell: Cell, unit: Unit) -> Measured | None:
    record = records.read(cell.files[0], EvalRecord)
    return Measured(record.floor.value, n=record.n) if record.floor else None


def sample_of(cell: Cell) -> int | None:
    """How many questions a task has, where a cell shows the score of a sample of them; else
    None."""
    return records.read(cell.files[0], EvalRecord).sample_of


def floor(cell: Cell) -> Floor | None:
    """The score that a task cell's questions give without a model; None for free text, which has no
    such score, and for what is no score."""
    return records.read(cell.files[0], EvalRecord).floor if cell.kind == "task" else None


# --- printed ----------------------------------------------------------------------------------


def _decimals(count: int) -> Callable[[float, float], Printed]:
    def text(value: float, sd: float) -> Printed:
        return Printed(f"{value:.{count}f}", "" if math.isnan(sd) else f"{sd:.{count}f}")

    return text


def _three_digits(unit: str = "", scales: units.Scales = ()) -> Callable[[float, float], Printed]:
    """Three digits of the value, and as many decimals of the deviation. scales: larger and smaller
    units, of which the largest that is not above the value is taken."""

    def text(value: float, sd: float) -> Printed:
        name, size = units.fitting(value, scales) if scales else (unit, 1)
        value, sd = value / size, sd / size
        decimals = min(3, max(0, 2 - math.floor(math.log10(value)))) if value > 0 else 0
        return replace(_decimals(decimals)(value, sd), unit=name)

    return text


def _four_digits(value: float, sd: float) -> Printed:
    """A number that is at least 1, with as many decimals of the deviation."""
    if value >= 1e6:
        return Printed(f"{value:.2e}", "" if math.isnan(sd) else f"{sd:.0e}")
    return _decimals(max(0, 3 - math.floor(math.log10(value))))(value, sd)


def _parameters(value: float, sd: float) -> Printed:
    return Printed(units.parameters(value))


def _rate(value: float, sd: float) -> Printed:
    return Printed(units.learning_rate(value))


def _ratio(value: float, sd: float) -> Printed:
    """Three digits, however small the value is."""
    return Printed(f"{value:.3g}", "" if math.isnan(sd) else f"{sd:.2g}")


KINDS: dict[str, Kind] = {
    "task": Kind(_score, _decimals(4), difference=4),
    "perplexity": Kind(_score, _four_digits),
    "entropy": Kind(_score, _decimals(4)),
    "floor": Kind(_constant, _decimals(4)),
    "trainable": Kind(_of_last_stage("trainable_parameters"), _parameters),
    "time": Kind(_time(_device_seconds), _three_digits()),
    "wall_time": Kind(_time(_wall_seconds), _three_digits(), difference=1),
    "cpu_seconds": Kind(
        _over_stages(lambda stages: sum(stage.cpu_seconds for stage in stages)), _three_digits("s")
    ),
    "tokens_per_second": Kind(_over_stages(_speed), _three_digits("/s")),
    "memory": Kind(
        _over_stages(lambda stages: max(stage.peak_memory_bytes for stage in stages)),
        _three_digits(scales=units.BYTES),
    ),
    "flops": Kind(
        _over_stages(lambda stages: sum(stage.flops for stage in stages)),
        _three_digits(scales=units.OPERATIONS),
    ),
    TOKENS_UPDATED: Kind(_tokens_updated, _decimals(3)),
    "rate": Kind(_of_last_stage("learning_rate"), _rate),
    **{
        f"drift_{group}": Kind(_drift(group), _ratio)
        for group in ("experts", "attention", "embeddings", "norms", "router")
    },
}


def measure(cell: Cell, unit: Unit) -> Measured | None:
    """What a cell's files hold; None for a cell without files, such as an untuned row's time.

    Raises ValueError where a file is invalid, or where the seeds of a cell contradict each other.
    """
    return KINDS[cell.kind].measure(cell, unit) if cell.files else None
