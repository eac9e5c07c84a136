"""How the figures of routers over training are drawn (mofe/training/routing.py records them)."""

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
FIGURES_IN_CELLS = 12  # cells have their number where there are at most so many slots and layers
FEW = 3  # trainings below each other; more of them stand two by two
OF = {"entropy": "entropy (nats)", "mutual_information": "mutual information (nats)"}

Step = tuple[RouterLayer, ...]


def load(trainings: Sequence[Routed]) -> Figure:
    """Heat maps of the share of choices by layer and slot, in the first and the last step."""
    most = max((len(training.slots) for training in trainings), default=0)
    width = 1.6 + 0.42 * most
    columns = 2 if len(trainings) <= FEW else 4  # a training's two steps stand side by side
    drawn, axes = drawing.panels(
        2 * len(trainings), width=max(3.4, width), height=3.0, columns=columns
    )
    panels = []
    for training in trainings:
        runs = [list(_steps(file).items()) for file in training.files]
        for at in (0, -1):
            steps = " or ".join(map(str, sorted({run[at][0] for run in runs})))
            shares = _mean_shares([run[at][1] for run in runs])
            panels.append((f"{_name(training)}\nstep {steps}", shares, training.slots))
    highest = max(max(map(max, shares)) for _, shares, _ in panels)  # one scale for all panels
    for axis, (title, shares, slots) in zip(axes, panels, strict=True):
        _heat(axis, shares, highest, slots)
        axis.set_title(title, fontsize=8)
    drawn.suptitle("Share of tokens' choices by layer and expert slot")
    return drawn


def _mean_shares(runs: Sequence[Step]) -> list[list[float]]:
    """The share of choices by layer and slot. runs: one step of each seed."""
    return [
        [statistics.fmean(shares) for shares in zip(*(run.chosen for run in layer), strict=True)]
        for layer in zip(*runs, strict=True)
    ]


def _heat(axis: Axes, shares: list[list[float]], highest: float, slots: Sequence[str]) -> None:
    """A panel: a row per layer, the first on top, and a column per slot."""
    image = axis.imshow(shares, cmap=LOADS, vmin=0, vmax=highest, aspect="auto")
    if max(len(slots), len(shares)) <= FIGURES_IN_CELLS:
        for layer, row in enumerate(shares):
            for slot, share in enumerate(row):
                ink = "#000000" if share > 0.55 * highest else "#ffffff"
                axis.text(slot, layer, f"{share:.2f}", ha="center", va="center", color=ink, size=7)
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
                runs_of = [[getattr(run[step][layer], of) for run in alike] for step in alike[0]]
                mean = [statistics.fmean(values) for values in runs_of]
                axis.plot(list(alike[0]), mean, lw=1.2, **_line(layer, layers), **_mark(mean))
        if of == "entropy":
            axis.axhline(math.log(len(training.slots)), color="#333333", lw=0.9, ls=":", zorder=1)
        axis.set_title(_name(training), fontsize=8)
        axis.set(xlabel="optimiser step", ylabel=OF[of])
        axis.set_ylim(bottom=0)
        drawing.whole_numbers(axis)
    named = {0, deepest - 1} if deepest > 6 else set(range(deepest))
    keys = [drawing.key(f"layer {layer}", **_line(layer, deepest)) for layer in sorted(named)]
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


def _line(layer: int, layers: int) -> dict[str, object]:
    """A layer's line: from dark to light, without the palest."""
    colour = colormaps[LAYERS](0.88 * layer / max(1, layers - 1))
    return {"color": colour, "ls": drawing.LINES[layer % len(drawing.LINES)]}


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
