"""What a study's numbers are of: its name and its scale, which every output says beside them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mofe.records import Scale

Unit = Literal["hours", "seconds"]  # of training time

PAPER = "paper"  # the name that is kept for a study in the paper's own setting

_WHAT = {
    "paper": "the study “{}”, at the paper's scale",
    "miniature": "the miniature study “{}”, an invented world; no evidence about TinyLlama",
    "other": "the study “{}”, whose setting is not the paper's",
}


def scale(study: str, generated: bool) -> Scale:
    """The scale of a study by its name. generated: whether a generated world is its data."""
    if generated:
        return "miniature"
    return "paper" if study == PAPER else "other"


@dataclass(frozen=True)
class Setting:
    """A study's name and scale, and the unit that its training times are printed in."""

    study: str
    scale: Scale
    unit: Unit

    @property
    def is_papers(self) -> bool:
        """Whether its numbers may be compared with the paper's."""
        return self.scale == "paper"

    @property
    def ours(self) -> str:
        """A sentence on what "ours" is."""
        return f"Ours: {_WHAT[self.scale].format(self.study)}."
