"""The noise of the paper's own numbers: how far two runs of one function lie apart.

In Tables 1 and 2 each of four methods trains one function at three sizes, because identical frozen
experts compute what one of them does (docs/statistics.md). So the paper has three runs of each. Their
pooled variance is the yardstick, with 8 degrees of freedom. It may be too small, since the sizes may
share a seed. Benchmarks that these tables lack borrow MedMCQA's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from statistics import fmean

from mofe import paper
from mofe.paper import BENCHMARKS
from mofe.report import stats
from mofe.report.stats import PrintedScore, Test, Yardstick

TABLE = 2  # has all four methods
SIZES = ("Small", "Medium", "Large")
METHODS = ("LoRA", "QLoRA", "DoRA", "MoFE")
LENDER = "MedMCQA"  # the benchmark whose noise others borrow


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


def bands() -> dict[str, float]:
    """By heading, the difference that two single runs exceed by chance in 5% of pairs; of benchmarks
    that have runs of one function."""
    return {
        heading: measured(benchmark.name).band
        for heading, benchmark in BENCHMARKS.items()
        if (TABLE, f"{SIZES[0]} | {METHODS[0]}", benchmark.name) in paper.cells()
    }


def is_untuned(label: str) -> bool:
    """Whether a row of the paper is an untuned model, which has no run-to-run noise."""
    return label.split(paper.LABEL_SEPARATOR)[-1] == "X"


def score(table: int, labels: Sequence[str], heading: str, weight: float) -> PrintedScore:
    """A printed score with its noise. labels: one row, or rows that are runs of one function, whose
    mean counts."""
    values = [paper.cells()[table, label, heading].value for label in labels]
    benchmark = BENCHMARKS[heading]
    return PrintedScore(
        task=benchmark.name,
        value=fmean(values),
        questions=benchmark.questions,
        weight=weight,
        yardstick=None if is_untuned(labels[0]) else yardstick(heading, fmean(values)),
        runs=len(values),
    )


def difference(table: int, first: str, second: str, heading: str) -> Test:
    """The test of the first row's printed score less the second's."""
    scores = [score(table, [first], heading, 1.0), score(table, [second], heading, -1.0)]
    return stats.printed(scores)
