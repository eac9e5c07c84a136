"""How each job of a study stands, from files alone, while a run is at work or afterwards.

Snakemake marks what a job is to make while the job runs, and locks what a run is to make; a job
leaves checksums, and its log says how it ended and how far it is.
"""

import base64
import binascii
import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from mofe import progress, sums
from mofe.jobs import ending, made
from mofe.study.graph import Node
from mofe.study.identity import Identities

SNAKEMAKE = Path(".snakemake")  # Snakemake's notes, in the folder where it is called
State = Literal["done", "running", "queued", "failed", "waiting"]
STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True)
class Standing:
    """How a job stands.

    queued: it was handed over to run, and nothing of it is seen yet. log: its address. told: how
    far it is, while it runs. why: the sentence that it failed with. cut_off: it waits because it
    was killed. at: when its log was written last, in seconds since the epoch.
    """

    job: Node
    state: State
    log: str
    told: progress.Told | None = None
    why: str = ""
    cut_off: bool = False
    at: float = 0.0

    @property
    def label(self) -> str:
        return f"{self.job.rule} {self.job.label}".strip()


def of(
    identities: Identities, jobs: Iterable[Node], marks: Mapping[str, float], at_work: bool
) -> list[Standing]:
    """How jobs stand. marks: `marked`. at_work: whether a run of the study is at work."""
    return [_of(identities, job, marks, at_work) for job in jobs if job.outputs != ("all",)]


def _of(identities: Identities, job: Node, marks: Mapping[str, float], at_work: bool) -> Standing:
    log = identities.graph.plan.paths.log(job.outputs[0])
    written = _written(log)
    begun = marks.get(job.outputs[0])
    if begun is not None and at_work:
        return _marked(job, log, written, begun)
    if begun is None and _is_there(job) and not _is_stale(identities, job):
        return Standing(job, "done", log, at=written)
    why = ending.failure(log) if begun is None and written and not _is_there(job) else None
    state: State = "failed" if why else "waiting"
    return Standing(job, state, log, why=why or "", cut_off=begun is not None, at=written)


def _marked(job: Node, log: str, written: float, begun: float) -> Standing:
    """How a job stands that a run at work has begun or submitted. One of several in one of Slurm's
    jobs may have ended although Snakemake waits for the others."""
    if written < begun:
        return Standing(job, "queued", log, at=written)
    if _is_there(job) and _written(sums.path(job.outputs[0])) >= begun:
        return Standing(job, "done", log, at=written)
    if why := ending.failure(log):
        return Standing(job, "failed", log, why=why, at=written)
    return Standing(job, "running", log, progress.last(log), at=written)


def _written(file: str) -> float:
    """When a file was written last, in seconds since the epoch; 0 where it is not there."""
    with suppress(FileNotFoundError):
        return os.path.getmtime(file)
    return 0.0


def _is_there(job: Node) -> bool:
    """Whether all that a job makes is there; it writes the checksums last."""
    return all(map(os.path.exists, (*job.outputs, sums.path(job.outputs[0]))))


def _is_stale(identities: Identities, job: Node) -> bool:
    planned = identities.of(job.rule, job.wildcards)
    return made.Input(job.outputs[0], made.notes(identities, job), planned).is_stale


def marked(folder: Path = SNAKEMAKE) -> dict[str, float]:
    """The files that jobs are making, as Snakemake marks them, and since when. After a run was
    killed, those of its jobs that were cut off."""
    found = {}
    for file in (folder / "incomplete").rglob("*"):
        parts = file.relative_to(folder / "incomplete").parts
        try:  # a long name is several folders, each but the last with an @ before it
            name = base64.urlsafe_b64decode("".join(part.removeprefix("@") for part in parts))
            if file.is_file():
                found[name.decode()] = file.stat().st_mtime
        except (binascii.Error, UnicodeDecodeError, FileNotFoundError):
            continue  # a folder of such a name, or a job that has ended meanwhile
    return found


def counts(found: Collection[Standing]) -> dict[State, int]:
    """How many jobs are in each state."""
    return {state: sum(one.state == state for one in found) for state in STATES}
