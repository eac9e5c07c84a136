"""The page's first screen, and what each claim opens to.

Every text is made here, so that the template only lays it out. A score's difference is in points of
accuracy (hundredths), a time's is a ratio. Positions in the figure are percent of its width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from mofe.records import (
    ClaimRecord,
    ClaimsRecord,
    Comparison,
    Judgement,
    PaperScaleVerdict,
    PrintedVerdict,
    Scale,
)
from mofe.units import signed

_RATIOS = ("rounding", "log ratio")  # tests whose difference is a ratio
_STEP = 5  # points of accuracy: the figure's axis ends at multiples of it
_MOST_TICKS = 8

PRINTED = "The paper's numbers"
PAPER_SCALE = "Paper scale"


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


_COUNTED = {
    "beyond its noise": "beyond it",
    "inside its noise": "inside it",
    "exact": "exact by definition",
    "holds": "hold",
    "contradicted": "are contradicted",
    "undecided": "are undecided",
    "not run": "are not run",
    "direction only": "show a direction only",
    "no difference above δ": "show no difference above δ",
}


def sentence(claims: ClaimsRecord) -> str:
    """The page's headline: the counts on the paper's own numbers, and at its scale. A miniature's
    verdicts are never counted."""
    printed = _counts(claims.printed_counts, get_args(PrintedVerdict))
    total = sum(claims.printed_counts.values())
    words = [f"{count} {'is' if count == 1 else 'are'} {_COUNTED[v]}" for v, count in printed]
    first = (
        f"The paper's own numbers, tested against their own run-to-run noise: of its {total} "
        f"claims, {_listed(words)}."
    )
    return f"{first} At paper scale: {_at_scale(claims.paper_scale_counts)}."


def _at_scale(counts: Mapping[str, int]) -> str:
    """In words: what was found at the paper's scale, "not run yet" where nothing was."""
    asked = {v: n for v, n in counts.items() if v not in ("not run", "exact")}
    total = sum(counts.values())
    if not sum(asked.values()):
        open_ = counts.get("not run", 0)
        known = counts.get("exact", 0)
        exact = f"; {known} {'is' if known == 1 else 'are'} exact by definition" if known else ""
        return f"not run yet ({open_} of {total}{exact})"
    found = _counts(counts, get_args(PaperScaleVerdict))
    words = [("are " if v == "exact" else "") + _COUNTED[v] for v, _ in found]
    return f"of {total}, " + _listed([f"{n} {w}" for (_, n), w in zip(found, words, strict=True)])


def _counts(counts: Mapping[str, int], order: Sequence[str]) -> list[tuple[str, int]]:
    return [(verdict, counts[verdict]) for verdict in order if counts.get(verdict)]


def _listed(words: Sequence[str]) -> str:
    """ "a, b and c"."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def amount(value: float, test: str) -> str:
    """A difference as people read it: points with a sign, a ratio, or a whole number."""
    if test == "count":
        return signed(value, 0)
    return f"{value:.2f}×" if test in _RATIOS else signed(100 * value)


def interval(part: Comparison, low: float | None, high: float | None) -> str:
    """An interval as text; empty where there is none."""
    if low is None or high is None:
        return ""
    return f"{amount(low, part.test)} to {amount(high, part.test)}"


def effect(part: Comparison) -> str:
    """A difference and its interval: "+1.5 [+0.3 to +7.3]"."""
    value = amount(part.difference, part.test)
    if part.low == part.high:
        return value
    return f"{value} [{interval(part, part.low, part.high)}]"


def p_value(p: float | None) -> str:
    """A p as text: "0.013", "< 0.001"; empty where there is none."""
    if p is None:
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def in_points(part: Comparison) -> bool:
    """Whether a difference is one of scores."""
    return part.test not in (*_RATIOS, "count")


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
        return [(self.at(n), signed(n, 0)) for n in numbers]


def axis(claims: ClaimsRecord) -> Axis:
    """The axis that every interval of the figure fits, and zero."""
    shown = [
        part
        for claim in claims.claims
        for part in (_summary(claim.printed), _summary(study_verdict(claim)))
        if part is not None and in_points(part)
    ]
    ends = [100 * end for part in shown for end in (part.low, part.high)]
    low = math.floor(min([*ends, -_STEP]) / _STEP) * _STEP
    high = math.ceil(max([*ends, _STEP]) / _STEP) * _STEP
    return Axis(low, high)


@dataclass(frozen=True)
class Mark:
    """A difference with its interval in the figure. by: `printed` or `study`. Positions in percent."""

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


def study_verdict(claim: ClaimRecord) -> Judgement:
    """What the study itself says: at the paper's scale this is the second column."""
    return claim.here if claim.here is not None else claim.paper_scale


def row(claim: ClaimRecord, on: Axis, noise: Mapping[str, float], command: str) -> Row:
    """A claim in the figure. noise: by column heading, as a fraction of 1. command: as Row has it."""
    scale = scaled(claim.scale, claim.study)
    shown = {"printed": claim.printed, "study": study_verdict(claim)}
    parts = {by: part for by, verdict in shown.items() if (part := _summary(verdict))}
    first = parts.get("printed")
    others = [p for p in parts.values() if not in_points(p)]
    told = {"printed": PRINTED, "study": scale.says[:1].upper() + scale.says[1:]}
    return Row(
        claim=claim,
        marks=tuple(_mark(by, part, on) for by, part in parts.items() if in_points(part)),
        words=_as_words(others),
        band=_band(noise.get(first.column), on) if first and in_points(first) else None,
        alt=" ".join(f"{told[by]}: {effect(part)}." for by, part in parts.items())
        or "No difference is known.",
        printed=claim.printed.verdict if claim.printed else "",
        study=shown["study"].verdict,
        verdicts=_verdicts(claim, scale),
        command=command,
    )


def _as_words(parts: Sequence[Comparison]) -> str:
    """What stands in the row of a claim on times or counts."""
    texts = dict.fromkeys(effect(part) for part in parts if part.test != "count")
    return "; ".join(f"time, ratio {text}" for text in texts) or ("counted" if parts else "")


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


def _verdict(column: str, scale: str, judged: Judgement) -> Verdict:
    return Verdict(
        column=column,
        scale=scale,
        verdict=judged.verdict,
        reading=judged.reading if judged.parts else "",
        reason=judged.reason or "",
        effect=effect(judged.summary) if judged.summary else "",
        p=p_value(judged.p),
        p_holm=p_value(judged.p_holm),
        parts=tuple(map(_part, judged.parts)),
    )


def _part(part: Comparison) -> Part:
    least = "" if part.least is None else amount(part.least, part.test).lstrip("+")
    return Part(
        first=part.first,
        second=part.second,
        column=part.column,
        effect=effect(part),
        these=interval(part, part.these_low, part.these_high),
        p=p_value(part.p),
        seeds=str(part.seeds) if part.seeds else "",
        test=part.test,
        identical=part.identical,
        least=least,
    )


# --- the first screen -------------------------------------------------------------------------


@dataclass(frozen=True)
class Screen:
    """The first screen. rows: the paper's claims, in order. ours: what is not in the paper and
    changes its reading. noise: by column, what two single runs differ by, in points."""

    sentence: str
    scale: Scaled
    axis: Axis
    rows: tuple[Row, ...]
    ours: tuple[Row, ...]
    noise: str
    margin: str
    seeds: int


def _noise(noise: Mapping[str, float]) -> str:
    """In points: "1.9 on MMLU, 5.6 on MedMCQA and Medicine"."""
    columns: dict[str, list[str]] = {}
    for column, band in noise.items():
        columns.setdefault(f"{100 * band:.1f}", []).append(column)
    return ", ".join(f"{points} on {_listed(names)}" for points, names in columns.items())


def screen(claims: ClaimsRecord, commands: Mapping[str, str]) -> Screen:
    """The first screen of a study. commands: by claim, the command that makes its verdict."""
    on = axis(claims)
    rows = [row(claim, on, claims.noise, commands[claim.claim]) for claim in claims.claims]
    return Screen(
        sentence=sentence(claims),
        scale=scaled(claims.scale, claims.study),
        axis=on,
        rows=tuple(r for r in rows if r.claim.in_paper),
        ours=tuple(r for r in rows if not r.claim.in_paper),
        noise=_noise(claims.noise),
        margin=f"{100 * claims.margin:g}",
        seeds=claims.seeds,
    )
