"""The GPU-hours of each shipped question at the paper's scale (mofe/hours.json, made by `make docs`
from the plan), so that a study at another scale can say what finding out would take."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

FILE = Path(__file__).parents[1] / "hours.json"


def at_papers_scale(table: str, question: str) -> dict[str, float] | None:
    """The hours of one seed by kind of GPU; None where the table asks a question of its own."""
    known = _shipped().get(table)
    return known["hours"] if known and known["question"] == question else None


@cache
def _shipped() -> Mapping[str, Mapping]:
    return json.loads(FILE.read_text(encoding="utf-8"))
