"""How the figures of claims are drawn: the forest, the paper's equal functions, and power.

Differences are in points of accuracy. Circles are the paper's numbers and diamonds the study's, so
that the two differ in shape as well as in colour.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from mofe.paper import BENCHMARKS
from mofe.records import ClaimsRecord, Comparison, LeastEffect
from mofe.report import drawing, noise
from mofe.report.claims import in_points, study_verdict
from mofe.report.views.claims import scaled

PRINTED, OURS, BAND = "#8a4b08", "#0b5394", "#eadfce"

_ROW = 0.22  # inches per row


def task(heading: str) -> str:
    """The benchmark that a column shows; its heading, where the paper has none such."""
    known = BENCHMARKS.get(heading)
    return known.name if known else heading


# --- the forest -------------------------------------------------------------------------------


def forest(found: ClaimsRecord) -> Figure:
    """A row per claim of the paper that is about scores. Raises ValueError where there is none."""
    shown = [
        (claim, [v.summary if v else None for v in (claim.printed, study_verdict(claim))])
        for claim in found.claims
        if claim.in_paper
    ]
    rows = [(c, parts) for c, parts in shown if any(p and in_points(p) for p in parts)]
    if not rows:
        raise ValueError("no claim is about a score: there is nothing to draw")
    figure = Figure(figsize=(8.2, 1.3 + _ROW * len(rows)), layout="constrained")
    axis = figure.add_subplot()
    for at, (_, parts) in enumerate(rows):
        for part, lift, colour, marker, fill in zip(
            parts, (-0.16, 0.16), (PRINTED, OURS), ("o", "D"), (PRINTED, "white"), strict=True
        ):
            if part and in_points(part):
                _interval(axis, part, at + lift, colour, marker, fill)
        first = parts[0]
        if first and in_points(first) and first.column in found.noise:
            _band(axis, found.noise[first.column], at - 0.5, at + 0.5)
    axis.axvline(0, color="#333333", lw=0.8, zorder=1)
    _rows(axis, [f"{claim.claim}  {_short(claim.says)}" for claim, _ in rows])
    axis.set_xlabel("points of accuracy")
    figure.suptitle("The paper's claims by their weakest part")
    keys = [
        drawing.key("the paper's numbers", color=PRINTED, marker="o"),
        drawing.key(
            scaled(found.scale, found.study).says, color=OURS, marker="D", mfc="white", ms=5
        ),
        drawing.key("two single runs of the paper", color=BAND, marker="s", ms=9),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=3, columnspacing=1.2)
    return figure


def _interval(axis: Axes, part: Comparison, at: float, colour: str, marker: str, fill: str) -> None:
    axis.plot([100 * part.low, 100 * part.high], [at, at], color=colour, lw=1.4, zorder=2)
    axis.plot(100 * part.difference, at, marker, color=colour, mfc=fill, ms=4.5, mew=1.1, zorder=3)


def _band(axis: Axes, noise: float, low: float, high: float) -> None:
    axis.fill_betweenx([low, high], -100 * noise, 100 * noise, color=BAND, lw=0, zorder=0)


def _rows(axis: Axes, names: Sequence[str]) -> None:
    """Rows from the top, named at the left."""
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.grid(axis="y", visible=False)


def _short(text: str, most: int = 68) -> str:
    """A text without its full stop, cut at a word."""
    text = text.rstrip(".")
    return text if len(text) <= most else text[:most].rsplit(" ", 1)[0] + " …"


# --- equal functions --------------------------------------------------------------------------


def equal_functions(found: ClaimsRecord) -> Figure:
    """A panel per task of which the paper has runs of one function."""
    methods = noise.METHODS
    runs = {name: noise.runs(name) for name in found.noise if task(name) == name}
    if not runs:
        raise ValueError("noise: no task has runs of one function")
    claimed = {name: _claimed(found, name) for name in runs}
    lines = max(len(methods) + len(rows) for rows in claimed.values())
    figure = Figure(figsize=(4.1 * len(runs), 1.5 + 0.24 * lines), layout="constrained")
    for number, (name, printed) in enumerate(runs.items(), start=1):
        axis = figure.add_subplot(1, len(runs), number)
        for at, scores in enumerate(printed):
            differences = [100 * abs(a - b) for a, b in itertools.combinations(scores, 2)]
            _dots(axis, differences, at, "#555555", "s")
        for at, parts in enumerate(claimed[name].values(), start=len(methods)):
            _dots(axis, [100 * abs(part.difference) for part in parts], at, PRINTED, "o")
        axis.axvspan(0, 100 * found.noise[name], color=BAND, lw=0, zorder=0)
        axis.axhline(len(methods) - 0.5, color="#333333", lw=0.8)
        _rows(axis, [*(f"{method}, three sizes" for method in methods), *claimed[name]])
        axis.set_ylim(lines - 0.4, -0.6)
        axis.set(title=name, xlabel="difference in points of accuracy")
        axis.set_xlim(left=-0.015 * axis.get_xlim()[1])
    figure.suptitle("The paper's equal functions, and the differences that it claims")
    keys = [
        drawing.key("between runs of one function", color="#555555", marker="s"),
        drawing.key("of a claim", color=PRINTED, marker="o"),
        drawing.key("two single runs", color=BAND, marker="s", ms=9),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=3)
    return figure


def _claimed(found: ClaimsRecord, name: str) -> dict[str, list[Comparison]]:
    """By claim of the paper, the printed differences on a task."""
    parts = {
        claim.claim: [p for p in claim.printed.parts if in_points(p) and task(p.column) == name]
        for claim in found.claims
        if claim.in_paper and claim.printed
    }
    return {claim: found for claim, found in parts.items() if found}


def _dots(axis: Axes, values: Sequence[float], at: float, colour: str, marker: str) -> None:
    axis.plot(
        values, [at] * len(values), marker, color=colour, ms=5, alpha=0.75, mec="white", mew=0.5
    )


# --- power ------------------------------------------------------------------------------------


def least_effects(found: ClaimsRecord) -> Figure:
    """A panel per task of `least`. Raises ValueError where there is none."""
    tasks: dict[str, list[LeastEffect]] = {}
    for effect in found.least:
        tasks.setdefault(effect.task, []).append(effect)
    columns = drawing.columns(len(tasks))
    figure, axes = drawing.panels(len(tasks), width=3.9, height=3.3, columns=columns)
    for axis, (name, effects) in zip(axes, tasks.items(), strict=True):
        numbered = sorted((e for e in effects if e.seeds), key=lambda e: e.seeds or 0)
        seeds = [effect.seeds for effect in numbered]
        style = {"color": OURS, "ms": 4}
        axis.plot(seeds, [100 * e.new for e in numbered], "o-", **style)
        axis.plot(seeds, [100 * e.these for e in numbered], "o--", mfc="white", **style)
        for limit in (e for e in effects if e.seeds is None):
            axis.axhline(100 * limit.new, color=OURS, lw=1, ls=":")
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(FixedLocator([s for s in seeds if s]))
        axis.xaxis.set_minor_locator(NullLocator())
        axis.set_xticklabels([str(seed) for seed in seeds])
        axis.set_ylim(0, 108 * max(e.new for e in numbered))
        _marked(axis, found, name)
        title = f"{name} ({effects[0].questions:,} questions)"
        axis.set(title=title, xlabel="seeds per row", ylabel="points of accuracy")
    figure.suptitle("The least difference that a study could find")
    keys = [
        drawing.key("new questions", color=OURS, marker="o", ls="-", ms=4),
        drawing.key("these questions", color=OURS, marker="o", ls="--", ms=4, mfc="white"),
        drawing.key("new questions, any number of seeds", color=OURS, ls=":"),
        drawing.key("a claim's difference in the paper", color=PRINTED, ls="-"),
    ]
    figure.legend(handles=keys, loc="outside lower center", ncols=min(4, 2 * columns))
    return figure


def _marked(axis: Axes, found: ClaimsRecord, name: str) -> None:
    """The paper's differences on a task as marks at the right edge, with the claims' names."""
    top = axis.get_ylim()[1]
    at = {
        claim.claim: 100 * abs(claim.printed.summary.difference)
        for claim in found.claims
        if claim.in_paper
        and claim.printed
        and claim.printed.summary
        and in_points(claim.printed.summary)
        and task(claim.printed.summary.column).lower() == name.lower()
    }
    inside = {claim: value for claim, value in at.items() if value <= top}
    groups: dict[float, list[str]] = {}
    for claim, value in sorted(inside.items(), key=lambda item: item[1]):
        groups.setdefault(round(value, 1), []).append(claim)
    places = spread(list(groups), apart=0.052 * top)
    for (value, names), place in zip(groups.items(), places, strict=True):
        axis.annotate(
            ", ".join(names),
            xy=(1, value),
            xytext=(1.08, place),
            xycoords=("axes fraction", "data"),
            textcoords=("axes fraction", "data"),
            fontsize=7,
            va="center",
            color=PRINTED,
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": PRINTED,
                "lw": 0.7,
                "shrinkA": 0,
                "shrinkB": 0,
                "relpos": (0, 0.5),
            },
        )
        axis.axhline(value, xmin=0.9, color=PRINTED, lw=1)


def spread(values: Sequence[float], apart: float) -> list[float]:
    """Places for labels at increasing values, each at least `apart` above the one before."""
    places: list[float] = []
    for value in values:
        places.append(max(value, places[-1] + apart) if places else value)
    return places
