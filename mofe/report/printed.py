"""The paper's own numbers, tested again: is a printed difference larger than their noise?

Nothing is run for this. mofe/report/noise.py has the noise of the paper's scores; its hours are
known to rounding alone, and counts have no noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

from mofe import paper
from mofe.records import Comparison, Judgement
from mofe.report import noise, stats, verdicts
from mofe.report.parts import (
    ROUNDED,
    Compared,
    RowKey,
    compared,
    comparison,
    counts,
    findings,
    mean_of,
    untested,
    weakest,
)
from mofe.report.stats import PrintedScore, Test
from mofe.study.claims import TIMED, Claim


def of_paper(claim: Claim) -> tuple[Judgement | None, Judgement | None]:
    """The verdict on the paper's printed numbers, and the same in another reading where there is
    one.

    With `runs`, the first takes those rows as runs of one function, the second every row as a
    model. (None, None) where the paper does not print every cell.
    """
    if not claim.in_paper and claim.exact is None:
        return None, None
    if any(paper.printed(c.table, c.row, c.column) is None for c in claim.cells()):
        return None, None
    if not claim.in_paper:  # what follows from a definition needs no printed number
        return Judgement(verdict="exact", reason=claim.exact), None
    if claim.kind == "count":
        return _printed_counts(claim), None
    if claim.kind in TIMED:
        return _printed_times(claim), None
    if not claim.runs:
        return _printed_scores(claim, {}), None
    group = {row.row: tuple(r.row for r in rows) for rows in claim.runs for row in rows}
    as_runs = _printed_scores(claim, group)
    by_part = _printed_scores(claim, {})
    inside = sum(part.p >= stats.LEVEL for part in by_part.parts)
    return (
        as_runs.model_copy(
            update={
                "reading": "rows that are one function, as runs of it",
                "reason": f"Part by part, {inside} of {len(by_part.parts)} parts are inside.",
            }
        ),
        by_part,
    )


def _value(row: RowKey, column: str) -> float:
    return paper.cells()[(*row, column)].value


def _printed_scores(claim: Claim, group: Mapping[str, tuple[str, ...]]) -> Judgement:
    """group: the rows that are runs of one function with a row, by the row's labels."""
    scored: dict[Compared, list[PrintedScore]] = {}
    for pair in compared(claim):
        (table, first), (_, second) = pair.rows
        rows = [group.get(label, (label,)) for label in (first, second)]
        key = Compared(pair.column, tuple((table, " = ".join(labels)) for labels in rows))
        scored[key] = noise.pair(table, *rows, pair.column)
    tests = {pair: stats.printed(scores) for pair, scores in scored.items()}
    shown = [comparison(pair, test, "printed", same=False) for pair, test in tests.items()]
    if claim.kind == "mean":
        test = stats.printed(
            [replace(s, weight=s.weight / len(scored)) for ss in scored.values() for s in ss]
        )
        summary = mean_of(shown, test, "printed")
        known = findings(claim, [test], margin=0.0)
    else:
        summary = weakest(claim, shown, list(tests.values()), margin=0.0)
        known = findings(claim, list(tests.values()), margin=0.0)
    borrowed = _all_borrowed(claim, list(tests.values()))
    return Judgement(
        verdict=verdicts.printed(replace(known, decides=not borrowed)),
        reason="The noise is borrowed from MedMCQA, so it decides nothing alone."
        if borrowed
        else None,
        p=known.p,
        summary=summary,
        parts=shown,
    )


def _all_borrowed(claim: Claim, tests: Sequence[Test]) -> bool:
    """Whether a verdict would rest on borrowed noise alone. One of `some` rests on the parts that
    are found."""
    found = tests
    if claim.kind == "some":
        ps = stats.holm([test.p if test.difference > 0 else 1.0 for test in tests])
        found = [t for t, p in zip(tests, ps, strict=True) if p < stats.LEVEL] or tests
    return all(test.borrowed for test in found)


def _printed_times(claim: Claim) -> Judgement:
    """Hours are printed whole, so a ratio is an interval of rounding, and nothing else is known of
    their noise."""
    shown, beyond = [], []
    for pair in compared(claim):
        first, second = (_value(row, pair.column) for row in pair.rows)
        low, high = stats.ratio_of_printed(first, second)
        beyond.append(
            {
                "less": high < claim.greatest_ratio,
                "rising": low > 1,
                "flat": 1 / ROUNDED < low < high < ROUNDED,
            }[claim.kind]
        )
        shown.append(untested(pair, "rounding", first / second, low, high, seeds=0))
    return Judgement(
        verdict="beyond its noise" if all(beyond) else "inside its noise",
        reason="Beyond what rounding to whole hours can hide; times have no other noise here."
        if all(beyond)
        else "Rounding to whole hours could hide it.",
        summary=min(shown, key=partial(_speaks, claim)),
        parts=shown,
    )


def _speaks(claim: Claim, ratio: Comparison) -> float:
    """How far a ratio of times speaks for a claim: of `less` how far it is below the greatest one,
    of `rising` above 1, of `flat` how near to 1."""
    size = math.log(ratio.difference)
    if claim.kind == "flat":
        return -abs(size)
    return math.log(claim.greatest_ratio) - size if claim.kind == "less" else size


def _printed_counts(claim: Claim) -> Judgement:
    values = {
        (cell.table, cell.row, cell.column): paper.cells()[cell.table, cell.row, cell.column].value
        for cell in claim.cells()
    }
    shown, holds, _ = counts(claim, values, seeds=0)
    return Judgement(
        verdict="exact" if holds else "inside its noise",
        reason="Counts have no noise.",
        summary=shown[0],
        parts=shown,
    )
