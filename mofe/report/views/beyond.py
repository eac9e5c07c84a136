"""The page's section beyond the paper: each open question with its answer, claims, figure and
table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mofe.records import ClaimRecord, ReplicationsRecord
from mofe.report.figures import KEPT
from mofe.report.outcomes import answer, told
from mofe.report.views.claims import Row, Screen
from mofe.units import listed


@dataclass(frozen=True)
class Said:
    """Statements of which the same is known. outcome: what, in one word. statements: each with the
    size of its weakest part, in one sentence."""

    outcome: str
    statements: str


@dataclass(frozen=True)
class Asked:
    """A question that a table answers.

    answer: what this study says. elsewhere: what all studies together say that were asked, empty
    where none was. studies: their names. claims: those whose section is the table's key. limits:
    what the table cannot say; None where nothing is told. cost: what finding out takes at the
    paper's scale, in words; empty where it is not known. figures: as page.image gives them. table:
    as views.table.view gives it.
    """

    question: str
    answer: tuple[Said, ...]
    elsewhere: tuple[Said, ...]
    studies: str
    claims: tuple[Row, ...]
    limits: str | None
    cost: str
    figures: tuple[Mapping[str, Any], ...]
    table: Mapping[str, Any]


def asked(
    table: Mapping[str, Any],
    told_of: Mapping[str, Any],
    figures: Mapping[str, Mapping[str, Any]],
    screen: Screen,
    replications: ReplicationsRecord | None,
) -> Asked:
    """A question with its answer. told_of: its `question`, `limits` and `hours` (by kind of GPU).
    figures: by name; the table's have its key, that of shares with KEPT behind it. replications:
    claims in several studies."""
    key = str(table["number"])
    claims = tuple(row for row in screen.beyond if row.claim.section == key)
    pooled = [c.pooled for c in (replications.claims if replications else ())]
    return Asked(
        question=told_of["question"] or "",
        answer=_said(row.claim for row in claims),
        elsewhere=_said(claim for claim in pooled if claim.section == key),
        studies=listed(replications.studies) if replications else "",
        claims=claims,
        limits=told_of["limits"],
        cost=_cost(told_of["hours"]),
        figures=tuple(figures[name] for name in (f"{key}{KEPT}", key) if name in figures),
        table=table,
    )


def _said(claims: Iterable[ClaimRecord]) -> tuple[Said, ...]:
    found = answer(claims)
    return tuple(Said(kind, "; ".join(map(told, claims)) + ".") for kind, claims in found.items())


def _cost(hours: Mapping[str, float] | None) -> str:
    return listed([f"{number:,.1f} hours of {kind}" for kind, number in (hours or {}).items()])
