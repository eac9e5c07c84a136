"""A claim's comparisons, and what they amount to.

A claim is compared part by part: two rows in one column, or the three rows of a share. `comparison`
records what a test said of a part, `findings` what all of them amount to by the claim's kind, for
the words in mofe/report/verdicts.py.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mofe.records import Comparison, TestName
from mofe.report import stats
from mofe.report.answers import Arms
from mofe.report.stats import Contrast, Term, Test
from mofe.report.verdicts import Findings
from mofe.study.claims import SHARE, Claim, RowOf

ROUNDED = 1.25  # times whose ratio is below this are called equal

RowKey = tuple[int | str, str]  # a row: its table and its labels


@dataclass(frozen=True)
class Compared:
    """What a claim compares at once: rows in one column, the one that is claimed to be greater (of
    times: smaller) first. weights: of each row in the difference that is claimed to be above
    zero."""

    column: str
    rows: tuple[RowKey, ...]
    weights: tuple[float, ...] = (1.0, -1.0)


def of_share(column: str, rows: tuple[RowKey, ...], share: float) -> Compared:
    """Three rows, [kept, whole, start], of which the first is claimed to gain a share of what the
    second gains: kept - start - share * (whole - start)."""
    return Compared(column, rows, (1.0, -share, share - 1.0))


def compared(claim: Claim) -> list[Compared]:
    """The comparisons of a claim. Chains of `rising` and `count` become pairs of a row and the one
    before it, those of `flat` all pairs."""
    found = []
    for column, comparisons in claim.parts.items():
        for rows in comparisons:
            named = tuple(key_of(claim, row) for row in rows)
            if claim.kind in ("rising", "count"):
                found += [Compared(column, (b, a)) for a, b in itertools.pairwise(named)]
            elif claim.kind == "flat":
                found += [Compared(column, pair) for pair in itertools.combinations(named, 2)]
            elif claim.kind == SHARE:
                found.append(of_share(column, named, claim.limit))
            else:
                found.append(Compared(column, named))
    return found


def key_of(claim: Claim, row: RowOf) -> RowKey:
    """The row that a claim names."""
    return (row.table or claim.table, row.row)


# ------------------------------------------------------------------------- part by part


def negated(test: Test) -> Test:
    """The test of the difference the other way round."""
    return replace(test, difference=-test.difference, low=-test.high, high=-test.low)


def moved(test: Test, by: float) -> Test:
    """The test of the difference plus a constant."""
    difference = test.difference + by
    return replace(
        test,
        difference=difference,
        low=test.low + by,
        high=test.high + by,
        p=float(stats.two_sided(difference, test.stderr, test.df)),
    )


def contrast(found: Arms, parts: Sequence[Compared]) -> Contrast:
    """The mean of the parts' differences."""
    terms = [
        Term(found.rows[row], part.column, weight / len(parts))
        for part in parts
        for row, weight in zip(part.rows, part.weights, strict=True)
    ]
    return Contrast(found.arms, terms, found.clusters)


def comparison(part: Compared, test: Test, how: TestName, same: bool) -> Comparison:
    """What a test said of a part. same: whether its first two rows are one function."""
    return Comparison(
        column=part.column,
        first=part.rows[0][1],
        second=part.rows[1][1],
        test=how,
        difference=test.difference,
        low=test.low,
        high=test.high,
        stderr=test.stderr,
        df=test.df if math.isfinite(test.df) else None,
        p=test.p,
        these_low=test.these.low if test.these and how == "crossed" else None,
        these_high=test.these.high if test.these and how == "crossed" else None,
        seeds=0 if how == "printed" else test.seeds,
        identical=same,
        least=None if same or how == "log ratio" else stats.least_effect_of(test),
    )


def untested(
    pair: Compared, how: TestName, difference: float, low: float, high: float, seeds: int
) -> Comparison:
    """A pair of which a difference and its bounds are known, and no noise."""
    return Comparison(
        column=pair.column,
        first=pair.rows[0][1],
        second=pair.rows[1][1],
        test=how,
        difference=difference,
        low=low,
        high=high,
        stderr=None,
        df=None,
        p=None,
        seeds=seeds,
        identical=False,
    )


def mean_of(shown: Sequence[Comparison], test: Test, how: TestName) -> Comparison:
    """The mean over all parts, as a comparison."""
    columns = " and ".join(dict.fromkeys(part.column for part in shown))
    whole = comparison(Compared(columns, (("", ""), ("", ""))), test, how, same=False)
    return whole.model_copy(update={"first": f"mean of {len(shown)} parts", "second": ""})


def weakest(
    claim: Claim, shown: Sequence[Comparison], tests: Sequence[Test], margin: float
) -> Comparison:
    """The part that decides: the one that speaks least for the claim by its p and direction, or of
    `some` most; of `equal` and `flat` the one that is least surely within the margin. tests: of
    the parts, and margin, as `findings` takes them."""

    def speaks(test: Test) -> tuple[float, float]:
        if claim.kind in ("equal", "flat"):
            return (-stats.tost(test, margin), -abs(test.difference))
        odds = test.difference / test.stderr if test.stderr else test.difference
        return (math.copysign(1 - test.p, test.difference), odds)

    found = sorted(range(len(tests)), key=lambda number: speaks(tests[number]))
    return shown[found[-1 if claim.kind == "some" else 0]]


# --------------------------------------------------------------------- what they amount to


def findings(claim: Claim, tests: Sequence[Test], margin: float) -> Findings:
    """What the parts of a claim amount to, by its kind."""
    if claim.kind == "equal":
        return equality(tests, margin)
    equal = max(stats.tost(test, margin) for test in tests) if margin else None
    if claim.kind == "some":
        return Findings(
            p=stats.some(tests),
            opposed=stats.joint([negated(test) for test in tests]),
            equal=equal,
            points=any(test.difference > 0 for test in tests),
        )
    return Findings(
        p=stats.joint(tests),
        opposed=stats.contradicting(tests),
        equal=equal,
        points=all(test.difference > 0 for test in tests),
    )


def equality(tests: Sequence[Test], margin: float) -> Findings:
    """Of a claim that no part differs by more than the margin; opposed: that some part does."""
    apart = [
        float(stats.two_sided(max(0.0, abs(t.difference) - margin), t.stderr, t.df)) for t in tests
    ]
    equal = max(stats.tost(test, margin) for test in tests)
    return Findings(p=equal, opposed=min(stats.holm(apart)), equal=equal)


def counts(
    claim: Claim, values: Mapping[tuple[int | str, str, str], float], seeds: int
) -> tuple[list[Comparison], bool, str | None]:
    """The comparisons of whole numbers, whether the claim holds, and how constant its constants
    are."""
    shown = []
    for pair in compared(claim):
        first, second = (values[(*row, pair.column)] for row in pair.rows)
        more = first - second
        shown.append(untested(pair, "count", more, more, more, seeds))
    holds, said = all(part.difference > 0 for part in shown), []
    for column, groups in claim.constant.items():
        for group in groups:
            found = [values[(*key_of(claim, row), column)] for row in group]
            holds &= _alike_to_two_digits(found)
            said.append(f"constant to two digits: {min(found):,.0f} to {max(found):,.0f}")
    return shown, holds, "; ".join(said).capitalize() + "." if said else None


def _alike_to_two_digits(values: Sequence[float]) -> bool:
    """Whether numbers lie within half a unit of the greatest one's second digit, on whichever side
    of where it is rounded up."""
    greatest = max(values)
    half = 10.0 ** (math.floor(math.log10(greatest)) - 1) / 2 if greatest > 0 else 0.0
    return greatest - min(values) <= half
