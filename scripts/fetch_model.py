"""A dense model from the hub or a mirror (rules/experts.smk)."""

from pathlib import Path

from mofe.jobs.job import run

run(
    "mofe.models.files:link",
    snakemake,
    params=snakemake.params.model,
    out=Path(snakemake.output[0]),
)
