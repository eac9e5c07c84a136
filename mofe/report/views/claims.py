"""The page's first screen, and what each claim opens to.

Every text is made here, so that the template only lays it out. A score's difference is in points of
accuracy (hundredths), a time's is a ratio. Positions in the figure are percent of its width.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from mofe.records import (
    ClaimRecord,
    ClaimsRecord,
    Comparison,
    Judgement,
    ReplicationsRecord,
    Scale,
)
from mofe.report.claims import (
    PAPER_SCALE,
    PRINTED,
    against,
    in_points,
    numbers,
    points,
    probability,
    sentence,
    shown,
    study_verdict,
)
from mofe.units import MINUS, listed

_STEP = 5  # points of accuracy: the figure's axis ends at multiples of it
_MOST_TICKS = 8


# --- words ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scaled:
    """What a study is called beside its verdicts. short: one word. says: what it is evidence of."""

    short: str
    says: str


def scaled(scale: Scale, study: str) -> Scaled:
    """The words for a study of this scale."""
    return {
        "paper": Scaled("paper scale", "at the paper's scale"),
        "miniature": Scaled("miniature", "in the miniature: no evidence about TinyLlama"),
        "other": Scaled("this study", f"in the study “{study}”: not the paper's setting"),
    }[scale]


def interval(low: float | None, high: float | None) -> str:
    """An interval in points of accuracy as text; empty where there is none."""
    if low is None or high is None:
        return ""
    return f"{points(low)} to {points(high)}"


# --- the figure -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Axis:
    """The figure's axis, in points of accuracy."""

    low: float
    high: float

    def at(self, points: float) -> float:
        """Where a number of points is, in percent of the width."""
        return round(100 * (points - self.low) / (self.high - self.low), 2)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Where the ticks are, and their texts; zero is always one."""
        width = self.high - self.low
        step = next(s for s in (5, 10, 20, 25, 50, 100) if width / s <= _MOST_TICKS)
        first = math.ceil(self.low / step) * step
        numbers = range(int(first), int(self.high) + 1, step)
        return [(self.at(n), _tick(n)) for n in numbers]


def _tick(number: int) -> str:
    return f"{number:+d}".replace("-", MINUS) if number else "0"


def axis(claims: ClaimsRecord) -> Axis:
    """The axis that every interval of the figure fits, and zero."""
    parts = [
        part
        for claim in claims.claims
        for part in (_summary(claim.printed), _summary(study_verdict(claim)))
        if part is not None and in_points(part)
    ]
    ends = [100 * end for part in parts for end in (part.low, part.high)]
    low = math.floor(min([*ends, -_STEP]) / _STEP) * _STEP
    high = math.ceil(max([*ends, _STEP]) / _STEP) * _STEP
    return Axis(low, high)


@dataclass(frozen=True)
class Mark:
    """A difference with its interval in the figure. by: `printed` or `study`. Positions in
    percent."""

    by: str
    at: float
    low: float
    width: float


@dataclass(frozen=True)
class Part:
    """A line of the table of a claim's parts."""

    first: str
    second: str
    column: str
    effect: str
    these: str
    p: str
    seeds: str
    test: str
    identical: bool
    least: str


@dataclass(frozen=True)
class Verdict:
    """A claim's verdict in one column. scale: what stands beside it, in words."""

    column: str
    scale: str
    verdict: str
    reading: str
    reason: str
    effect: str
    p: str
    p_holm: str
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Row:
    """A claim in the figure, and what it opens to.

    marks: what is drawn. words: what stands in their place where nothing is measured in points.
    band: left end and width of what two single runs of the paper differ by; None where unknown.
    alt: the row in words. printed, study: the verdicts that the row shows. files: the records that
    the study's verdict rests on. command: what makes this verdict.
    """

    claim: ClaimRecord
    marks: tuple[Mark, ...]
    words: str
    band: tuple[float, float] | None
    alt: str
    printed: str
    study: str
    verdicts: tuple[Verdict, ...]
    command: str


def row(
    claim: ClaimRecord,
    on: Axis,
    noise: Mapping[str, float],
    command: str,
    pooled: Judgement | None = None,
    studies: Sequence[str] = (),
) -> Row:
    """A claim in the figure. noise: by column heading, as a fraction of 1. command: as Row has it.
    pooled: its verdict over several studies, where they were asked."""
    scale = scaled(claim.scale, claim.study)
    verdicts = {"printed": claim.printed, "study": study_verdict(claim)}
    parts = {by: part for by, verdict in verdicts.items() if (part := _summary(verdict))}
    first = parts.get("printed")
    others = [p for p in parts.values() if not in_points(p)]
    told = {"printed": PRINTED, "study": scale.says[:1].upper() + scale.says[1:]}
    return Row(
        claim=claim,
        marks=tuple(_mark(by, part, on) for by, part in parts.items() if in_points(part)),
        words=_as_words(others),
        band=_band(noise.get(first.column), on) if first and in_points(first) else None,
        alt=" ".join(f"{told[by]}: {shown(part)}." for by, part in parts.items())
        or "No difference is known.",
        printed=claim.printed.verdict if claim.printed else "",
        study=verdicts["study"].verdict,
        verdicts=(*_verdicts(claim, scale), *_pooled(pooled, studies)),
        command=command,
    )


def _as_words(parts: Sequence[Comparison]) -> str:
    """What stands in the row of a claim on times, shares or counts."""
    texts = dict.fromkeys(
        shown(part) if part.kept else f"time, ratio {shown(part)}"
        for part in parts
        if part.test != "count"
    )
    return "; ".join(texts) or ("counted" if parts else "")


def _summary(verdict: Judgement | None) -> Comparison | None:
    return verdict.summary if verdict else None


def _mark(by: str, part: Comparison, on: Axis) -> Mark:
    low, high = on.at(100 * part.low), on.at(100 * part.high)
    return Mark(by, on.at(100 * part.difference), low, round(high - low, 2))


def _band(noise: float | None, on: Axis) -> tuple[float, float] | None:
    if noise is None:
        return None
    low, high = on.at(max(-100 * noise, on.low)), on.at(min(100 * noise, on.high))
    return low, round(high - low, 2)


# --- what a claim opens to --------------------------------------------------------------------


def _verdicts(claim: ClaimRecord, scale: Scaled) -> tuple[Verdict, ...]:
    columns = [
        (PRINTED, "tested again", claim.printed),
        (PRINTED, "tested again", claim.printed_again),
        (PAPER_SCALE, "TinyLlama on the real tasks", claim.paper_scale),
    ]
    if claim.here is not None:
        columns.append(("Here", scale.says, claim.here))
    return tuple(_verdict(*column) for column in columns if column[2] is not None)


def _pooled(judged: Judgement | None, studies: Sequence[str]) -> tuple[Verdict, ...]:
    if judged is None:
        return ()
    return (_verdict(f"In {len(studies)} studies", ", ".join(studies), judged),)


def _verdict(column: str, scale: str, judged: Judgement) -> Verdict:
    effect, before, corrected = numbers(judged)
    return Verdict(
        column=column,
        scale=scale,
        verdict=judged.verdict,
        reading=judged.reading if judged.parts else "",
        reason=judged.reason or "",
        effect=effect,
        p=before,
        p_holm=corrected,
        parts=tuple(map(_part, judged.parts)),
    )


def _part(part: Comparison) -> Part:
    least = "" if part.least is None else f"{100 * part.least:.1f}"
    return Part(
        first=part.first,
        second=against(part),
        column=part.column,
        effect=shown(part),
        these=interval(part.these_low, part.these_high) if in_points(part) else "",
        p=probability(part.p),
        seeds=str(part.seeds) if part.seeds else "",
        test=part.test,
        identical=part.identical,
        least=least,
    )


# --- the first screen -------------------------------------------------------------------------


@dataclass(frozen=True)
class Screen:
    """The first screen. rows: the paper's claims, in order. ours: what is not in the paper and
    changes its reading. beyond: claims about open questions, which another part shows. noise: by
    column, what two single runs differ by, in points."""

    sentence: str
    scale: Scaled
    axis: Axis
    rows: tuple[Row, ...]
    ours: tuple[Row, ...]
    beyond: tuple[Row, ...]
    noise: str
    margin: str
    seeds: int


def _bands(noise: Mapping[str, float]) -> str:
    """In points: "1.9 on MMLU, 5.6 on MedMCQA and Medicine"."""
    columns: dict[str, list[str]] = {}
    for column, band in noise.items():
        columns.setdefault(f"{100 * band:.1f}", []).append(column)
    return ", ".join(f"{size} on {listed(names)}" for size, names in columns.items())


def screen(
    claims: ClaimsRecord,
    commands: Mapping[str, str],
    questions: Collection[str] = (),
    replications: ReplicationsRecord | None = None,
) -> Screen:
    """The first screen of a study. commands: by claim, the command that makes its verdict.
    questions: the sections of the claims that are about open questions. replications: claims that
    other studies were asked too."""
    on = axis(claims)
    asked = replications.claims if replications else ()
    pooled = {c.pooled.claim: study_verdict(c.pooled) for c in asked}
    studies = replications.studies if replications else ()
    rows = [
        row(c, on, claims.noise, commands[c.claim], pooled.get(c.claim), studies)
        for c in claims.claims
    ]
    return Screen(
        sentence=sentence(claims),
        scale=scaled(claims.scale, claims.study),
        axis=on,
        rows=tuple(r for r in rows if r.claim.in_paper),
        ours=tuple(r for r in rows if not r.claim.in_paper and r.claim.section not in questions),
        beyond=tuple(r for r in rows if r.claim.section in questions),
        noise=_bands(claims.noise),
        margin=f"{100 * claims.margin:g} point{'' if claims.margin == 0.01 else 's'}",
        seeds=claims.seeds,
    )
