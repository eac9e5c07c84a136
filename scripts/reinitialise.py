"""A dense model with FFNs that are drawn anew (rules/experts.smk)."""

from pathlib import Path

from mofe.jobs.job import run

run(
    "mofe.stages.reinitialise:reinitialise",
    snakemake,
    origin=snakemake.input.origin,
    params=snakemake.params.model,
    seed=int(snakemake.wildcards.seed),
    out=Path(snakemake.output[0]),
)
