"""A repository of the hub (rules/data.smk)."""

from pathlib import Path

from mofe.jobs.job import run

run(
    "mofe.data.hub:fetch",
    snakemake,
    needs_hub=True,
    repository=snakemake.params.repository,
    manifest=Path(snakemake.output[0]),
)
