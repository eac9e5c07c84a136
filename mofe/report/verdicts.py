"""The words of verdicts: pure decisions from p values.

Three questions are asked of a claim, with words of their own, and nothing adds them up: whether the
paper's printed numbers are beyond their own noise, whether the claim holds at the paper's scale,
and what another study, such as the miniature, shows.
"""

from __future__ import annotations

from dataclasses import dataclass

from mofe.records import HereVerdict, PaperScaleVerdict, PrintedVerdict
from mofe.report.stats import LEVEL

# What a study that is not at the paper's scale says in place of a verdict at that scale.
HERE: dict[PaperScaleVerdict, HereVerdict] = {
    "holds": "same here",
    "contradicted": "other way here",
    "no difference above δ": "no difference here",
    "direction only": "undecided here",
    "undecided": "undecided here",
    "not run": "not run",
    "exact": "exact",
}


@dataclass(frozen=True)
class Findings:
    """What is known of a claim.

    p: that it holds, None where nothing is tested. opposed: that some part points the other way.
    equal: that no part differs by more than the margin. points: every part points the claimed way.
    exact: it was found to be so without any uncertainty. decides: what was compared may decide,
    which one seed per method may not.
    """

    p: float | None = None
    opposed: float | None = None
    equal: float | None = None
    points: bool = False
    exact: bool = False
    decides: bool = True


def printed(found: Findings) -> PrintedVerdict:
    """Whether the paper's own numbers are beyond their noise."""
    if found.exact:
        return "exact"
    beyond = found.p is not None and found.p < LEVEL and found.decides
    return "beyond its noise" if beyond else "inside its noise"


def of_study(found: Findings, claims_equality: bool = False) -> PaperScaleVerdict:
    """What a study shows, in the words of the paper's scale. claims_equality: the claim says that
    nothing differs, so it is shown by equality within the margin."""
    if found.exact:
        return "exact"
    if found.decides:
        if found.p is not None and found.p < LEVEL:
            return "no difference above δ" if claims_equality else "holds"
        if found.opposed is not None and found.opposed < LEVEL:
            return "contradicted"
        if found.equal is not None and found.equal < LEVEL:
            return "no difference above δ"
    return "direction only" if found.points else "undecided"


def corrected(verdict: str, before: float, p: float, equal: float | None) -> str:
    """The verdict with p after the correction for other claims. It changes only a verdict that
    rests on p, which was below the level before."""
    if p < LEVEL or before >= LEVEL:
        return verdict
    equality = equal is not None and equal < LEVEL
    match verdict:
        case "beyond its noise":
            return "inside its noise"
        case "holds":
            return "no difference above δ" if equality else "direction only"
        case "same here":
            return "no difference here" if equality else "undecided here"
        case "no difference above δ":
            return "undecided"
        case "no difference here":
            return "undecided here"
    return verdict
