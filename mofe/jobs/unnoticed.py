"""Jobs that ended well although Snakemake saw no success.

Snakemake marks what a job is to make until it has seen the job's success, and makes again what is
marked. A job whose run was killed, as by a reboot of the login node, goes on on its node. A job may
also be killed in the moments between its last act and its end: then Snakemake removes what it made,
or another attempt does. But what such a job made is whole, as its checksums and the hash of its
settings prove. So it is kept, and counts as done.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from snakemake.jobs import Job
from snakemake.logging import logger
from snakemake.persistence.file import FilePersistence

from mofe import sums
from mofe.estimate.schedule import TRAININGS
from mofe.jobs import made, scratch
from mofe.study.identity import Identities

RESTARTS = "SLURM_RESTART_COUNT"  # how often Slurm has put a job back into its queue


def count_as_done(identities: Identities) -> None:
    """Have Snakemake keep and take what such jobs of a study made."""
    incomplete, cleanup = FilePersistence.incomplete, Job.cleanup
    remove_existing_output = Job.remove_existing_output

    async def taken(self: FilePersistence, job: Any) -> list[Any]:
        """Of an earlier run's job. A dry run only tells it."""
        found = await incomplete(self, job)
        marks = [Path(self._record_path(self._incomplete_path, self._get_key(f))) for f in found]
        if not found or not _ended_after(marks, job.output[0]) or not is_whole(identities, job):
            return found
        if self.dag.workflow.execution_settings and not self.dag.workflow.dryrun:
            await self.finished(job)
            trains = identities.makers[str(job.output[0])].rule in TRAININGS
            if trains and (folder := scratch.of(job.output[0])).exists():
                scratch.discard(folder)
        _tell(job)
        return []

    async def kept_after_an_error(self: Job, skip_outputs: Sequence[Any]) -> None:
        if not is_whole(identities, self):
            await cleanup(self, skip_outputs)

    async def kept_for_another_attempt(self: Job) -> None:
        """The job's script then finds that there is nothing left to do (mofe/jobs/job.py)."""
        again = self.attempt > 1 or int(os.environ.get(RESTARTS, "0"))
        if not again or not is_whole(identities, self):
            await remove_existing_output(self)

    FilePersistence.incomplete = taken
    Job.cleanup = kept_after_an_error
    Job.remove_existing_output = kept_for_another_attempt


def is_whole(identities: Identities, job: Any) -> bool:
    """Whether the checksums of a job's outputs, which are its last act, are there and hold, and it
    was made with the settings that the configuration has now."""
    outputs = tuple(map(str, job.output))
    maker = identities.makers.get(outputs[0]) if outputs else None
    if maker is None or not made.is_whole(outputs):
        return False
    planned = identities.of(maker.rule, maker.wildcards)
    return made.recorded(made.notes(identities, maker)) == planned


def _ended_after(marks: Sequence[Path], output: str) -> bool:
    """Whether the checksums were written after Snakemake's marks: what was there before a job that
    waits in a queue is not what that job made."""
    try:
        written = os.stat(sums.path(str(output))).st_mtime_ns
        return all(mark.stat().st_mtime_ns < written for mark in marks)
    except FileNotFoundError:
        return False


def _tell(job: Any) -> None:
    label = " ".join([job.rule.name, *job.wildcards])
    logger.info(f"{label}: it ended well without this workflow's notice, so it counts as done")
