"""A repository of the hub (rules/data.smk)."""

from pathlib import Path

from mofe.jobs.job import go_online, run

go_online()
run(
    "mofe.data.hub:fetch",
    snakemake,
    repository=snakemake.params.repository,
    manifest=Path(snakemake.output[0]),
)
