"""Claims, judged: the paper's numbers tested again, and what a study's records show.

`judge` makes the record of one claim from the files of its cells. `correct` takes all claims of a study,
corrects p over the claims of a section (Holm) and counts. mofe/report/stats.py has the tests,
mofe/report/verdicts.py the words.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from mofe import paper, records
from mofe.paper import BENCHMARKS
from mofe.records import ClaimRecord, ClaimsRecord, Comparison, Judgement, LeastEffect, TrainRecord
from mofe.report import noise, stats, verdicts
from mofe.report.answers import MANY_PARTS, Arms, Evaluation, Reader, arms
from mofe.report.stats import Contrast, PrintedScore, Term, Test
from mofe.report.verdicts import Evidence
from mofe.study.claims import TIMED, Claim, RowOf
from mofe.study.tables import Cell, Row, Table
from mofe.study.values import LABEL_SEPARATOR

ROUNDED = 1.25  # times whose ratio is below this are called equal
ITEM_SD = 0.4  # of a question's expected difference; 0.19 to 0.48 in the miniature
SEEDS = (1, 3, 5, 10, 20, 100, None)  # for which the least effect is stated; None is any number

Named = tuple[int | str, str]  # a row: its table and its labels


@dataclass(frozen=True)
class Part:
    """A comparison of a claim: rows in order, in one column."""

    column: str
    rows: tuple[Named, ...]


def parts(claim: Claim) -> list[Part]:
    """The comparisons of a claim. Chains of `rising` and `count` become pairs of a row and the one
    before it, those of `flat` all pairs."""
    found = []
    for column, comparisons in claim.parts.items():
        for rows in comparisons:
            named = tuple(_named(claim, row) for row in rows)
            if claim.kind in ("rising", "count"):
                found += [Part(column, (b, a)) for a, b in itertools.pairwise(named)]
            elif claim.kind == "flat":
                found += [Part(column, pair) for pair in itertools.combinations(named, 2)]
            else:
                found.append(Part(column, named))
    return found


def _named(claim: Claim, row: RowOf) -> Named:
    return (row.table or claim.table, row.row)


# ------------------------------------------------------------------- the paper's numbers again


def of_paper(claim: Claim) -> tuple[Judgement | None, Judgement | None]:
    """The verdict on the paper's printed numbers, and the same in another reading where there is one.

    With `runs`, the first takes those rows as runs of one function, the second every row as a model.
    (None, None) where the paper does not print every cell.
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


def _value(row: Named, column: str) -> float:
    return paper.cells()[(*row, column)].value


def _printed_scores(claim: Claim, group: Mapping[str, tuple[str, ...]]) -> Judgement:
    """group: the rows that are runs of one function with a row, by the row's labels."""
    scored: dict[Part, list[PrintedScore]] = {}
    for part in parts(claim):
        (table, first), (_, second) = part.rows
        rows = [group.get(label, (label,)) for label in (first, second)]
        key = Part(part.column, tuple((table, " = ".join(labels)) for labels in rows))
        scored[key] = noise.pair(table, *rows, part.column)
    tests = {part: stats.printed(scores) for part, scores in scored.items()}
    compared = [_comparison(part, test, "printed", same=False) for part, test in tests.items()]
    if claim.kind == "mean":
        test = stats.printed(
            [replace(s, weight=s.weight / len(scored)) for ss in scored.values() for s in ss]
        )
        summary = _mean_of(compared, test, "printed")
        evidence = _evidence(claim, [test], margin=0.0)
    else:
        summary = _weakest(claim, compared)
        evidence = _evidence(claim, list(tests.values()), margin=0.0)
    borrowed = _all_borrowed(claim, list(tests.values()))
    return Judgement(
        verdict=verdicts.printed(replace(evidence, decides=not borrowed)),
        reason="The noise is borrowed from MedMCQA, so it decides nothing alone."
        if borrowed
        else None,
        p=evidence.p,
        summary=summary,
        parts=compared,
    )


def _all_borrowed(claim: Claim, tests: Sequence[Test]) -> bool:
    """Whether a verdict would rest on borrowed noise alone. One of `some` rests on the parts that are
    found."""
    found = tests
    if claim.kind == "some":
        ps = stats.holm([test.p if test.difference > 0 else 1.0 for test in tests])
        found = [t for t, p in zip(tests, ps, strict=True) if p < stats.LEVEL] or tests
    return all(test.borrowed for test in found)


def _printed_times(claim: Claim) -> Judgement:
    """Hours are printed whole, so a ratio is an interval of rounding, and nothing else is known of
    their noise."""
    compared, beyond = [], []
    for part in parts(claim):
        first, second = (_value(row, part.column) for row in part.rows)
        low, high = stats.ratio_of_printed(first, second)
        beyond.append(
            {
                "less": high < claim.ratio,
                "rising": low > 1,
                "flat": 1 / ROUNDED < low < high < ROUNDED,
            }[claim.kind]
        )
        compared.append(
            Comparison(
                column=part.column,
                first=part.rows[0][1],
                second=part.rows[1][1],
                test="rounding",
                difference=first / second,
                low=low,
                high=high,
                stderr=None,
                df=None,
                p=None,
                seeds=0,
                identical=False,
            )
        )
    return Judgement(
        verdict="beyond its noise" if all(beyond) else "inside its noise",
        reason="Beyond what rounding to whole hours can hide; times have no other noise here."
        if all(beyond)
        else "Rounding to whole hours could hide it.",
        summary=_weakest(claim, compared),
        parts=compared,
    )


def _printed_counts(claim: Claim) -> Judgement:
    values = {
        (cell.table, cell.row, cell.column): paper.cells()[cell.table, cell.row, cell.column].value
        for cell in claim.cells()
    }
    compared, holds, _ = _counted(claim, values, seeds=0)
    return Judgement(
        verdict="exact" if holds else "inside its noise",
        reason="Counts have no noise.",
        summary=compared[0],
        parts=compared,
    )


# ----------------------------------------------------------------------------- a study's records


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
    their files; None where the study leaves one of its cells out or is not asked.

    p is not yet corrected for other claims. Raises ValueError where a record is not whole and where
    two rows answered different questions.
    """
    again, by_part = of_paper(claim)
    files: list[str] = []
    if not claim.is_asked(conditions.scale):
        shown = Judgement(verdict="cannot be asked here", reason=claim.cannot)
    elif tables is None:
        shown = Judgement(verdict="not run", reason="The study leaves out a row or column of it.")
    else:
        rows = {
            (table.number, LABEL_SEPARATOR.join(row.labels)): row
            for table in tables
            for row in table.rows
        }
        shown, files = _of_study(claim, rows, conditions)
    at_paper_scale = conditions.scale == "paper"
    if at_paper_scale:
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
    claim: Claim, rows: Mapping[Named, Row], conditions: Conditions
) -> tuple[Judgement, list[str]]:
    if claim.kind == "count":
        return _study_counts(claim, rows)
    if claim.kind in TIMED:
        return _study_times(claim, rows, conditions)
    return _study_scores(claim, rows, conditions)


def _study_scores(
    claim: Claim, rows: Mapping[Named, Row], conditions: Conditions
) -> tuple[Judgement, list[str]]:
    found = arms(rows, Reader())
    compared: dict[tuple[str, int, int], Part] = {}
    for part in parts(claim):
        first, second = (found.rows[row] for row in part.rows)
        compared.setdefault((part.column, first, second), part)
    contrasts = {part: _contrast(found, [part]) for part in compared.values()}
    one_seed = any(arm.seeded and arm.seeds == 1 for arm in found.arms)
    test = stats.of_these_models if one_seed else stats.crossed
    tests = {part: test(contrast) for part, contrast in contrasts.items()}
    shown = [_measured(part, tests[part], found, one_seed) for part in tests]
    if claim.kind == "mean":
        mean = test(_contrast(found, list(tests)))
        summary = _mean_of(shown, mean, shown[0].test)
        evidence = _evidence(claim, [mean], conditions.margin)
    else:
        summary = _weakest(claim, shown)
        evidence = _evidence(claim, list(tests.values()), conditions.margin)
    evidence = replace(
        evidence,
        exact=claim.kind == "equal" and all(part.identical for part in shown),
        decides=not one_seed,
    )
    stuck = None if evidence.exact else _stuck(found, list(tests), conditions)
    if stuck and conditions.scale == "miniature":
        verdict, reason = "cannot be asked here", stuck
    else:
        verdict = verdicts.of_study(evidence, claims_equality=claim.kind == "equal")
        reason = _why(claim, evidence, shown, one_seed)
    return (
        Judgement(
            verdict=verdict,
            reason=reason,
            p=evidence.p,
            opposed=evidence.opposed,
            equal=evidence.equal,
            summary=summary,
            parts=shown,
        ),
        found.files,
    )


def _contrast(found: Arms, compared: Sequence[Part]) -> Contrast:
    """The mean of the first rows less the mean of the second ones."""
    weight = 1 / len(compared)
    terms = [
        Term(found.rows[row], part.column, sign * weight)
        for part in compared
        for row, sign in zip(part.rows, (1, -1), strict=True)
    ]
    return Contrast(found.arms, terms, found.clusters)


def _measured(part: Part, test: Test, found: Arms, one_seed: bool) -> Comparison:
    first, second = (found.rows[row] for row in part.rows)
    seeded = any(found.arms[arm].seeded for arm in (first, second))
    how = "questions" if not seeded else "McNemar" if one_seed else "crossed"
    shown = _comparison(part, test, how, same=first == second)
    if how == "McNemar" and first != second:
        scores = (found.arms[arm].scores[part.column][0] for arm in (first, second))
        shown = shown.model_copy(update={"p": _mcnemar(*scores, test)})
    groups = found.parts[part.column]
    if first != second and len(set(groups)) >= MANY_PARTS and not one_seed:
        contrast = replace(_contrast(found, [part]), clusters={part.column: groups})
        look = stats.crossed(contrast)
        shown = shown.model_copy(update={"by_group_low": look.low, "by_group_high": look.high})
    return shown


def _mcnemar(first, second, test: Test) -> float:
    """McNemar's exact p of two models' answers; of scores that are not 0 or 1 that of the t test."""
    whole = all(((scores == 0) | (scores == 1)).all() for scores in (first, second))
    return stats.mcnemar(first, second).p if whole else test.p


def _stuck(found: Arms, compared: Sequence[Part], conditions: Conditions) -> str | None:
    """Why nothing can be asked: all compared rows stand within one standard error of the task's floor
    or of its ceiling."""
    standing = [
        found.evaluations[found.rows[row]][part.column] for part in compared for row in part.rows
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


def _why(
    claim: Claim, evidence: Evidence, shown: Sequence[Comparison], one_seed: bool
) -> str | None:
    """What a verdict rests on, where the words alone would mislead."""
    if evidence.exact:
        return claim.exact or "All answers are the same, question by question."
    if one_seed:
        differ = sum(part.p is not None and part.p < stats.LEVEL for part in shown)
        return (
            f"One seed says nothing about other seeds: in {differ} of {len(shown)} comparisons these two "
            "models differ (McNemar)."
        )
    left_out = len(parts(claim)) - len(shown)
    if left_out:
        return (
            f"{left_out} of {len(parts(claim))} parts compare functions that another part compares, and "
            "do not count again."
        )
    return None


def _study_times(
    claim: Claim, rows: Mapping[Named, Row], conditions: Conditions
) -> tuple[Judgement, list[str]]:
    """Times are compared only where every training had a machine to itself, of one kind."""
    cells = {(name, cell.column): cell for name, row in rows.items() for cell in row.cells}
    runs = {at: _runs(cell) for at, cell in cells.items()}
    files = list(
        dict.fromkeys(f for cell in cells.values() for stages in cell.files for f in stages)
    )
    machines = {run.hardware for seeds in runs.values() for stages in seeds for run in stages}
    if not conditions.exclusive:
        why = "Trainings may have shared a machine; set hardware.exclusive where each had one to itself."
        return Judgement(verdict="not run", reason=why), files
    if len(machines) > 1:
        why = f"The trainings ran on {len(machines)} kinds of machines."
        return Judgement(verdict="not run", reason=why), files
    seconds = {
        at: [sum(run.device_seconds for run in stages) for stages in seeds]
        for at, seeds in runs.items()
    }
    tests, shown = [], []
    for part in parts(claim):
        first, second = (seconds[row, part.column] for row in part.rows)
        if min(len(first), len(second)) < 2:
            why = "One seed has one time, and no noise to compare it with."
            return Judgement(verdict="undecided", reason=why), files
        test = stats.log_ratio(first, second)
        ratio = {name: math.exp(getattr(test, name)) for name in ("difference", "low", "high")}
        shown.append(_comparison(part, test, "log ratio", same=False).model_copy(update=ratio))
        if claim.kind == "less":  # below the ratio: log(ratio) less the difference is above zero
            test = _negated(_moved(test, -math.log(claim.ratio)))
        tests.append(test)
    if claim.kind == "flat":
        points = all(1 / ROUNDED < c.difference < ROUNDED for c in shown)
        evidence = replace(_equality(tests, math.log(ROUNDED)), equal=None, points=points)
    else:
        evidence = _evidence(claim, tests, margin=0.0)
    judged = Judgement(
        verdict=verdicts.of_study(evidence),
        p=evidence.p,
        opposed=evidence.opposed,
        summary=_weakest(claim, shown),
        parts=shown,
    )
    return judged, files


def _runs(cell: Cell) -> list[list[TrainRecord]]:
    return [[records.read(file, TrainRecord) for file in stages] for stages in cell.files]


def _study_counts(claim: Claim, rows: Mapping[Named, Row]) -> tuple[Judgement, list[str]]:
    cells = {(*name, cell.column): cell for name, row in rows.items() for cell in row.cells}
    last = {at: [stages[-1] for stages in cell.files] for at, cell in cells.items()}
    counts = {
        at: float(records.read(files[0], TrainRecord).trainable_parameters)
        for at, files in last.items()
    }
    seeds = min(map(len, last.values()))
    shown, holds, reason = _counted(claim, counts, seeds)
    judged = Judgement(
        verdict="exact" if holds else "contradicted", reason=reason, summary=shown[0], parts=shown
    )
    return judged, list(dict.fromkeys(file for files in last.values() for file in files))


def _counted(
    claim: Claim, values: Mapping[tuple[int | str, str, str], float], seeds: int
) -> tuple[list[Comparison], bool, str | None]:
    """The comparisons of whole numbers, whether the claim holds, and how constant its constants
    are."""
    shown = []
    for part in parts(claim):
        first, second = (values[(*row, part.column)] for row in part.rows)
        shown.append(
            Comparison(
                column=part.column,
                first=part.rows[0][1],
                second=part.rows[1][1],
                test="count",
                difference=first - second,
                low=first - second,
                high=first - second,
                stderr=None,
                df=None,
                p=None,
                seeds=seeds,
                identical=False,
            )
        )
    holds, said = all(part.difference > 0 for part in shown), []
    for column, groups in claim.constant.items():
        for group in groups:
            found = [values[(*_named(claim, row), column)] for row in group]
            holds &= _alike_to_two_digits(found)
            said.append(f"constant to two digits: {min(found):,.0f} to {max(found):,.0f}")
    return shown, holds, "; ".join(said).capitalize() + "." if said else None


def _alike_to_two_digits(values: Sequence[float]) -> bool:
    """Whether numbers lie within half a unit of the greatest one's second digit, on whichever side of
    where it is rounded up."""
    greatest = max(values)
    half = 10.0 ** (math.floor(math.log10(greatest)) - 1) / 2 if greatest > 0 else 0.0
    return greatest - min(values) <= half


# --------------------------------------------------------------------------- what parts amount to


def _evidence(claim: Claim, tests: Sequence[Test], margin: float) -> Evidence:
    """What the parts of a claim amount to, by its kind."""
    if claim.kind == "equal":
        return _equality(tests, margin)
    equal = max(stats.tost(test, margin) for test in tests) if margin else None
    if claim.kind == "some":
        return Evidence(
            p=stats.some(tests),
            opposed=stats.joint([_negated(test) for test in tests]),
            equal=equal,
            points=any(test.difference > 0 for test in tests),
        )
    return Evidence(
        p=stats.joint(tests),
        opposed=stats.contradicting(tests),
        equal=equal,
        points=all(test.difference > 0 for test in tests),
    )


def _equality(tests: Sequence[Test], margin: float) -> Evidence:
    """Of a claim that no part differs by more than the margin; opposed: that some part does."""
    apart = [
        float(stats.two_sided(max(0.0, abs(t.difference) - margin), t.stderr, t.df)) for t in tests
    ]
    equal = max(stats.tost(test, margin) for test in tests)
    return Evidence(p=equal, opposed=min(stats.holm(apart)), equal=equal)


def _negated(test: Test) -> Test:
    return replace(test, difference=-test.difference, low=-test.high, high=-test.low)


def _moved(test: Test, by: float) -> Test:
    """The test of the difference plus a constant."""
    difference = test.difference + by
    return replace(
        test,
        difference=difference,
        low=test.low + by,
        high=test.high + by,
        p=float(stats.two_sided(difference, test.stderr, test.df)),
    )


def _comparison(part: Part, test: Test, how: records.Test, same: bool) -> Comparison:
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


def _mean_of(shown: Sequence[Comparison], test: Test, how: records.Test) -> Comparison:
    """The mean over all parts, as a comparison."""
    columns = " and ".join(dict.fromkeys(part.column for part in shown))
    whole = _comparison(Part(columns, (("", ""), ("", ""))), test, how, same=False)
    return whole.model_copy(update={"first": f"mean of {len(shown)} parts", "second": ""})


def _weakest(claim: Claim, shown: Sequence[Comparison]) -> Comparison:
    """The part that speaks least for the claim; of `some` the one that speaks most for it, of
    `equal` the greatest difference."""

    def speaks(part: Comparison) -> float:
        if claim.kind == "equal":
            return -abs(part.difference)
        if claim.kind == "flat":
            return -abs(math.log(part.difference))
        size = part.difference
        if claim.kind in TIMED:  # a ratio, whose standard error is its logarithm's
            size = math.log(size / claim.ratio) * (-1 if claim.kind == "less" else 1)
        return size / part.stderr if part.stderr else size

    return max(shown, key=speaks) if claim.kind == "some" else min(shown, key=speaks)


# ------------------------------------------------------------------------------ all claims at once


def correct(claims: Sequence[ClaimRecord], seeds: int) -> ClaimsRecord:
    """All claims of a study, p corrected over the claims of each section (Holm), and counted.

    Counts are of the paper's claims, on its own numbers and at its scale; no other study is counted.
    """
    found = list(claims)
    for column in ("printed", "printed_again", "paper_scale", "here"):
        found = _corrected(found, column)
    ours = [claim for claim in found if claim.in_paper]
    one = found[0]
    return ClaimsRecord(
        study=one.study,
        scale=one.scale,
        seeds=seeds,
        margin=one.margin,
        printed_counts=counted(c.printed for c in ours if c.printed),
        paper_scale_counts=counted(c.paper_scale for c in ours),
        claims=found,
        least=least_effects(),
        noise=noise.bands(),
    )


def counted(judgements: Iterable[Judgement]) -> dict[str, int]:
    """How many have each verdict."""
    return dict(Counter(judged.verdict for judged in judgements))


def _corrected(claims: Sequence[ClaimRecord], column: str) -> list[ClaimRecord]:
    """The claims with one column's p corrected."""
    judged = {c.claim: (c.section, found) for c in claims if (found := getattr(c, column))}
    corrected = holm_by_section(judged)
    return [c.model_copy(update={column: corrected.get(c.claim)}) for c in claims]


def holm_by_section(judged: Mapping[str, tuple[str, Judgement]]) -> dict[str, Judgement]:
    """Verdicts after Holm's correction. judged: by claim, its section and its verdict."""
    found = {name: judgement for name, (_, judgement) in judged.items()}
    sections: dict[str, list[str]] = {}
    for name, (section, judgement) in judged.items():
        if judgement.p is not None and judgement.verdict not in ("exact", "cannot be asked here"):
            sections.setdefault(section, []).append(name)
    for family in sections.values():
        corrected = stats.holm([found[name].p for name in family])
        for name, p in zip(family, corrected, strict=True):
            judgement = found[name]
            verdict = verdicts.corrected(judgement.verdict, judgement.p, p, judgement.equal)
            found[name] = judgement.model_copy(update={"p_holm": p, "verdict": verdict})
    return found


def of_paper_alone(
    claims: Mapping[str, Claim],
) -> dict[str, tuple[Claim, Judgement, Judgement | None]]:
    """Every claim that the paper's printed numbers can be asked, its verdict after the correction,
    and its verdict in another reading."""
    read = {name: of_paper(claim) for name, claim in claims.items()}
    judged = {n: (claims[n].section, first) for n, (first, _) in read.items() if first}
    corrected = holm_by_section(judged)
    return {name: (claims[name], corrected[name], read[name][1]) for name in corrected}


def least_effects() -> list[LeastEffect]:
    """The least difference that 80% of studies of the paper's size would find, by benchmark and
    number of seeds, with the paper's own run-to-run noise. One seed takes the paper's yardstick."""
    found = []
    for heading in ("MMLU", "MedMCQA", "PubMedQA", "Finance"):
        yardstick = noise.typical(heading)
        questions = BENCHMARKS[heading].questions
        for seeds in SEEDS:
            design = (questions, math.inf if seeds is None else seeds)
            df = yardstick.df if seeds == 1 else None
            new, these = (
                stats.least_effect(yardstick.sd, sd, *design, yardstick_df=df)
                for sd in (ITEM_SD, 0.0)
            )
            found.append(
                LeastEffect(task=heading, questions=questions, seeds=seeds, new=new, these=these)
            )
    return found
