"""The mini study's base model, pretrained on the generated world (rules/experts.smk)."""

from pathlib import Path

from mofe.job import run

run(
    "mofe.train:pretrain",
    snakemake,
    world=snakemake.input.world,
    params=snakemake.params.model,
    name=snakemake.wildcards.model,
    out=Path(snakemake.output[0]),
)
