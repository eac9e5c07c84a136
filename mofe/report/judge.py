"""A claim, judged: what a study's records show of it, beside the paper's own numbers.

`judge` makes the record of one claim from the files of its cells. mofe/report/answers.py reads
them, mofe/report/stats.py has the tests, mofe/report/verdicts.py the words.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from mofe import records
from mofe.paper import LABEL_SEPARATOR
from mofe.records import ClaimRecord, Comparison, Judgement, TrainRecord
from mofe.report import printed, shares, stats, verdicts
from mofe.report.answers import MANY_PARTS, Arms, Evaluation, arms
from mofe.report.parts import (
    ROUNDED,
    Compared,
    RowKey,
    compared,
    comparison,
    contrast,
    counts,
    equality,
    findings,
    mean_of,
    moved,
    negated,
    weakest,
)
from mofe.report.stats import Test
from mofe.report.verdicts import Findings
from mofe.study.claims import SHARE, TIMED, Claim
from mofe.study.tables import Cell, Row, Table


@dataclass(frozen=True)
class Conditions:
    """What a study's verdict depends on besides its records.

    study, scale: its name and scale. margin: δ. exclusive: whether each training had its machine
    to itself. ceilings: per task, what the best reader can score, where the world sets one.
    """

    study: str
    scale: records.Scale
    margin: float
    exclusive: bool
    ceilings: Mapping[str, float]


def judge(
    name: str, claim: Claim, tables: Sequence[Table] | None, conditions: Conditions
) -> ClaimRecord:
    """The record of one claim. tables: those that it names, with its rows and columns alone and
    their files; None where the study leaves one of its cells out.

    p is not yet corrected for other claims. Raises ValueError where a record is not whole and where
    two rows answered different questions.
    """
    again, by_part = printed.of_paper(claim)
    files: list[str] = []
    if unasked := claim.unasked(conditions.scale, conditions.exclusive):
        shown = Judgement(verdict=unasked.verdict, reason=unasked.why)
    elif tables is None:
        shown = Judgement(verdict="not run", reason="The study leaves out a row or column of it.")
    else:
        rows = {
            (table.number, LABEL_SEPARATOR.join(row.labels)): row
            for table in tables
            for row in table.rows
        }
        shown, files = _of_study(claim, rows, conditions)
    if conditions.scale == "paper":
        paper_scale, here = shown, None
    else:
        paper_scale = Judgement(verdict="not run", reason="This study is not at the paper's scale.")
        here = shown.model_copy(update={"verdict": verdicts.HERE.get(shown.verdict, shown.verdict)})
    return ClaimRecord(
        claim=name,
        says=claim.says,
        quote=claim.quote,
        place=claim.place,
        section=claim.section,
        kind=claim.kind,
        in_paper=claim.in_paper,
        tables=claim.tables(),
        study=conditions.study,
        scale=conditions.scale,
        margin=conditions.margin,
        printed=again,
        printed_again=by_part,
        paper_scale=paper_scale,
        here=here,
        files=files,
    )


def _of_study(
    claim: Claim, rows: Mapping[RowKey, Row], conditions: Conditions
) -> tuple[Judgement, list[str]]:
    if claim.kind == "count":
        return _study_counts(claim, rows)
    if claim.kind in TIMED:
        return _study_times(claim, rows)
    return _study_scores(claim, rows, conditions)


def _study_scores(
    claim: Claim, rows: Mapping[RowKey, Row], conditions: Conditions
) -> tuple[Judgement, list[str]]:
    found = arms(rows)
    parts: dict[tuple, Compared] = {}
    for part in compared(claim):
        parts.setdefault((part.column, *(found.rows[row] for row in part.rows)), part)
    test = stats.of_these_models if found.one_seed else stats.crossed
    tests = {part: test(contrast(found, [part])) for part in parts.values()}
    shown = [_measured(claim, part, tested, found) for part, tested in tests.items()]
    if claim.kind == "mean":
        mean = test(contrast(found, list(tests)))
        summary = mean_of(shown, mean, shown[0].test)
        known = findings(claim, [mean], conditions.margin)
    else:
        margin = 0.0 if claim.kind == SHARE else conditions.margin  # a share is no likeness
        summary = weakest(claim, shown, list(tests.values()), margin)
        known = findings(claim, list(tests.values()), margin)
    known = replace(
        known,
        exact=claim.kind == "equal" and all(part.identical for part in shown),
        decides=not found.one_seed and not any(map(shares.is_of_loss, shown)),
    )
    stuck = None if known.exact else _stuck(found, list(tests), conditions)
    if stuck and conditions.scale == "miniature":
        verdict, reason = "cannot be asked here", stuck
    else:
        verdict = verdicts.of_study(known, claims_equality=claim.kind == "equal")
        reason = _why(claim, known, shown, found.one_seed)
    return (
        Judgement(
            verdict=verdict,
            reason=reason,
            p=None if known.exact else known.p,
            opposed=known.opposed,
            equal=known.equal,
            summary=summary,
            parts=shown,
        ),
        found.files,
    )


def _measured(claim: Claim, part: Compared, test: Test, found: Arms) -> Comparison:
    first, second, *start = (found.rows[row] for row in part.rows)
    seeded = any(found.arms[arm].seeded for arm in (first, second, *start))
    of_two = "questions" if start else "McNemar"
    how = "questions" if not seeded else of_two if found.one_seed else "crossed"
    shown = comparison(part, test, how, same=first == second)
    if how == "McNemar" and first != second:
        scores = (found.arms[arm].scores[part.column][0] for arm in (first, second))
        shown = shown.model_copy(update={"p": _mcnemar(*scores, test)})
    groups = found.parts[part.column]
    if first != second and len(set(groups)) >= MANY_PARTS and not found.one_seed:
        look = stats.crossed(replace(contrast(found, [part]), clusters={part.column: groups}))
        shown = shown.model_copy(update={"by_group_low": look.low, "by_group_high": look.high})
    if claim.kind == SHARE:
        share = shares.kept(found, part.column, part.rows)
        told = shares.record(part.rows[2][1], claim.limit, share)
        shown = shown.model_copy(update={"kept": told})
    return shown


def _mcnemar(first, second, test: Test) -> float:
    """McNemar's exact p of two models' answers; of scores that are not 0 or 1 that of the t
    test."""
    whole = all(((scores == 0) | (scores == 1)).all() for scores in (first, second))
    return stats.mcnemar(first, second).p if whole else test.p


def _stuck(found: Arms, parts: Sequence[Compared], conditions: Conditions) -> str | None:
    """Why nothing can be asked: all compared rows stand within one standard error of the task's
    floor or of its ceiling."""
    standing = [
        found.evaluations[found.rows[row]][part.column] for part in parts for row in part.rows
    ]
    for kind, limits in (
        ("floor", [seeds[0].floor for seeds in standing]),
        ("ceiling", [conditions.ceilings.get(seeds[0].task, 1.0) for seeds in standing]),
    ):
        if all(map(_stands_at, limits, standing)):
            return f"All compared rows stand within one standard error of the task's {kind}."
    return None


def _stands_at(limit: float | None, seeds: Sequence[Evaluation]) -> bool:
    if limit is None:
        return False
    stderr = math.sqrt(fmean(evaluation.stderr**2 for evaluation in seeds))
    return abs(fmean(evaluation.scores.mean() for evaluation in seeds) - limit) <= stderr


def _why(claim: Claim, known: Findings, shown: Sequence[Comparison], one_seed: bool) -> str | None:
    """What a verdict rests on, where the words alone would mislead."""
    if known.exact:
        return claim.exact or "All answers are the same, question by question."
    if one_seed and claim.kind == SHARE:
        return "One seed says nothing about other seeds: the shares are those of these very models."
    if one_seed:
        differ = sum(part.p is not None and part.p < stats.LEVEL for part in shown)
        return (
            f"One seed says nothing about other seeds: in {differ} of {len(shown)} comparisons "
            "these two models differ (McNemar)."
        )
    said = [of_shares] if (of_shares := shares.reason(shown)) else []
    if left_out := len(compared(claim)) - len(shown):
        said.append(
            f"{left_out} of {len(compared(claim))} parts compare functions that another part "
            "compares, and do not count again."
        )
    return " ".join(said) or None


def _study_times(claim: Claim, rows: Mapping[RowKey, Row]) -> tuple[Judgement, list[str]]:
    """Times are compared only where all machines are of one kind. That each training had one to
    itself is known by then (Claim.unasked)."""
    cells = {(name, cell.column): cell for name, row in rows.items() for cell in row.cells}
    runs = {at: _runs(cell) for at, cell in cells.items()}
    files = list(
        dict.fromkeys(f for cell in cells.values() for stages in cell.files for f in stages)
    )
    machines = {run.hardware for seeds in runs.values() for stages in seeds for run in stages}
    if len(machines) > 1:
        why = f"The trainings ran on {len(machines)} kinds of machines."
        return Judgement(verdict="not run", reason=why), files
    seconds = {
        at: [sum(run.device_seconds for run in stages) for stages in seeds]
        for at, seeds in runs.items()
    }
    tests, shown = [], []
    for pair in compared(claim):
        first, second = (seconds[row, pair.column] for row in pair.rows)
        if min(len(first), len(second)) < 2:
            why = "One seed has one time, and no noise to compare it with."
            return Judgement(verdict="undecided", reason=why), files
        test = stats.log_ratio(first, second)
        ratio = {name: math.exp(getattr(test, name)) for name in ("difference", "low", "high")}
        shown.append(comparison(pair, test, "log ratio", same=False).model_copy(update=ratio))
        if claim.kind == "less":  # below the ratio: log(ratio) less the difference is above zero
            test = negated(moved(test, -math.log(claim.greatest_ratio)))
        tests.append(test)
    margin = math.log(ROUNDED)
    if claim.kind == "flat":
        points = all(1 / ROUNDED < c.difference < ROUNDED for c in shown)
        known = replace(equality(tests, margin), equal=None, points=points)
    else:
        known = findings(claim, tests, margin=0.0)
    judged = Judgement(
        verdict=verdicts.of_study(known),
        p=known.p,
        opposed=known.opposed,
        summary=weakest(claim, shown, tests, margin),
        parts=shown,
    )
    return judged, files


def _runs(cell: Cell) -> list[list[TrainRecord]]:
    return [[records.read(file, TrainRecord) for file in stages] for stages in cell.files]


def _study_counts(claim: Claim, rows: Mapping[RowKey, Row]) -> tuple[Judgement, list[str]]:
    cells = {(*name, cell.column): cell for name, row in rows.items() for cell in row.cells}
    last = {at: [stages[-1] for stages in cell.files] for at, cell in cells.items()}
    trained = {
        at: float(records.read(files[0], TrainRecord).trainable_parameters)
        for at, files in last.items()
    }
    seeds = min(map(len, last.values()))
    shown, holds, reason = counts(claim, trained, seeds)
    judged = Judgement(
        verdict="exact" if holds else "contradicted", reason=reason, summary=shown[0], parts=shown
    )
    return judged, list(dict.fromkeys(file for files in last.values() for file in files))
