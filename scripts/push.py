"""An exported model, uploaded to the hub (rules/export.smk)."""

from pathlib import Path

from mofe.jobs.job import go_online, run

go_online()

run(
    "mofe.stages.export:push",
    snakemake,
    model=snakemake.input.model,
    repo=snakemake.params.repo,
    out=Path(snakemake.output[0]),
)
