"""Checksums of results that have none (rules/verify.smk)."""

from mofe.jobs.job import run

run(
    "mofe.stages.verify:take",
    snakemake,
    light=True,
    config=snakemake.config,
    command=snakemake.params.command,
)
