"""Claims that several studies were asked, such as the miniature in other worlds.

A study's interval is for new seeds and new questions of its own world, its base and its data. What
is said of all such studies needs several of them: here each is one observation, and a claim's
difference is tested by how much the studies differ in it (stats.replicated).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from mofe import records
from mofe.files import write_atomic
from mofe.markdown import plain
from mofe.markdown import table as markdown_table
from mofe.records import ClaimRecord, Comparison, Judgement, Replicated, ReplicationsRecord
from mofe.report import correction, stats, verdicts
from mofe.report.claims import numbers, points, study_verdict
from mofe.report.parts import Compared, comparison, findings, mean_of, weakest
from mofe.study.claims import Claim

_ASKED_NOT = ("cannot be asked here", "not run")
_Key = tuple[str, str, str]  # a part: its column and its two rows


def write(
    claims: Mapping[str, Mapping[str, Any]],
    asked: Sequence[str | os.PathLike],
    json: str | os.PathLike,
    md: str | os.PathLike,
) -> str:
    """Compare claims over studies and write both files; returns a line for the user.

    claims: the configuration's, by name. asked: the JSON of every claim of this study, then those
    of every other one, in the order of `claims`. Raises ValueError as `pool` and
    `refuse_twins`.
    """
    found = [records.read(file, ClaimRecord) for file in asked]
    by_claim = {
        name: pool(Claim.model_validate(claim), found[at :: len(claims)])
        for at, (name, claim) in enumerate(claims.items())
    }
    record = of_studies(by_claim.values())
    refuse_twins(record)
    records.write(json, record)
    write_atomic(md, markdown(record))
    return f"{len(record.claims)} claims in {len(record.studies)} studies"


def of_studies(claims: Sequence[Replicated]) -> ReplicationsRecord:
    """All replicated claims, p corrected over those of a section (Holm)."""
    claims = list(claims)
    judged = {c.pooled.claim: (c.pooled.section, study_verdict(c.pooled)) for c in claims}
    corrected = correction.holm_by_section(judged)
    return ReplicationsRecord(
        studies=tuple(claims[0].differences),
        claims=[
            c.model_copy(update={"pooled": _judged(c.pooled, corrected[c.pooled.claim])})
            for c in claims
        ],
    )


def refuse_twins(record: ReplicationsRecord) -> None:
    """Raise ValueError where two studies have the same results, which are one observation then.
    What is exact, such as a number of parameters, is the same in all studies."""
    measured = [c for c in record.claims if study_verdict(c.pooled).verdict != "exact"]
    for one, other in itertools.combinations(record.studies, 2):
        if measured and all(c.differences[one] == c.differences[other] for c in measured):
            raise ValueError(
                f"replications.results: the studies {one} and {other} differ by the same in every "
                "claim, so they are one study under two names; give each a world or a base of its "
                "own"
            )


def pool(claim: Claim, asked: Sequence[ClaimRecord]) -> Replicated:
    """One claim over several studies; p is not yet corrected for other claims.

    Raises ValueError where two studies have one name, where the records are of other claims, scales
    or margins, and where studies compared other parts.
    """
    first, names = asked[0], [record.study for record in asked]
    if twin := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(
            f"{first.claim}: two studies are called {twin!r}; give each a `study` of its own"
        )
    for record in asked[1:]:
        for key in ("claim", "says", "kind", "scale", "margin"):
            if getattr(record, key) != getattr(first, key):
                raise ValueError(
                    f"{first.claim}: {key} is {getattr(first, key)!r} in the study {first.study} "
                    f"and {getattr(record, key)!r} in {record.study}; make the claims of both anew"
                )
    parts = _parts(first.claim, asked)
    differences = {
        record.study: tuple(part.difference for part in found.values())
        for record, found in zip(asked, parts, strict=True)
    }
    shown = _judgement(claim, first, asked, parts)
    pooled = _judged(first, shown).model_copy(
        update={
            "study": ", ".join(names),
            "files": tuple(dict.fromkeys(f for record in asked for f in record.files)),
        }
    )
    return Replicated(pooled=pooled, differences=differences)


def _judgement(
    claim: Claim,
    first: ClaimRecord,
    asked: Sequence[ClaimRecord],
    parts: Sequence[Mapping[_Key, Comparison]],
) -> Judgement:
    said = {record.study: study_verdict(record) for record in asked}
    for study, verdict in said.items():
        if verdict.verdict in _ASKED_NOT:
            return Judgement(verdict=verdict.verdict, reason=f"{study}: {verdict.reason}")
    tests = [stats.replicated([found[key].difference for found in parts]) for key in parts[0]]
    shown = [
        comparison(Compared(key[0], (("", key[1]), ("", key[2]))), test, "replications", same)
        for key, test in zip(parts[0], tests, strict=True)
        for same in [all(found[key].identical for found in parts)]
    ]
    if claim.kind == "mean":
        of_each = [fmean(part.difference for part in found.values()) for found in parts]
        tests = [stats.replicated(of_each)]
        summary = mean_of(shown, tests[0], "replications")
    else:
        summary = weakest(claim, shown, tests, first.margin)
    known = replace(
        findings(claim, tests, first.margin),
        exact=all(verdict.verdict == "exact" for verdict in said.values()),
    )
    verdict = verdicts.of_study(known, claims_equality=claim.kind == "equal")
    return Judgement(
        verdict=verdict if first.here is None else verdicts.HERE[verdict],
        reason=f"{len(asked)} studies, each as one observation.",
        p=None if known.exact else known.p,
        opposed=known.opposed,
        equal=known.equal,
        summary=summary,
        parts=shown,
    )


def _parts(claim: str, asked: Sequence[ClaimRecord]) -> list[dict[_Key, Comparison]]:
    """Every study's parts, without those that some study has once for several rows that are one
    function there."""
    found = [
        {(p.column, p.first, p.second): p for p in study_verdict(record).parts} for record in asked
    ]
    ran = [parts for parts in found if parts]
    shared = [key for key in ran[0] if all(key in parts for parts in ran)] if ran else []
    if ran and not shared:
        raise ValueError(f"{claim}: the studies share no comparison; make the claims of all anew")
    return [{key: parts[key] for key in shared} if parts else {} for parts in found]


def _judged(claim: ClaimRecord, shown: Judgement) -> ClaimRecord:
    column = "paper_scale" if claim.here is None else "here"
    return claim.model_copy(update={column: shown})


def markdown(record: ReplicationsRecord) -> str:
    """All replicated claims in one table, with every study's difference of the part that speaks
    least for the claim."""
    heads = ("Claim", "It says", "Verdict", "Weakest part, or mean [95%]", "p (Holm)", "By study")
    rows = [
        (
            c.pooled.claim,
            plain(c.pooled.says),
            f"**{(judged := study_verdict(c.pooled)).verdict}**",
            (size := numbers(judged))[0],
            size[2],
            ", ".join(map(points, of_summary(c))),
        )
        for c in record.claims
    ]
    said = (
        f"Studies: {', '.join(record.studies)}. Each is one observation, so intervals are for a "
        "further study of the kind. Sizes are points of accuracy; p is two-sided, corrected for "
        "the replicated claims of a section (Holm)."
    )
    table = markdown_table(heads, rows, "lllrrl", padded=False)
    return f"# Claims in several studies\n\n{said}\n\n{table}\n"


def of_summary(claim: Replicated) -> list[float]:
    """Every study's difference in what the verdict is about; of a mean, the mean."""
    judged = study_verdict(claim.pooled)
    if judged.summary is None:
        return []
    keys = [(part.column, part.first, part.second) for part in judged.parts]
    key = (judged.summary.column, judged.summary.first, judged.summary.second)
    if key in keys:
        return [found[keys.index(key)] for found in claim.differences.values()]
    return [fmean(found) for found in claim.differences.values()]
