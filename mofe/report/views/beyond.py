"""The page's section beyond the paper: each open question with its claims, figure and table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mofe.report.figures import KEPT
from mofe.report.views.claims import Row, Screen


@dataclass(frozen=True)
class Asked:
    """A question that a table answers. claims: those whose section is the table's key. limits: what
    the table cannot say; None where nothing is told. figures: as page.image gives them. table: as
    views.table.view gives it."""

    question: str
    limits: str | None
    claims: tuple[Row, ...]
    figures: tuple[Mapping[str, Any], ...]
    table: Mapping[str, Any]


def asked(
    table: Mapping[str, Any],
    told: Mapping[str, str | None],
    figures: Mapping[str, Mapping[str, Any]],
    screen: Screen,
) -> Asked:
    """A question with its answer. told: its `question` and `limits`. figures: by name; the table's
    have its key, that of shares with KEPT behind it."""
    key = str(table["number"])
    claims = tuple(row for row in screen.beyond if row.claim.section == key)
    own = tuple(figures[name] for name in (f"{key}{KEPT}", key) if name in figures)
    return Asked(told["question"] or "", told["limits"], claims, own, table)
