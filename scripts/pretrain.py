"""The mini study's base model, pretrained on the generated world (rules/experts.smk)."""

from pathlib import Path

from mofe.jobs import scratch
from mofe.jobs.job import run, watched

out = Path(snakemake.output[0])
checkpoint = scratch.of(snakemake.output[0])

run(
    "mofe.stages.train:pretrain",
    snakemake,
    world=snakemake.input.world,
    params=snakemake.params.model,
    name=snakemake.wildcards.model,
    out=out,
    checkpoint=checkpoint,
    scratch=checkpoint,
    config_hash=snakemake.params.config_hash,
    watched=watched(snakemake, out, f"experts/{snakemake.wildcards.model}"),
)
