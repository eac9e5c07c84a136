"""How the figures of routers over training are drawn (mofe/training/routing.py has what is recorded)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mofe import records
from mofe.records import LossStep, RouterLayer
from mofe.report import drawing
from mofe.report.sources import Routed

LAYERS = "viridis"  # colours of layers, from the first to the last; a colour-blind reader sees them
LOADS = "cividis"
FIGURES_IN_CELLS = 12  # cells have their number where a panel has no more slots and layers
OF = {"entropy": "entropy (nats)", "mutual_information": "mutual information (nats)"}

Step = tuple[RouterLayer, ...]


def load(trainings: Sequence[Routed]) -> Figure:
    """Heat maps of the share of choices by layer and slot, in the first and the last step."""
    most = max((len(training.slots) for training in trainings), default=0)
    width = 1.6 + 0.42 * most
    drawn, axes = drawing.panels(2 * len(trainings), width=max(3.4, width), height=3.0, columns=2)
    for number, training in enumerate(trainings):
        runs = [_steps(file) for file in training.files]
        for axis, at in zip(axes[2 * number : 2 * number + 2], (0, -1), strict=True):
            shown = [list(run.items())[at] for run in runs]
            step = sorted({step for step, _ in shown})
            _heat(axis, [layers for _, layers in shown], training.slots)
            axis.set_title(f"{_name(training)}\nstep {' or '.join(map(str, step))}", fontsize=8)
    drawn.suptitle("Share of tokens' choices by layer and expert slot")
    return drawn


def _heat(axis: Axes, runs: Sequence[Step], slots: Sequence[str]) -> None:
    """A panel: a row per layer, the first on top, and a column per slot. runs: one step of each
    seed."""
    shares = [
        [statistics.fmean(run[layer].chosen[slot] for run in runs) for slot in range(len(slots))]
        for layer in range(len(runs[0]))
    ]
    highest = max(1.0 / len(slots), *map(max, shares))
    image = axis.imshow(shares, cmap=LOADS, vmin=0, vmax=highest, aspect="auto")
    if max(len(slots), len(shares)) <= FIGURES_IN_CELLS:
        for layer, row in enumerate(shares):
            for slot, share in enumerate(row):
                colour = "#000000" if share > 0.55 * highest else "#ffffff"
                axis.text(
                    slot, layer, f"{share:.2f}", ha="center", va="center", color=colour, size=7
                )
    axis.figure.colorbar(image, ax=axis, fraction=0.05)
    axis.set_xticks(range(len(slots)), _numbered(slots), rotation=35, ha="right", fontsize=7)
    axis.yaxis.get_major_locator().set_params(integer=True)
    axis.set_ylabel("layer")
    axis.grid(visible=False)


def over_steps(trainings: Sequence[Routed], of: Literal["entropy", "mutual_information"]) -> Figure:
    """A panel per training: a number of each layer's router over the recorded steps."""
    columns = drawing.columns(len(trainings))
    drawn, axes = drawing.panels(len(trainings), width=3.9, height=2.9, columns=columns)
    deepest = 0
    for axis, training in zip(axes, trainings, strict=True):
        runs = [_steps(file) for file in training.files]
        layers = len(next(iter(runs[0].values())))
        deepest = max(deepest, layers)
        for alike in _alike(runs):
            for layer in range(layers):
                columns_ = [[getattr(run[step][layer], of) for run in alike] for step in alike[0]]
                mean = [statistics.fmean(values) for values in columns_]
                axis.plot(list(alike[0]), mean, color=_colour(layer, layers), lw=1.2, **_mark(mean))
        if of == "entropy":
            axis.axhline(math.log(len(training.slots)), color="#333333", lw=0.9, ls=":", zorder=1)
        axis.set_title(_name(training), fontsize=8)
        axis.set(xlabel="optimiser step", ylabel=OF[of])
        axis.set_ylim(bottom=0)
        drawing.whole_numbers(axis)
    named = {0, deepest - 1} if deepest > 6 else set(range(deepest))
    keys = [
        drawing.key(f"layer {layer}", color=_colour(layer, deepest), ls="-", marker="")
        for layer in sorted(named)
    ]
    if of == "entropy":
        keys.append(drawing.key("ln(slots)", color="#333333", ls=":"))
    drawn.suptitle(
        "Entropy of the routers over training"
        if of == "entropy"
        else "Mutual information of expert and training set"
    )
    drawing.legend(drawn, keys)
    return drawn


def _name(training: Routed) -> str:
    return f"{training.mixture}\n{training.stages}"


def _numbered(slots: Sequence[str]) -> list[str]:
    return [f"{number} {expert}" for number, expert in enumerate(slots)]


def _colour(layer: int, layers: int) -> tuple[float, ...]:
    """From dark to light, without the palest."""
    return colormaps[LAYERS](0.88 * layer / max(1, layers - 1))


def _mark(points: Sequence[float]) -> dict[str, object]:
    """A line of one point needs a marker to be seen."""
    return {"marker": "o", "ms": 3} if len(points) < 3 else {}


def _steps(log: str) -> dict[int, Step]:
    """The recorded steps of a log. Raises ValueError where there is none."""
    found = {line.step: line.router for line in records.read_lines(log, LossStep) if line.router}
    if not found:
        raise ValueError(f"{log}: no step has its routers recorded; make it again with --forcerun")
    return found


def _alike(runs: Sequence[dict[int, Step]]) -> list[list[dict[int, Step]]]:
    """Runs with the same recorded steps together: another tokenizer's have others."""
    alike: dict[tuple[int, ...], list[dict[int, Step]]] = {}
    for run in runs:
        alike.setdefault(tuple(run), []).append(run)
    return list(alike.values())
