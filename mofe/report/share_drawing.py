"""How the figure of shares is drawn: what rows keep of a gain, against what their training takes.

A filled marker has the share's interval. A hollow one has none, because the gain is inside its
noise; its dotted line says that any share is possible.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from mofe import records
from mofe.paper import LABEL_SEPARATOR
from mofe.records import TrainRecord
from mofe.report import drawing, kinds, shares
from mofe.report.answers import arms
from mofe.report.sources import TAKES, Shared
from mofe.report.stats import Kept
from mofe.study.tables import Cell, Row
from mofe.units import listed

LOWEST, HIGHEST = -0.5, 2.0  # a panel shows no shares beyond
_TICKS = tuple(digit * 10.0**power for power in range(-6, 1) for digit in (1, 2, 5))


@dataclass(frozen=True)
class Point:
    """What a row keeps in a column of what another, `whole`, gains. block: the row's labels without
    the last."""

    column: str
    block: str
    row: Row
    whole: Row
    kept: Kept


def points(shared: Shared) -> list[Point]:
    """The shares of all parts. Raises ValueError where two rows answered different questions."""
    number = shared.table.number
    rows = {LABEL_SEPARATOR.join(row.labels): row for row in shared.table.rows}
    found = arms({(number, name): row for name, row in rows.items()})

    def point(column: str, first: str, whole: str, start: str) -> Point:
        block = LABEL_SEPARATOR.join(rows[first].labels[:-1])
        kept = shares.kept(found, column, [(number, name) for name in (first, whole, start)])
        return Point(column, block, rows[first], rows[whole], kept)

    return [point(*part) for part in shared.parts]


# --- what training takes ------------------------------------------------------------------------


def _trained_share(point: Point, cell: Cell) -> float:
    """The share of all parameters that the last stage trains."""
    record = records.read(cell.files[0][-1], TrainRecord)
    return record.trainable_parameters / record.total_parameters


def _relative(point: Point, cell: Cell) -> float:
    """What a cell measures of the row, over what it measures of the whole gain's row."""
    (other,) = (c for c in point.whole.cells if c.column == cell.column)
    one, all_ = (kinds.measure(c, "hours") for c in (cell, other))
    return one.value / all_.value


# By what a column shows: the axis' label, which names the whole gain's row, and the number.
COSTS: dict[str, tuple[str, Callable[[Point, Cell], float]]] = {
    "trainable": ("trained share of the parameters", _trained_share),
    "time": ("training time, {}'s = 1", _relative),
    "memory": ("peak memory, {}'s = 1", _relative),
}


# --- drawing ------------------------------------------------------------------------------------


def kept(shared: Shared) -> Figure:
    """A line of panels for every column of scores, a panel for each of TAKES that the table
    shows."""
    found = points(shared)
    costs = [kind for kind in TAKES if any(c.kind == kind for c in found[0].row.cells)]
    columns = list(dict.fromkeys(point.column for point in found))
    count = len(costs) * len(columns)
    figure, axes = drawing.panels(count, width=3.1, height=2.9, columns=len(costs) or None)
    names = drawing.methods(point.row.recipe for point in found)
    blocks = list(dict.fromkeys(point.block for point in found))
    markers = dict(zip(blocks, itertools.cycle(drawing.MARKERS), strict=False))
    wholes = listed(list(dict.fromkeys(point.whole.labels[-1] for point in found)))
    for axis, (column, kind) in zip(axes, itertools.product(columns, costs), strict=True):
        label, number = COSTS[kind]
        shown = [point for point in found if point.column == column]
        at = {
            id(point): number(point, next(c for c in point.row.cells if c.kind == kind))
            for point in shown
        }
        _axes(axis, shown, list(at.values()), shared.limits, logarithmic=kind == "trainable")
        for point in shown:
            _point(axis, point, at[id(point)], names[point.row.recipe][1], markers[point.block])
        axis.set(title=column, xlabel=label.format(wholes))
        _without(axis, shown)
        if kind == costs[0]:
            axis.set_ylabel(f"kept of {wholes}'s gain (95% interval)")
    figure.suptitle(f"Table {shared.table.number}: the share of {wholes}'s gain that is kept")
    methods = [drawing.key(name, color=colour, marker="o") for name, colour in names.values()]
    sizes = [drawing.key(b, color="#333333", marker=m) for b, m in markers.items() if b]
    others = [drawing.key(f"all of {wholes}'s gain", color="#333333", ls="-")]
    if shared.limits:
        others.append(drawing.key("the claimed share", color="#333333", ls="--"))
    if any(point.kept.value is not None and point.kept.bounds is None for point in found):
        style = {"color": "#333333", "marker": "o", "mfc": "white", "ls": ":"}
        others.append(drawing.key("no interval: the gain is inside its noise", **style))
    drawing.legend(figure, methods, sizes, others)
    return figure


def _axes(
    axis: Axes,
    shown: Sequence[Point],
    at: Sequence[float],
    limits: Sequence[float],
    *,
    logarithmic: bool,
) -> None:
    """Limits and ticks of a panel, its line at all of the gain, and those at claimed shares."""
    ends = [end for point in shown if point.kept.bounds for end in point.kept.bounds]
    low, high = max(LOWEST, min([0.0, *ends])), min(HIGHEST, max([1.0, *limits, *ends]))
    room = 0.06 * (high - low)
    axis.set_ylim(low - room, high + room)
    axis.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axis.axhline(1, color="#333333", lw=0.9, zorder=1)
    for limit in limits:
        axis.axhline(limit, color="#333333", lw=0.9, ls="--", zorder=1)
    if logarithmic:
        axis.set_xscale("log")
        left, right = min(at) / 1.6, min(1.0, max(at) * 1.6)
        ticks = [tick for tick in _TICKS if left <= tick <= right]
        axis.set_xticks(ticks, [f"{100 * tick:g}%" for tick in ticks])
        axis.minorticks_off()
        axis.set_xlim(left, right)
    else:
        axis.set_xlim(0, 1.1 * max([1.0, *at]))


def _point(axis: Axes, point: Point, at: float, colour: str, marker: str) -> None:
    value, bounds = point.kept.value, point.kept.bounds
    if value is None:
        return
    if bounds is None:
        axis.axvline(at, color=colour, lw=1, ls=":", zorder=2)
    else:
        axis.vlines(at, *bounds, color=colour, lw=1.1, zorder=2)
    fill = "white" if bounds is None else colour
    edge = colour if bounds is None else "white"
    axis.plot(at, value, marker, mfc=fill, mec=edge, mew=0.8, ms=6.5, zorder=3)


def _without(axis: Axes, shown: Sequence[Point]) -> None:
    """Say in the panel where nothing is gained, so that there is no share."""
    without = dict.fromkeys(p.block or p.whole.labels[-1] for p in shown if p.kept.value is None)
    if without:
        text = f"no gain: {', '.join(without)}"
        place = {"transform": axis.transAxes, "ha": "right", "va": "bottom"}
        place["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 1}
        axis.text(0.98, 0.02, text, fontsize=8, color="#555555", **place)
