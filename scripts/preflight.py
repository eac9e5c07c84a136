"""A check that the models of an expert's mixtures fit together (rules/experts.smk)."""

from pathlib import Path

from mofe.jobs.job import run

run(
    "mofe.models.preflight:record",
    snakemake,
    params=snakemake.params.models,
    out=Path(snakemake.output[0]),
)
