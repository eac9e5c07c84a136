"""How figures are drawn: points and logs read from results, panels, markers and legends.

Filled markers are ours, with the standard deviation over seeds, or with the evaluation's standard
error where there is one seed. Hollow markers are the paper's values, drawn in the paper's own
setting only: beside a smaller study on other questions they would not be comparable. Colours are
Okabe and Ito's, told apart by colour-blind readers too; what differs in colour also differs in
position, marker or line.
"""

from __future__ import annotations

import io
import itertools
import math
import os
import statistics
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from mofe import records
from mofe.files import write_atomic
from mofe.records import EvalRecord, LossStep, SearchRecord
from mofe.report import frames, kinds
from mofe.study.setting import Setting, Unit
from mofe.units import learning_rate

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
    "text.parse_math": False,  # a heading such as "US$5 to $6" is no formula
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
# recipes of the same methods at the rates that a search found
_METHODS |= {
    f"{recipe}_tuned": (f"{name}, own rate", colour)
    for recipe, (name, colour) in _METHODS.items()
    if recipe
}
_OTHER_COLOURS = ("#56B4E9", "#000000", "#8C6D1F", "#4B3B8F", "#A0522D")
_SMALL = 8  # points
_BELOW_TITLE = 19  # points from the upper edge to the line that names the study
MARKERS = ("o", "s", "^", "D", "v", "P")
LINES = ("-", "--", "-.", ":")
SEED = {"color": "#666666", "marker": "o", "ls": "none", "ms": 2.5}
INSIDE, AT_EDGE = "o", "s"  # around the best learning rate


class Point(NamedTuple):
    """One row's score on one task. `paper` and `hours` are the paper's values, where comparable."""

    row: object
    cell: object
    score: kinds.Measured
    paper: float | None
    hours: float | None


# --- points -----------------------------------------------------------------------------------


def by_task(tables: Sequence, setting: Setting) -> dict[str, list[Point]]:
    """The tables' scores by task, each once: some models are in several tables."""
    panels: dict[str, dict[tuple, Point]] = {}
    for table in tables:
        for row in table.rows:
            for cell in row.cells:
                if cell.kind == "task":
                    point = _point(table, row, cell, setting)
                    shown = f"{cell.task}.{cell.metric}" if cell.metric else cell.task
                    panels.setdefault(shown, {}).setdefault(tuple(cell.files), point)
    return {task: list(points.values()) for task, points in panels.items()}


def by_cell(table, setting: Setting) -> dict[str, list[Point | None]]:
    """A table's scores by column, a point per row; None for a row that shows no model."""
    shown = {cell.column for row in table.rows for cell in row.cells if cell.kind == "task"}
    return {
        column: [
            _point(table, row, cell, setting) if cell.kind == "task" else None
            for row in table.rows
            for cell in row.cells
            if cell.column == column
        ]
        for column in table.columns
        if column in shown
    }


def _point(table, row, cell, setting: Setting) -> Point:
    timed = [_published(table, row, other, setting) for other in row.cells if other.kind == "time"]
    hours = timed[0] if timed else None
    score = kinds.measure(cell, setting.unit)
    return Point(row, cell, score, _published(table, row, cell, setting), hours)


def _published(table, row, cell, setting: Setting) -> float | None:
    """The paper's value of a cell, in the setting where it is comparable."""
    return frames.published_value(table, row, cell.column) if setting.is_papers else None


def task_title(points: list[Point]) -> str:
    """The task under its headings in the paper's tables: "MedMCQA / Medicine" if they differ."""
    return " / ".join(dict.fromkeys(point.cell.column for point in points))


def accuracy_label(points: list[Point]) -> str:
    """The axis' label, which says what the error bars are."""
    several = any(point.score.sd is not None for point in points)
    return f"accuracy (± {'SD over seeds' if several else 'standard error'})"


def _error(measured: kinds.Measured) -> float | None:
    return measured.stderr if measured.sd is None else measured.sd


# --- drawing ----------------------------------------------------------------------------------


def panels(count: int, width: float, height: float, columns: int | None = None):
    """A figure with `count` panels, and its axes. width, height: of a panel, in inches."""
    if count == 0:
        raise ValueError("there is nothing to draw: no score and no loss was given")
    columns = columns or count
    lines = math.ceil(count / columns)
    # Room for the figure's title and legend, whatever the number of panels.
    figure = Figure(figsize=(columns * width, lines * height + 0.8), layout="constrained")
    axes = [figure.add_subplot(lines, columns, at + 1) for at in range(count)]
    return figure, axes


def columns(count: int) -> int:
    """Panels side by side, so that the last line is full or nearly so."""
    return 2 if count in (2, 4) else min(3, count)


def time_point(axis: Axes, point: Point, unit: Unit, colour: str, marker: str) -> None:
    """Our point, and the paper's if its score and its time are both comparable."""
    time = next(cell for cell in point.row.cells if cell.kind == "time")
    ours = kinds.measure(time, unit)
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


def line(axis: Axes, at: list[int], points: list[Point], colour: str, marker: str) -> None:
    """A line of scores over the counts `at`, in increasing order; the paper's as hollow markers."""
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


def tried(axis: Axes, search: str, colour: str, marker: str) -> None:
    """A line of a search's mean scores over its learning rates, with a ring around the best, or a
    square where that is the lowest or the highest rate that was tried."""
    found = records.read(search, SearchRecord)
    rates = [candidate.learning_rate for candidate in found.tried]
    axis.errorbar(
        rates,
        [candidate.mean for candidate in found.tried],
        yerr=[candidate.stderr for candidate in found.tried],
        fmt=f"{marker}-",
        color=colour,
        lw=1.2,
        ms=5,
        mec="white",
        mew=0.6,
        elinewidth=0.9,
        capsize=2,
    )
    best = next(candidate for candidate in found.tried if candidate.learning_rate == found.best)
    around = AT_EDGE if found.at_edge else INSIDE
    axis.plot(found.best, best.mean, around, mfc="none", mec=colour, ms=11, ls="none")
    axis.set_xscale("log")
    axis.set_xticks(rates, [learning_rate(rate) for rate in rates])
    axis.minorticks_off()


def dots(axis: Axes, searches: Sequence, task: str, names: dict[str, tuple[str, str]]) -> None:
    """The scores on a task at the best rates: a dot per seed, side by side, and a bar at their
    mean. names: (name, colour) by recipe."""
    shown = [search for search in searches if task in search.scores]
    for at, search in enumerate(shown):
        colour = names[search.recipe][1]
        evals = [records.read(file, EvalRecord) for file in search.scores[task]]
        scores = [record.metrics[record.headline].value for record in evals]
        aside = [0.12 * (number - (len(scores) - 1) / 2) for number in range(len(scores))]
        axis.plot([at + dx for dx in aside], scores, "o", color=colour, ms=5, mec="white", mew=0.6)
        axis.hlines(statistics.fmean(scores), at - 0.3, at + 0.3, color=colour, lw=1.6)
    axis.set_xticks(range(len(shown)), [names[s.recipe][0].partition(",")[0] for s in shown])
    axis.set_xlim(-0.6, len(shown) - 0.4)


def by_row(axis: Axes, points: Sequence[Point | None], names: Sequence[str]) -> None:
    """A column's scores, a row of the axis for each of the table's: seeds as dots, and their mean.
    names: of the rows; empty where another panel names them."""
    for at, point in enumerate(points):
        if point is None:
            continue
        scores = [kinds.measure(replace(point.cell, files=(f,)), "hours") for f in point.cell.files]
        if len(scores) > 1:
            axis.plot([score.value for score in scores], [at] * len(scores), **SEED)
        colour = "#777777" if point.row.recipe is None else "#D55E00"
        style = {"color": colour, "ms": 5.5, "mec": "white", "mew": 0.6, "elinewidth": 0.9}
        axis.errorbar(point.score.value, at, xerr=_error(point.score), fmt="o", capsize=2, **style)
        if point.paper is not None:
            axis.plot(point.paper, at, "o", mfc="none", mec=colour, ms=6)
    first = next(point for point in points if point is not None)
    if floor := kinds.floor(first.cell):
        axis.axvline(floor.value, color="#333333", lw=0.9, ls=":", zorder=1)
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.set(title=first.cell.column, xlabel=accuracy_label([p for p in points if p is not None]))


def floor_line(axis: Axes, cell) -> None:
    axis.axhline(kinds.floor(cell).value, color="#333333", lw=0.9, ls=":", zorder=1)


def key(name: str, **style):
    """A legend's entry; a marker without a line unless the style says otherwise."""
    return Line2D([], [], **({"ls": "none", "ms": 6} | style), label=name)


def common_keys(setting: Setting) -> list[Line2D]:
    """What every plot of scores has: the floor, and at paper scale the paper's markers."""
    keys = [key("floor (no model)", color="#333333", ls=":")]
    if setting.is_papers:
        keys.append(key("the paper", color="#333333", marker="o", mfc="none"))
    return keys


def legend(figure: Figure, *lines: list[Line2D]) -> None:
    """One legend below all panels, with the entries line by line; a line that is too long goes on
    in the next. An entry takes about 1.2 inches."""
    most = max(1, int(figure.get_figwidth() / 1.2))
    lines = [line[at : at + most] for line in lines for at in range(0, len(line), most)]
    blank = key(" ")
    # matplotlib fills a legend column by column.
    handles = [key for column in itertools.zip_longest(*lines, fillvalue=blank) for key in column]
    figure.legend(handles=handles, loc="outside lower center", ncols=max(map(len, lines)))


def methods(recipes: Iterable[str | None]) -> dict[str | None, tuple[str, str]]:
    """(name, colour) by recipe, in the order given. A recipe of the user is named as it is."""
    found, colours = {}, itertools.cycle(_OTHER_COLOURS)
    for recipe in dict.fromkeys(recipes):
        found[recipe] = _METHODS.get(recipe) or (recipe, next(colours))
    return found


def style():
    """The style of every figure, as a context manager. Saving a figure needs it too: only then is
    text laid out."""
    return matplotlib.rc_context(_STYLE)


def whole_numbers(axis: Axes) -> None:
    """Ticks at whole numbers only, from left to right."""
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def name_study(figure: Figure, setting: Setting) -> None:
    """Say what "ours" is below the figure's title, so that a picture alone says it too."""
    most = int(72 * figure.get_figwidth() / (0.55 * _SMALL))  # characters in a line
    lines = textwrap.wrap(setting.ours, most)
    # The title leaves as much room as the layout is to keep free.
    figure.suptitle(figure.get_suptitle() + "\n" * len(lines))
    below = ScaledTranslation(0, -_BELOW_TITLE / 72, figure.dpi_scale_trans)
    place = {"transform": figure.transFigure + below, "ha": "center", "va": "top"}
    figure.text(0.5, 1, "\n".join(lines), fontsize=_SMALL, color="#555555", **place)


def save(figure: Figure, outputs: Iterable[str | os.PathLike], about: str) -> None:
    """Write the figure in the formats its file names end in, without dates or versions. about: what
    it shows, for the files' metadata."""
    for path in outputs:
        kind = Path(path).suffix.lstrip(".")
        stamps = {
            "pdf": {"CreationDate": None, "Subject": about},
            "png": {"Software": None, "Description": about},
        }
        buffer = io.BytesIO()
        figure.savefig(buffer, format=kind, dpi=160, metadata=stamps[kind])
        write_atomic(path, buffer.getvalue())


# --- logs -------------------------------------------------------------------------------------


class MeanLoss(NamedTuple):
    """The loss over the steps of runs that have the same steps: its mean and its standard deviation
    (0 for one run), in nats per token."""

    steps: tuple[int, ...]
    mean: list[float]
    sd: list[float]


def mean_losses(logs: Sequence[str]) -> list[MeanLoss]:
    """The loss logs' means. Runs with other steps are averaged apart: a base with another tokenizer
    drops other rows as too long, and cuts raw text into other pieces."""
    alike: dict[tuple[int, ...], list[dict[int, float]]] = {}
    for run in map(_losses, logs):
        alike.setdefault(tuple(run), []).append(run)
    found = []
    for steps, runs in alike.items():
        columns = [[run[step] for run in runs] for step in steps]
        sds = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in columns]
        found.append(MeanLoss(steps, [statistics.fmean(values) for values in columns], sds))
    return found


def _losses(path: str | os.PathLike) -> dict[int, float]:
    """The loss by step of a log.jsonl. Raises ValueError where a line is incomplete, where its loss
    is not a finite number, or where the steps are not those of the record, which the same job wrote
    beside it."""
    beside = Path(path).with_name("train.json")
    if beside.is_file():
        steps = records.training_log(path, records.read_training(beside))
    else:
        steps = records.read_lines(path, LossStep)
    losses = {step.step: step.loss for step in steps}
    if not losses:
        raise ValueError(f"{path}: holds no step")
    return losses
