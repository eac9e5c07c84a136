"""The noise of the paper's own numbers: how far two runs of one function lie apart.

In Tables 1 and 2 each of four methods trains one function at three sizes, because identical frozen
experts compute what one of them does (docs/statistics.md). So the paper has three runs of each.
Their pooled variance is the yardstick, with 8 degrees of freedom. It may be too small, since the
sizes may share a seed. Benchmarks that these tables lack borrow MedMCQA's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from statistics import fmean, median_high

from mofe import paper
from mofe.paper import BENCHMARKS
from mofe.records import LeastEffect
from mofe.report import stats
from mofe.report.stats import PrintedScore, Test, Yardstick

TABLE = 2  # has all four methods
SIZES = ("Small", "Medium", "Large")
METHODS = ("LoRA", "QLoRA", "DoRA", "MoFE")
LENDER = "MedMCQA"  # the benchmark whose noise others borrow

ITEM_SD = 0.4  # of a question's expected difference; 0.19 to 0.48 in the miniature
SEEDS = (1, 3, 5, 10, 20, 100, None)  # for which the least effect is stated; None is any number


def runs(benchmark: str) -> list[tuple[float, ...]]:
    """The printed scores of each method's three runs."""
    return [
        tuple(paper.cells()[TABLE, f"{size} | {method}", benchmark].value for size in SIZES)
        for method in METHODS
    ]


@cache
def measured(benchmark: str) -> Yardstick:
    """The yardstick of a benchmark that Table 2 has."""
    return stats.pooled(runs(benchmark))


@cache
def _spread() -> float:
    return fmean(score * (1 - score) for scores in runs(LENDER) for score in scores)


def yardstick(heading: str, score: float) -> Yardstick:
    """The noise of a run with this score under a heading of the paper's tables. Raises KeyError for
    a heading that the paper does not have."""
    name = BENCHMARKS[heading].name
    if (TABLE, f"{SIZES[0]} | {METHODS[0]}", name) in paper.cells():
        return measured(name)
    return measured(LENDER).borrowed(_spread(), score)


def typical(heading: str) -> Yardstick:
    """The noise of a run whose score is the median of those that the paper prints of trained
    models."""
    scores = [
        cell.value
        for (_, label, column), cell in paper.cells().items()
        if column == heading and not is_untuned(label)
    ]
    return yardstick(heading, median_high(scores))


def bands() -> dict[str, float]:
    """By heading, the difference that two single runs exceed by chance in 5% of pairs; of
    benchmarks that have runs of one function."""
    return {
        heading: measured(benchmark.name).band
        for heading, benchmark in BENCHMARKS.items()
        if (TABLE, f"{SIZES[0]} | {METHODS[0]}", benchmark.name) in paper.cells()
    }


def is_untuned(label: str) -> bool:
    """Whether a row of the paper is an untuned model, which has no run-to-run noise."""
    return label.split(paper.LABEL_SEPARATOR)[-1] == "X"


def pair(
    table: int | str, first: Sequence[str], second: Sequence[str], heading: str
) -> list[PrintedScore]:
    """The first row's printed score less the second's, each with its noise. first, second: one row
    each, or rows that are runs of one function, whose mean counts. Borrowed noise is that at the
    mean of both scores."""
    rows = [
        [paper.cells()[table, label, heading].value for label in labels]
        for labels in (first, second)
    ]
    noise = yardstick(heading, fmean(map(fmean, rows)))
    benchmark = BENCHMARKS[heading]
    return [
        PrintedScore(
            task=benchmark.name,
            value=fmean(values),
            questions=benchmark.questions,
            weight=weight,
            yardstick=None if is_untuned(labels[0]) else noise,
            runs=len(values),
        )
        for labels, values, weight in zip((first, second), rows, (1.0, -1.0), strict=True)
    ]


def difference(table: int | str, first: str, second: str, heading: str) -> Test:
    """The test of the first row's printed score less the second's."""
    return stats.printed(pair(table, [first], [second], heading))


def is_borrowed(heading: str) -> bool:
    """Whether a heading's noise is another benchmark's."""
    return not yardstick(heading, 0.5).own


def threshold(heading: str, one: float, two: float, trained: tuple[bool, bool]) -> float:
    """The difference of two printed scores of single runs that chance alone exceeds in 5% of cases.

    one, two: the scores, fractions of 1. trained: whether each is of a trained model; an untuned
    one has no run-to-run noise.
    """
    noise, benchmark = yardstick(heading, (one + two) / 2), BENCHMARKS[heading]
    scores = [
        PrintedScore(benchmark.name, value, benchmark.questions, weight, noise if is_run else None)
        for value, weight, is_run in zip((one, two), (1.0, -1.0), trained, strict=True)
    ]
    test = stats.printed(scores)
    return test.high - test.difference


def inside(heading: str, printed: Mapping[int, float], trained: Mapping[int, bool]) -> set[int]:
    """The rows whose printed score is inside the noise of the column's best: not shown to be below
    it. The best itself is not among them.

    printed, trained: by row, the paper's score, and whether it is of a trained model.
    """
    best = max(printed, key=printed.__getitem__)

    def limit(row: int) -> float:
        return threshold(heading, printed[best], printed[row], (trained[best], trained[row]))

    return {row for row in printed if row != best and printed[best] - printed[row] < limit(row)}


def least_effects() -> list[LeastEffect]:
    """The least difference that 80% of studies of the paper's size would find, by benchmark and
    number of seeds, with the paper's own run-to-run noise. One seed takes the paper's yardstick."""
    found = []
    for heading in ("MMLU", "MedMCQA", "PubMedQA", "Finance"):
        noise = typical(heading)
        questions = BENCHMARKS[heading].questions
        for seeds in SEEDS:
            design = (questions, math.inf if seeds is None else seeds)
            df = noise.df if seeds == 1 else None
            new, these = (
                stats.least_effect(noise.sd, sd, *design, yardstick_df=df) for sd in (ITEM_SD, 0.0)
            )
            found.append(
                LeastEffect(task=heading, questions=questions, seeds=seeds, new=new, these=these)
            )
    return found
