"""A dense model from the hub or a mirror (rules/experts.smk)."""

from pathlib import Path

from mofe.job import run

run(
    "mofe.models:fetch",
    snakemake,
    params=snakemake.params.model,
    out=Path(snakemake.output[0]),
)
