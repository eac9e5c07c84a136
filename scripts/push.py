"""An exported model, uploaded to the hub (rules/export.smk)."""

from pathlib import Path

from mofe.jobs.job import run

run(
    "mofe.stages.export:push",
    snakemake,
    needs_hub=True,
    model=snakemake.input.model,
    repo=snakemake.params.repo,
    out=Path(snakemake.output[0]),
)
