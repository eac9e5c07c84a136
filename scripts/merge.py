"""A mixture of experts, merged (rules/merge.smk)."""

from pathlib import Path

from mofe.jobs.job import run

run(
    "mofe.stages.merge:merge",
    snakemake,
    params=snakemake.params.merge,
    out=Path(snakemake.output[0]),
)
