"""Jobs that ended well without Snakemake's notice.

Snakemake marks what a job is to make until it has seen the job's success, and makes again what is
marked. A job whose run was killed, as by a reboot of the login node, goes on on its node; a job may
also be killed in the moment between its last act and its end. What it made is whole and is proved
to be so, by its checksums and by the hash of its settings. It counts as done.
"""

from typing import Any

from snakemake.logging import logger
from snakemake.persistence.file import FilePersistence

from mofe import sums
from mofe.estimate.schedule import TRAININGS
from mofe.jobs import made, scratch
from mofe.study.identity import Identities


def count_as_done(identities: Identities) -> None:
    """Have Snakemake take what such jobs of a study made."""
    marked = FilePersistence.incomplete

    async def incomplete(self: FilePersistence, job: Any) -> list[Any]:
        found = await marked(self, job)
        if not found or not is_whole(identities, tuple(map(str, job.output))):
            return found
        for output in job.output:
            self.cleanup_metadata(output)
        unfinished = scratch.of(job.output[0])
        if job.rule.name in TRAININGS and unfinished.exists():
            scratch.discard(unfinished)
        label = " ".join([job.rule.name, *job.wildcards])
        logger.info(f"{label}: it ended well without this workflow's notice, so it counts as done")
        return []

    FilePersistence.incomplete = incomplete


def is_whole(identities: Identities, outputs: tuple[str, ...]) -> bool:
    """Whether the checksums of a job's outputs, which are its last act, are there and hold, and it
    was made with the settings that the configuration has now."""
    maker = identities.makers.get(outputs[0])
    if maker is None:
        return False
    planned = identities.of(maker.rule, maker.wildcards)
    try:
        return made.recorded(made.notes(identities, maker)) == planned and not made.faults(
            sums.path(outputs[0]), outputs
        )
    except (sums.Damaged, OSError):
        return False
