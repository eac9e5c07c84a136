"""The plots. Each is written as PDF and PNG, byte for byte the same from the same results.

Filled markers are ours, with the standard deviation over seeds, or with the evaluation's standard
error where there is one seed. Hollow markers are the paper's values, drawn only at paper scale
(training time in hours): beside a smaller study on other questions they would not be comparable.
Colours are Okabe and Ito's, told apart by colour-blind readers too; what differs in colour also
differs in position, marker or line.
"""

from __future__ import annotations

import io
import itertools
import math
import os
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from mofe import records
from mofe.files import write_atomic
from mofe.records import LossStep
from mofe.report import frames, paper
from mofe.study.tables import Curve

_STYLE = {
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.titlesize": 11,
    "figure.titleweight": "bold",
    "pdf.fonttype": 42,
}

# recipe -> (name as the paper prints it, colour)
_METHODS = {
    None: ("untuned", "#777777"),
    "full": ("Full", "#0072B2"),
    "mofe": ("MoFE", "#D55E00"),
    "lora": ("LoRA", "#E69F00"),
    "qlora": ("QLoRA", "#CC79A7"),
    "dora": ("DoRA", "#009E73"),
}
_OTHER_COLOURS = ("#56B4E9", "#000000", "#8C6D1F", "#4B3B8F", "#7F7F7F")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_LINES = ("-", "--", "-.", ":")


class _Point(NamedTuple):
    """One row's score on one task. paper and hours are the paper's, where they are comparable."""

    row: object
    cell: object
    score: frames.Measured
    paper: float | None
    hours: float | None


# --- the four figures -------------------------------------------------------------------------


def time_accuracy(
    tables: Sequence, unit: frames.Unit, outputs: Iterable[str | os.PathLike]
) -> None:
    """Training time against accuracy (Tables 1 and 2): colour is the method, marker the size.

    One panel a task. Untuned models took no time and are drawn as a line, as is the floor.
    """
    panels = _by_task(tables, unit)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _panels(len(panels), width=4.4, height=3.9)
        rows = [point.row for points in panels.values() for point in points]
        names = _methods(row.recipe for row in rows)
        sizes = list(dict.fromkeys(row.labels[0] for row in rows))
        for axis, points in zip(axes, panels.values(), strict=True):
            for point in points:
                if point.row.recipe is None:
                    axis.axhline(point.score.value, color="#777777", lw=0.9, ls="--", zorder=1)
                else:
                    marker = _MARKERS[sizes.index(point.row.labels[0]) % len(_MARKERS)]
                    _time_point(axis, point, unit, names[point.row.recipe][1], marker)
            _floor_line(axis, points[0].cell)
            axis.set(title=_task_title(points), xlabel=f"training time ({unit})")
            axis.set_ylabel(_accuracy_label(points))
            axis.set_xlim(left=0)
        figure.suptitle("Training time and accuracy by fine-tuning method and model size")
        used = dict.fromkeys(row.recipe for row in rows if row.recipe is not None)
        methods = [_key(names[recipe][0], color=names[recipe][1], marker="o") for recipe in used]
        others = [
            _key(size, color="#333333", marker=_MARKERS[at % len(_MARKERS)])
            for at, size in enumerate(sizes)
        ]
        if any(row.recipe is None for row in rows):
            others.append(_key("untuned", color="#777777", ls="--"))
        _legend(figure, methods, others + _common_keys(unit))
        _save(figure, outputs)


def medical_experts(
    tables: Sequence,
    unit: frames.Unit,
    outputs: Iterable[str | os.PathLike],
    medical: str = "medical",
    finance: str = "finance",
) -> None:
    """Accuracy against the number of medical experts (Tables 3 and 4), one panel a task.

    ``medical`` and ``finance`` are those experts' names in the rows' mixtures. Mixtures without
    and with finance experts are a line each.
    """
    panels = _by_task(tables, unit)
    series = {
        "without finance experts": (lambda experts: not experts.get(finance), "#D55E00", "o"),
        "with finance experts": (lambda experts: bool(experts.get(finance)), "#0072B2", "s"),
    }
    with matplotlib.rc_context(_STYLE):
        figure, axes = _panels(len(panels), width=4.0, height=3.6)
        drawn = {}
        for axis, points in zip(axes, panels.values(), strict=True):
            for name, (belongs, colour, marker) in series.items():
                chosen = [point for point in points if belongs(dict(point.row.experts))]
                if chosen:
                    at = [dict(point.row.experts).get(medical, 0) for point in chosen]
                    _line(axis, at, chosen, colour, marker)
                    drawn[name] = _key(name, color=colour, marker=marker, ls="-")
            _floor_line(axis, points[0].cell)
            axis.set(title=_task_title(points), xlabel="medical experts in the mixture")
            axis.set_ylabel(_accuracy_label(points))
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.suptitle("Accuracy by the number of medical experts")
        _legend(figure, [*drawn.values(), *_common_keys(unit)])
        _save(figure, outputs)


def frozen_experts(
    tables: Sequence, unit: frames.Unit, outputs: Iterable[str | os.PathLike]
) -> None:
    """Accuracy against the number of frozen experts (Table 7), one panel a task."""
    panels = _by_task(tables, unit)
    with matplotlib.rc_context(_STYLE):
        figure, axes = _panels(len(panels), width=4.8, height=3.6)
        for axis, points in zip(axes, panels.values(), strict=True):
            points = [point for point in points if point.row.frozen is not None]
            _line(axis, [point.row.frozen for point in points], points, "#D55E00", "o")
            _floor_line(axis, points[0].cell)
            axis.set(title=_task_title(points), xlabel="frozen experts in the mixture")
            axis.set_ylabel(_accuracy_label(points))
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.suptitle("Accuracy by the number of frozen experts")
        _legend(figure, _common_keys(unit))
        _save(figure, outputs)


def loss_curves(curves: Sequence[Curve], outputs: Iterable[str | os.PathLike]) -> None:
    """Training loss over optimiser steps: a panel for each training data, a line for each recipe.

    The line is the mean over the runs with that data and recipe (mixtures and seeds), the band
    their standard deviation.

    Raises:
        ValueError: a log is not what it should be, or runs of one line took different steps.
    """
    facets: dict[str, dict[str, list[str]]] = {}
    for curve in curves:
        facets.setdefault(curve.data, {}).setdefault(curve.recipe, []).extend(curve.logs)
    names = _methods(curve.recipe for curve in curves)
    styles = dict(zip(names, itertools.cycle(_LINES), strict=False))
    with matplotlib.rc_context(_STYLE):
        figure, axes = _panels(len(facets), width=3.7, height=2.9, columns=_columns(len(facets)))
        for axis, (data, recipes) in zip(axes, facets.items(), strict=True):
            for recipe, logs in recipes.items():
                steps, mean, sd = _mean_loss(logs)
                colour = names[recipe][1]
                axis.plot(steps, mean, color=colour, ls=styles[recipe], lw=1.3)
                low, high = (
                    [m + sign * s for m, s in zip(mean, sd, strict=True)] for sign in (-1, 1)
                )
                axis.fill_between(steps, low, high, color=colour, alpha=0.18, lw=0)
            axis.set(title=data, xlabel="optimiser step", ylabel="loss (nats a token)")
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.suptitle("Training loss by training data and method")
        keys = [_key(names[at][0], color=names[at][1], ls=styles[at]) for at in names]
        _legend(figure, keys[:6], keys[6:])
        _save(figure, outputs)


# --- points -----------------------------------------------------------------------------------


def _by_task(tables: Sequence, unit: frames.Unit) -> dict[str, list[_Point]]:
    """Task -> the tables' scores on it, each once: tables show some models twice."""
    panels: dict[str, dict[tuple, _Point]] = {}
    for table in tables:
        for row in table.rows:
            for cell in row.cells:
                if cell.kind == "task":
                    point = _point(table, row, cell, unit)
                    panels.setdefault(cell.task, {}).setdefault(tuple(cell.files), point)
    return {task: list(points.values()) for task, points in panels.items()}


def _point(table, row, cell, unit: frames.Unit) -> _Point:
    timed = [_published(table, row, other, unit) for other in row.cells if other.kind == "time"]
    hours = timed[0] if timed else None
    return _Point(row, cell, frames.measure(cell, unit), _published(table, row, cell, unit), hours)


def _published(table, row, cell, unit: frames.Unit) -> float | None:
    """The paper's value of a cell, at the scale where it is comparable."""
    printed = paper.printed(table.number, frames.label(row), cell.column)
    return paper.number(printed) if printed and unit == "hours" else None


def _task_title(points: list[_Point]) -> str:
    """The task as the paper's tables head it: "MedMCQA / Medicine" where two name it."""
    return " / ".join(dict.fromkeys(point.cell.column for point in points))


def _accuracy_label(points: list[_Point]) -> str:
    """The axis says what its error bars are."""
    several = any(point.score.sd is not None for point in points)
    return f"accuracy (± {'SD over seeds' if several else 'standard error'})"


def _error(measured: frames.Measured) -> float | None:
    return measured.stderr if measured.sd is None else measured.sd


# --- drawing ----------------------------------------------------------------------------------


def _panels(count: int, width: float, height: float, columns: int | None = None):
    """A figure with ``count`` panels of so many inches, and its axes."""
    if count == 0:
        raise ValueError("there is nothing to draw: no score and no loss was given")
    columns = columns or count
    lines = math.ceil(count / columns)
    # Room for the figure's title and legend, whatever the number of panels.
    figure = Figure(figsize=(columns * width, lines * height + 0.8), layout="constrained")
    axes = [figure.add_subplot(lines, columns, at + 1) for at in range(count)]
    return figure, axes


def _columns(count: int) -> int:
    """Panels side by side, so that the last line is full or nearly so."""
    return 2 if count in (2, 4) else min(3, count)


def _time_point(axis: Axes, point: _Point, unit: frames.Unit, colour: str, marker: str) -> None:
    """Our point, and the paper's where both its coordinates are comparable."""
    time = next(cell for cell in point.row.cells if cell.kind == "time")
    ours = frames.measure(time, unit)
    axis.errorbar(
        ours.value,
        point.score.value,
        xerr=ours.sd,
        yerr=_error(point.score),
        fmt=marker,
        color=colour,
        ms=6.5,
        mec="white",
        mew=0.6,
        elinewidth=0.9,
        capsize=2,
    )
    if point.paper is not None and point.hours is not None:
        axis.plot(point.hours, point.paper, marker, mfc="none", mec=colour, ms=6.5, ls="none")


def _line(axis: Axes, at: list[int], points: list[_Point], colour: str, marker: str) -> None:
    """Scores over a count, joined in the count's order; the paper's as hollow markers."""
    order = sorted(range(len(at)), key=at.__getitem__)
    x = [at[i] for i in order]
    points = [points[i] for i in order]
    axis.errorbar(
        x,
        [point.score.value for point in points],
        yerr=[_error(point.score) for point in points],
        fmt=f"{marker}-",
        color=colour,
        lw=1.2,
        ms=6,
        mec="white",
        mew=0.6,
        elinewidth=0.9,
        capsize=2.5,
    )
    published = [(i, point.paper) for i, point in zip(x, points, strict=True) if point.paper]
    if published:
        axis.plot(*zip(*published, strict=True), marker, mfc="none", mec=colour, ls="none", ms=6)


def _floor_line(axis: Axes, cell) -> None:
    axis.axhline(frames.floor(cell).value, color="#333333", lw=0.9, ls=":", zorder=1)


def _key(name: str, **style):
    """A legend's entry; a marker without a line unless the style says otherwise."""
    return Line2D([], [], **({"ls": "none", "ms": 6} | style), label=name)


def _common_keys(unit: frames.Unit) -> list[Line2D]:
    """What every plot of scores has: the floor, and at paper scale the paper's markers."""
    keys = [_key("floor (no model)", color="#333333", ls=":")]
    if unit == "hours":
        keys.append(_key("the paper", color="#333333", marker="o", mfc="none"))
    return keys


def _legend(figure: Figure, *lines: list[Line2D]) -> None:
    """One legend below all panels, with the entries line by line."""
    lines = [line for line in lines if line]
    blank = _key(" ")
    # matplotlib fills a legend column by column.
    handles = [key for column in itertools.zip_longest(*lines, fillvalue=blank) for key in column]
    figure.legend(handles=handles, loc="outside lower center", ncols=max(map(len, lines)))


def _methods(recipes: Iterable[str | None]) -> dict[str | None, tuple[str, str]]:
    """recipe -> (name, colour), in the order given; a recipe of the users' own keeps its name."""
    found, colours = {}, itertools.cycle(_OTHER_COLOURS)
    for recipe in dict.fromkeys(recipes):
        found[recipe] = _METHODS.get(recipe) or (recipe, next(colours))
    return found


def _save(figure: Figure, outputs: Iterable[str | os.PathLike]) -> None:
    """Write the figure in the formats its file names end in, without dates or versions."""
    for path in outputs:
        kind = Path(path).suffix.lstrip(".")
        stamps = {"pdf": {"CreationDate": None}, "png": {"Software": None}}
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=160, metadata=stamps[kind])
        write_atomic(path, buffer.getvalue())


# --- logs -------------------------------------------------------------------------------------


def _mean_loss(logs: Sequence[str]) -> tuple[list[int], list[float], list[float]]:
    """Steps, mean loss over the logs and its standard deviation (0 for one log)."""
    runs = [_losses(path) for path in logs]
    steps = list(runs[0])
    for path, run in zip(logs, runs, strict=True):
        if list(run) != steps:
            raise ValueError(f"{path}: other steps than {logs[0]}, with the same data and recipe")
    columns = [[run[step] for run in runs] for step in steps]
    sds = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in columns]
    return steps, [statistics.fmean(values) for values in columns], sds


def _losses(path: str | os.PathLike) -> dict[int, float]:
    """step -> loss of a log.jsonl.

    Raises:
        ValueError: a line is not whole, or its loss is not a finite number.
    """
    losses = {step.step: step.loss for step in records.read_lines(path, LossStep)}
    if not losses:
        raise ValueError(f"{path}: holds no step")
    return losses
