"""Whether a job is tried again, and with how much, by the causes of its earlier ends.

Pure decisions, and the record of what happened during one call of Snakemake. Memory grows after
attempts that ran out of memory, and time after attempts that ran out of time. An end that the job
did not cause does not count as one of its attempts. An error that would come again is final.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

# Ends that a job did not cause. A node that kills every job must not do so for ever.
LOST_AT_MOST = 20


class Cause(Enum):
    """Why an attempt ended without its outputs."""

    MEMORY = "it ran out of memory"
    TIME = "it ran out of time"
    LOST = "its node failed or was taken from it"
    FAILED = "it failed or was cancelled"
    REFUSED = "it cannot succeed"


@dataclass(frozen=True)
class Verdict:
    """What follows an end. memory, time: the factors of what the plan asks for."""

    again: bool
    memory: int
    time: int


def decide(ends: Sequence[Cause], retries: int) -> Verdict:
    """What follows the last of a job's ends (oldest first). retries: how often an attempt may be
    repeated (the profile's key)."""
    lost = ends.count(Cause.LOST)
    again = (
        bool(ends)
        and retries > 0
        and Cause.REFUSED not in ends
        and len(ends) - lost <= retries
        and lost <= LOST_AT_MOST
    )
    return Verdict(again, 1 + ends.count(Cause.MEMORY), 1 + ends.count(Cause.TIME))


def sentence(ends: Sequence[Cause], retries: int) -> str:
    """What is done about a job's last end, for people."""
    found = decide(ends, retries)
    if not found.again:
        if ends[-1] is Cause.REFUSED:
            return "Another attempt would end the same, so it is not submitted again."
        return "It is not submitted again in this run: it was tried often enough."
    grown = {
        Cause.MEMORY: f" with {found.memory} times its memory",
        Cause.TIME: f" with {found.time} times its time",
    }
    return f"It is submitted again{grown.get(ends[-1], '')}."


class Ends:
    """The ends of every job in this call of Snakemake, by its rule and wildcards."""

    def __init__(self) -> None:
        self._ends: dict[tuple, list[Cause]] = defaultdict(list)

    def note(self, rule: str, wildcards: Mapping[str, str], cause: Cause) -> Sequence[Cause]:
        """Add one, and return all of this job, oldest first."""
        self._ends[_key(rule, wildcards)].append(cause)
        return self.of(rule, wildcards)

    def of(self, rule: str, wildcards: Mapping[str, str]) -> Sequence[Cause]:
        """The ends of a job, oldest first."""
        return tuple(self._ends.get(_key(rule, wildcards), ()))


def _key(rule: str, wildcards: Mapping[str, str]) -> tuple:
    return rule, tuple(sorted((name, str(value)) for name, value in wildcards.items()))
