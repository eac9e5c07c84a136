"""What is known of statements, in the words of an answer: shown, excluded, or open."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from mofe.records import ClaimRecord
from mofe.report.claims import numbers, study_verdict

Outcome = Literal["Shown", "Excluded", "Open", "Not asked"]
OUTCOMES: tuple[Outcome, ...] = ("Shown", "Excluded", "Open", "Not asked")


def outcome(claim: ClaimRecord) -> Outcome:
    """What a study says of a statement. That nothing differs by more than the margin shows a
    statement of equality, and excludes every other one."""
    match study_verdict(claim).verdict:
        case "holds" | "same here" | "exact":
            return "Shown"
        case "contradicted" | "other way here":
            return "Excluded"
        case "no difference above δ" | "no difference here":
            return "Shown" if claim.kind == "equal" else "Excluded"
        case "not run" | "cannot be asked here":
            return "Not asked"
    return "Open"


def told(claim: ClaimRecord) -> str:
    """A statement with the size of its weakest part, in one sentence without its full stop."""
    size = numbers(study_verdict(claim))[0]
    return claim.says.rstrip(".") + (f" ({size})" if size else "")


def answer(claims: Iterable[ClaimRecord]) -> dict[Outcome, list[ClaimRecord]]:
    """The statements by what is known of them, in order; outcomes that no statement has are left
    out."""
    claims = list(claims)
    by_outcome = {kind: [c for c in claims if outcome(c) == kind] for kind in OUTCOMES}
    return {kind: found for kind, found in by_outcome.items() if found}
