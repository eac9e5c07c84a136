"""Faults, and what became of them."""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

Family = Literal["training", "checkpoints", "artefacts", "jobs", "workflow"]


class Ending(Enum):
    """What became of a fault; only the first is as promised."""

    KEPT = "kept"  # identical results after the same command, or refused by name
    LOST = "lost"  # finished work was computed again
    SILENT = "silent"  # the job succeeded with something else than the right result
    DEAD_END = "dead end"  # the same command fails, or hangs, for ever
    UNNAMED = "unnamed"  # refused, but the message does not tell what the user must know
    TRACEBACK = "traceback"  # a traceback on the terminal


@dataclass(frozen=True, order=True)
class Fault:
    """family: who makes it. promise: the row of docs/reliability.md. kind: what is done. target: to
    which job or file. moment: when, as a share of the job's events in `phase`. seed: what else is
    drawn."""

    family: Family
    promise: str
    kind: str
    target: str
    phase: str = ""
    moment: float = 0.0
    seed: int = 0

    @property
    def name(self) -> str:
        """The fault in a line."""
        when = f" at {self.phase} ({self.moment:.2f})" if self.phase else ""
        return f"{self.promise}: {self.kind} of {self.target}{when}, seed {self.seed}"


@dataclass(frozen=True)
class Outcome:
    """A fault with its ending. told: what was found, with the end of what the terminal showed."""

    fault: Fault
    ending: Ending
    told: str = ""


class NotReached(Exception):
    """The moment of the fault did not come: the campaign is wrong, not the product."""
