"""A repository of the hub (rules/data.smk)."""

from pathlib import Path

from mofe.job import go_online, run

go_online()
run(
    "mofe.hub:fetch",
    snakemake,
    repository=snakemake.params.repository,
    manifest=Path(snakemake.output[0]),
)
