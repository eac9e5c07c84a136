"""The report's figures. Each is one function, with what it is drawn from and its caption beside it.

A figure's function takes what its source gives (mofe/report/sources.py) and the study's setting,
and returns a matplotlib figure; `draw` names the study in it and writes it. A study has those
figures whose source it has. The Snakefile imports this module too, so matplotlib and pandas
(mofe/report/drawing.py) are imported in the functions only.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mofe.report.sources import (
    FromClaims,
    FromRouters,
    FromSearches,
    FromShares,
    FromTables,
    FromTrainings,
    Routed,
    Searched,
    Shared,
    Trainings,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

    from mofe.records import ClaimsRecord
    from mofe.study.plan import Plan
    from mofe.study.setting import Setting
    from mofe.study.tables import Row, Table


Source = FromTables | FromShares | FromTrainings | FromRouters | FromSearches | FromClaims


@dataclass(frozen=True)
class Figure:
    """A figure: what it is drawn from, its caption, and the function that draws it."""

    source: Source
    caption: str
    function: Callable[[Any, Setting], Drawing]


FIGURES: dict[str, Figure] = {}  # by name, in the report's order


def figure(source: Source, caption: str):
    """Declare the decorated function as a figure of its name."""

    def declare(function: Callable[[Any, Setting], Drawing]):
        FIGURES[function.__name__] = Figure(source, caption, function)
        return function

    return declare


def of(plan: Plan) -> dict[str, Figure]:
    """The figures of a study, by name: those whose source it has, one of every table that answers
    a question by scores, under the table's key, and one of the shares in every table that a claim
    of such is about, under its key and KEPT."""
    found = {name: figure for name, figure in FIGURES.items() if figure.source.spec(plan)}
    asked = [n for n, spec in plan.specs.items() if spec.question and _has_scores(plan.tables[n])]
    found |= {str(n): replace(BY_ROW, source=FromTables((n,), _has_a_model)) for n in asked}
    shared = {f"{n}{KEPT}": replace(OF_SHARES, source=FromShares(n)) for n in plan.tables}
    return found | {name: figure for name, figure in shared.items() if figure.source.spec(plan)}


def _has_scores(table: Table) -> bool:
    return any(cell.kind == "task" for row in table.rows for cell in row.cells)


def _has_a_model(row: Row) -> bool:
    return not row.is_constant


def inputs(plan: Plan) -> dict[str, list[str]]:
    """The files that each of a study's figures is drawn from."""
    return {name: figure.source.files(plan) for name, figure in of(plan).items()}


def given(plan: Plan) -> dict[str, dict[str, Any]]:
    """By name, what each of a study's figures is drawn from, and its caption."""
    return {
        name: {"spec": figure.source.spec(plan), "caption": caption(name, plan.study.setting)}
        for name, figure in of(plan).items()
    }


def draw(
    name: str,
    spec: Sequence,
    files: Sequence[str],
    seeds: int,
    setting: Setting,
    outputs: Iterable[str | os.PathLike],
) -> None:
    """Write a figure in the formats that the outputs' names end in. Equal results give equal bytes.

    spec, files: those of its source; seeds: the number of the study's seeds. Raises ValueError
    where a file is invalid, or where there is nothing to draw. The captions are the files'
    metadata.
    """
    from mofe.report import drawing

    figure = _named(name)
    with drawing.style():
        drawn = figure.function(figure.source.filled(spec, files, seeds), setting)
        drawing.name_study(drawn, setting)
        drawing.save(drawn, outputs, about=caption(name, setting))


def caption(name: str, setting: Setting) -> str:
    """A figure's caption, which says what "ours" is."""
    return f"{_named(name).caption} {setting.ours}"


def _named(name: str) -> Figure:
    """A figure by its name; of a table's the source is one that fills a spec of any table."""
    return FIGURES.get(name) or (OF_SHARES if name.endswith(KEPT) else BY_ROW)


SCORES = (
    "Bars are the standard deviation over seeds, or the evaluation's standard error where there is "
    "one seed."
)


@figure(
    FromTables((1, 2)),
    "Training time against accuracy (Tables 1 and 2). Colour is the fine-tuning method, the marker "
    f"is the model's size. {SCORES} Dashed: the untuned models; dotted: the score that needs no "
    "model. Hollow markers, at paper scale only: the paper's values.",
)
def time_accuracy(tables: Sequence[Table], setting: Setting) -> Drawing:
    """One panel per task. Untuned models took no time, so each is a horizontal line, like the
    floor."""
    from mofe.report import drawing

    panels = drawing.by_task(tables, setting)
    drawn, axes = drawing.panels(len(panels), width=4.4, height=3.9)
    rows = [point.row for points in panels.values() for point in points]
    names = drawing.methods(row.recipe for row in rows)
    sizes = list(dict.fromkeys(row.labels[0] for row in rows))
    markers = dict(zip(sizes, itertools.cycle(drawing.MARKERS), strict=False))
    for axis, points in zip(axes, panels.values(), strict=True):
        for point in points:
            if point.row.recipe is None:
                axis.axhline(point.score.value, color="#777777", lw=0.9, ls="--", zorder=1)
            else:
                colour, marker = names[point.row.recipe][1], markers[point.row.labels[0]]
                drawing.time_point(axis, point, setting.unit, colour, marker)
        drawing.floor_line(axis, points[0].cell)
        axis.set(title=drawing.task_title(points), xlabel=f"training time ({setting.unit})")
        axis.set_ylabel(drawing.accuracy_label(points))
        axis.set_xlim(left=0)
    drawn.suptitle("Training time and accuracy by fine-tuning method and model size")
    used = dict.fromkeys(row.recipe for row in rows if row.recipe is not None)
    methods = [drawing.key(names[recipe][0], color=names[recipe][1], marker="o") for recipe in used]
    others = [drawing.key(size, color="#333333", marker=markers[size]) for size in sizes]
    if any(row.recipe is None for row in rows):
        others.append(drawing.key("untuned", color="#777777", ls="--"))
    drawing.legend(drawn, methods, others + drawing.common_keys(setting))
    return drawn


@figure(
    FromTables((3, 4), lambda row: bool(row.experts)),
    "Accuracy against the number of medical experts in the mixture (Tables 3 and 4), for mixtures "
    f"with and without finance experts. {SCORES} Dotted: the score that needs no model. Hollow "
    "markers, at paper scale only: the paper's values.",
)
def medical_experts(tables: Sequence[Table], setting: Setting) -> Drawing:
    """One panel per task, with one line for mixtures without finance experts and one for those
    with. `medical` and `finance` are the experts' names in the rows' mixtures."""
    from mofe.report import drawing

    panels = drawing.by_task(tables, setting)
    series = {
        "without finance experts": (lambda experts: not experts.get("finance"), "#D55E00", "o"),
        "with finance experts": (lambda experts: bool(experts.get("finance")), "#0072B2", "s"),
    }
    drawn, axes = drawing.panels(len(panels), width=4.0, height=3.6)
    keys = {}
    for axis, points in zip(axes, panels.values(), strict=True):
        mixtures = [(point, dict(point.row.experts)) for point in points]
        for name, (belongs, colour, marker) in series.items():
            chosen = [(point, experts) for point, experts in mixtures if belongs(experts)]
            if chosen:
                at = [experts.get("medical", 0) for _, experts in chosen]
                drawing.line(axis, at, [point for point, _ in chosen], colour, marker)
                keys[name] = drawing.key(name, color=colour, marker=marker, ls="-")
        drawing.floor_line(axis, points[0].cell)
        axis.set(title=drawing.task_title(points), xlabel="medical experts in the mixture")
        axis.set_ylabel(drawing.accuracy_label(points))
        drawing.whole_numbers(axis)
    drawn.suptitle("Accuracy by the number of medical experts")
    drawing.legend(drawn, [*keys.values(), *drawing.common_keys(setting)])
    return drawn


@figure(
    FromTables((7,), lambda row: row.frozen is not None),
    f"Accuracy against the number of frozen experts (Table 7). {SCORES} Dotted: the score that "
    "needs no model. Hollow markers, at paper scale only: the paper's values.",
)
def frozen_experts(tables: Sequence[Table], setting: Setting) -> Drawing:
    """One panel per task."""
    from mofe.report import drawing

    panels = drawing.by_task(tables, setting)
    drawn, axes = drawing.panels(len(panels), width=4.8, height=3.6)
    for axis, points in zip(axes, panels.values(), strict=True):
        drawing.line(axis, [point.row.frozen for point in points], points, "#D55E00", "o")
        drawing.floor_line(axis, points[0].cell)
        axis.set(title=drawing.task_title(points), xlabel="frozen experts in the mixture")
        axis.set_ylabel(drawing.accuracy_label(points))
        drawing.whole_numbers(axis)
    drawn.suptitle("Accuracy by the number of frozen experts")
    drawing.legend(drawn, drawing.common_keys(setting))
    return drawn


@figure(
    FromTrainings("loss_log", numbered=True),
    "Training loss over optimiser steps, a panel for each training data, a line for each method. "
    "The line is the mean over the runs with that data and method, that is over mixtures and "
    "seeds; the band is their standard deviation. Runs with another number of steps, as a base "
    "with another tokenizer has, have a line of their own.",
)
def loss_curves(trainings: Sequence[Trainings], setting: Setting) -> Drawing:
    """One panel per mix; a line for each recipe and number of steps."""
    from mofe.report import drawing

    facets: dict[str, dict[str, list[str]]] = {}
    for runs in trainings:
        facets.setdefault(runs.mix, {}).setdefault(runs.recipe, []).extend(runs.files)
    names = drawing.methods(runs.recipe for runs in trainings)
    styles = dict(zip(names, itertools.cycle(drawing.LINES), strict=False))
    columns = drawing.columns(len(facets))
    drawn, axes = drawing.panels(len(facets), width=3.7, height=2.9, columns=columns)
    for axis, (mix, recipes) in zip(axes, facets.items(), strict=True):
        for recipe, logs in recipes.items():
            colour = names[recipe][1]
            for steps, mean, sd in drawing.mean_losses(logs):
                axis.plot(steps, mean, color=colour, ls=styles[recipe], lw=1.3)
                low, high = (
                    [m + sign * s for m, s in zip(mean, sd, strict=True)] for sign in (-1, 1)
                )
                axis.fill_between(steps, low, high, color=colour, alpha=0.18, lw=0)
        axis.set(title=mix, xlabel="optimiser step", ylabel="loss (nats per token)")
        drawing.whole_numbers(axis)
    drawn.suptitle("Training loss by training data and method")
    keys = [
        drawing.key(name, color=colour, ls=styles[recipe])
        for recipe, (name, colour) in names.items()
    ]
    drawing.legend(drawn, keys)
    return drawn


LAST_LAYER = (
    "Without an auxiliary loss the last layer's FFN is computed only where the loss reads it, so "
    "its router is seen at the tokens before an answer's."
)


@figure(
    FromRouters(),
    "Where the routers sent tokens: the share of tokens' choices that went to each expert slot of "
    "each layer, in the first and in the last step of a training, as a mean over seeds. Slots that "
    f"are equally loaded all have 1/slots. {LAST_LAYER}",
)
def router_load(trainings: Sequence[Routed], setting: Setting) -> Drawing:
    """Two heat maps per training: layers by slots, in its first and in its last step."""
    from mofe.report import router_drawing

    return router_drawing.load(trainings)


@figure(
    FromRouters(),
    "How sure the routers were: the entropy of a router's distribution over the expert slots, as a "
    "mean over a step's tokens and over seeds, a line per layer. Dotted: ln(slots), where a router "
    f"prefers no expert. {LAST_LAYER}",
)
def router_entropy(trainings: Sequence[Routed], setting: Setting) -> Drawing:
    """One panel per training; a line for each layer over the recorded steps."""
    from mofe.report import router_drawing

    return router_drawing.over_steps(trainings, "entropy")


@figure(
    FromRouters(),
    "What an expert tells of the data: the mutual information of the expert slot that a token "
    "chooses and the training set that its row is from, a line per layer, as a mean over seeds. It "
    "is 0 where a mix has one set, and from few tokens it is estimated too high "
    f"(docs/router.md). {LAST_LAYER}",
)
def router_information(trainings: Sequence[Routed], setting: Setting) -> Drawing:
    """One panel per training; a line for each layer over the recorded steps."""
    from mofe.report import router_drawing

    return router_drawing.over_steps(trainings, "mutual_information")


@figure(
    FromSearches(),
    "Score against learning rate (Table C3). First panel: the mean score on held-out training "
    "questions of one training at each rate, by method, with its standard error; a ring marks the "
    "best, a square a best that is the lowest or the highest rate tried, so that a rate beyond it "
    "may be better. Other panels: the scores on test questions at that rate; a dot is a seed, a "
    "bar their mean.",
)
def learning_rates(searches: Sequence[Searched], setting: Setting) -> Drawing:
    """For every model and mix that a search is for: a panel of held-out scores, and a panel for
    each task that tables show."""
    from mofe.report import drawing

    facets: dict[tuple[str, str], list[Searched]] = {}
    for search in searches:
        facets.setdefault((search.model, search.mix), []).append(search)
    names = drawing.methods(search.recipe for search in searches)
    markers = dict(zip(names, itertools.cycle(drawing.MARKERS), strict=False))
    tasks = {facet: dict.fromkeys(t for s in of for t in s.scores) for facet, of in facets.items()}
    most = 1 + max(len(shown) for shown in tasks.values())
    drawn, axes = drawing.panels(most * len(facets), width=3.7, height=3.4, columns=most)
    for line, (facet, found) in enumerate(facets.items()):
        own = iter(axes[line * most : (line + 1) * most])
        axis = next(own)
        for search in found:
            drawing.tried(axis, search.search, names[search.recipe][1], markers[search.recipe])
        axis.set(title="held-out training questions", xlabel="learning rate")
        axis.set_ylabel(f"{' on '.join(facet)}\nmean accuracy (± standard error)")
        for task in tasks[facet]:
            drawing.dots(axis := next(own), found, task, names)
            axis.set(title=f"test questions: {task}", ylabel="accuracy at the best rate")
        for axis in own:
            axis.set_axis_off()
    drawn.suptitle("Score against learning rate by method")
    keys = [
        drawing.key(name, color=colour, marker=markers[recipe], ls="-")
        for recipe, (name, colour) in names.items()
    ]
    around = {"best": drawing.INSIDE, "best, at the edge": drawing.AT_EDGE}
    rings = [
        drawing.key(name, mfc="none", mec="#333333", marker=marker, ms=11)
        for name, marker in around.items()
    ]
    drawing.legend(drawn, keys, rings)
    return drawn


@figure(
    FromClaims(),
    "Each claim of the paper by its weakest part, or its mean, with the 95% interval: filled "
    "circles are the paper's own numbers, hollow diamonds this study's. Shaded: the difference "
    "that two single runs of the paper exceed by chance in 5% of pairs, on that row's task. Claims "
    "on times and counts are not in points of accuracy and are left out. A study in miniature is "
    "no evidence about TinyLlama.",
)
def claims(found: ClaimsRecord, setting: Setting) -> Drawing:
    """One row per claim whose weakest part is a score's difference."""
    from mofe.report import claims_drawing

    return claims_drawing.forest(found)


@figure(
    FromClaims(),
    "The paper's equal functions beside its claimed differences. Mixtures of identical frozen "
    "experts are one function at every size, so the paper's Tables 1 and 2 print three runs of "
    "each of four methods: squares are the differences between those runs. Circles are the "
    "differences that claims rest on. Shaded: what two single runs exceed by chance in 5% of "
    "pairs.",
)
def noise(found: ClaimsRecord, setting: Setting) -> Drawing:
    """One panel per task of Tables 1 and 2: a row for the runs of each method, then one per
    claim."""
    from mofe.report import claims_drawing

    return claims_drawing.equal_functions(found)


@figure(
    FromClaims(),
    "The least difference that 80% of studies at the paper's scale would find, against seeds per "
    "row, with the paper's run-to-run noise. Solid: about new questions; dashed: about the "
    "benchmark's own. The dotted line is the limit of any number of seeds on new questions. At the "
    "right: the differences that the paper's claims rest on.",
)
def power(found: ClaimsRecord, setting: Setting) -> Drawing:
    """One panel per task."""
    from mofe.report import claims_drawing

    return claims_drawing.least_effects(found)


def rows(tables: Sequence[Table], setting: Setting) -> Drawing:
    """The rows of one table from top to bottom, a panel per score."""
    from mofe.report import drawing

    (table,) = tables
    panels = drawing.by_cell(table, setting)
    names = [" · ".join(row.labels) for row in table.rows]
    letters = 0.07 * max(map(len, names))  # inches; they stand beside the first panel
    width = max(3.2, 2.4 + letters / len(panels))
    drawn, axes = drawing.panels(len(panels), width=width, height=0.7 + 0.19 * len(names))
    for number, (axis, points) in enumerate(zip(axes, panels.values(), strict=True)):
        drawing.by_row(axis, points, names if number == 0 else [""] * len(names))
    drawn.suptitle(f"Table {table.number} row by row")
    drawing.legend(drawn, [drawing.key("a seed", **drawing.SEED), *drawing.common_keys(setting)])
    return drawn


def kept(shared: Shared, setting: Setting) -> Drawing:
    """For each score a line of panels, one for each of what training takes."""
    from mofe.report import share_drawing

    return share_drawing.kept(shared)


BY_ROW = Figure(
    FromTables(()),
    "The table's rows from top to bottom. Dots are seeds, the circle is their mean. "
    f"{SCORES} Dotted: the score that needs no model. Hollow markers, at paper scale only: the "
    "paper's values.",
    rows,
)

KEPT = "_kept"
OF_SHARES = Figure(
    FromShares(0),
    "The share of a gain that is kept, with Fieller's 95% interval for new seeds and new "
    "questions, against the share of the parameters that is trained, the training time and the "
    "peak memory, the last two beside those of the row with the whole gain. Colour is the "
    "fine-tuning method, the marker is the block of rows. A hollow marker has no interval, because "
    "the whole gain is inside its noise: its dotted line says that any share is possible. Panels "
    "end at -50% and 200%. Times and memory are those of the machines that ran this.",
    kept,
)
