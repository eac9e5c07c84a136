"""A dense expert, fine-tuned from another dense model (rules/experts.smk)."""

from pathlib import Path

from mofe.job import run

run(
    "mofe.train:train_dense",
    snakemake,
    origin=snakemake.input.origin,
    data=list(snakemake.input.data),
    params=snakemake.params.stage,
    name=snakemake.wildcards.model,
    seed=snakemake.params.seed,
    out=Path(snakemake.output[0]),
)
