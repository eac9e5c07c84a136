"""The paper's own noise: which of its printed differences could come from single runs by chance.

The paper has one run of each model. Small, medium and large mixtures of identical frozen experts are
one function, so its Tables 1 and 2 print three runs of each of four methods: their spread is the
run-to-run noise of MMLU and MedMCQA. A task without such runs borrows MedMCQA's, in proportion to
p(1-p). Added to it are the binomial errors of both scores, whose questions are not known to be
paired, so a threshold is an upper bound.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd
from scipy.special import stdtrit

from mofe.report import paper

LEVEL = 0.05  # two-sided: how often chance exceeds a threshold

TASKS = Path(__file__).with_name("paper_tasks.csv")  # a column's task and number of questions

_REPLICATED = ("MoFE", "LoRA", "QLoRA", "DoRA")  # methods that freeze the experts
_LENDER = "medmcqa"  # whose noise a task without replicates borrows


@dataclass(frozen=True)
class Yardstick:
    """The noise of one run: the variance of its score, its degrees of freedom, and the mean p(1-p)
    of the scores that it comes from."""

    variance: float
    df: int
    spread: float

    def at(self, score: float) -> float:
        """The variance of a run whose score is on another level."""
        return self.variance * (score * (1 - score) / self.spread) ** 2


@cache
def tasks() -> dict[str, tuple[str, int]]:
    """(task, number of questions) by the heading of the paper's column."""
    rows = pd.read_csv(TASKS).itertuples()
    return {row.column: (row.task, row.questions) for row in rows}


@cache
def yardstick(task: str) -> Yardstick | None:
    """The pooled noise of a task's runs in Tables 1 and 2; None where there are none."""
    cells = paper.published()
    cells = cells[(cells["table"] <= 2) & (cells["column"].map(_task) == task)]
    cells = cells.drop_duplicates("label")  # MoFE is in both tables
    methods = cells["label"].str.split(paper.LABEL_SEPARATOR, regex=False).str[-1]
    groups = [list(cells["value"][methods == method]) for method in _REPLICATED]
    groups = [group for group in groups if len(group) > 1]
    if not groups:
        return None
    df = sum(len(group) - 1 for group in groups)
    squares = sum(statistics.variance(group) * (len(group) - 1) for group in groups)
    spread = statistics.fmean(p * (1 - p) for group in groups for p in group)
    return Yardstick(squares / df, df, spread)


def borrowed(column: str) -> bool:
    """Whether a column's noise is another task's."""
    return yardstick(_task(column)) is None


def threshold(column: str, one: float, two: float, trained: tuple[bool, bool]) -> float:
    """The difference that chance exceeds in LEVEL of the cases between two single runs.

    column: the heading of a task's column. one, two: the scores, fractions of 1. trained: whether
    each is of a trained model; an untuned one has no run-to-run noise. Degrees of freedom are
    Satterthwaite's; a binomial's are infinite.
    """
    task, questions = tasks()[column]
    known = yardstick(task)
    noise = known or yardstick(_LENDER)
    scores = (one, two)
    run = sum(
        noise.variance if known else noise.at(score)
        for score, is_trained in zip(scores, trained, strict=True)
        if is_trained
    )
    total = run + sum(score * (1 - score) / questions for score in scores)
    df = noise.df * (total / run) ** 2 if run else math.inf
    return float(stdtrit(df, 1 - LEVEL / 2)) * math.sqrt(total)


def inside(column: str, printed: Mapping[int, float], trained: Mapping[int, bool]) -> set[int]:
    """The rows whose printed score is inside the noise of the column's best: not shown to be
    below it. The best itself is not among them.

    printed, trained: by row, the paper's score, and whether it is of a trained model. A column that
    is no task of the paper has no such rows.
    """
    if column not in tasks() or not printed:
        return set()
    best = max(printed, key=printed.__getitem__)
    return {
        row
        for row, score in printed.items()
        if row != best
        and printed[best] - score
        < threshold(column, printed[best], score, (trained[best], trained[row]))
    }


def _task(column: str) -> str | None:
    return tasks()[column][0] if column in tasks() else None
