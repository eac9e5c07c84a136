"""A dense expert, fine-tuned from another dense model (rules/experts.smk)."""

from pathlib import Path

from mofe.jobs import scratch
from mofe.jobs.job import run, sharding, watched

out = Path(snakemake.output[0])
checkpoint = scratch.of(snakemake.output[0])

run(
    "mofe.stages.train:train_dense",
    snakemake,
    several=True,
    origin=snakemake.input.origin,
    data=list(snakemake.input.data),
    replay=list(snakemake.input.replay),
    params=snakemake.params.stage,
    name=snakemake.wildcards.model,
    seed=int(snakemake.wildcards.seed),
    out=out,
    checkpoint=checkpoint,
    scratch=checkpoint,
    loads=True,
    sharding=sharding(snakemake),
    config_hash=snakemake.params.config_hash,
    watched=watched(
        snakemake, out, f"experts/{snakemake.wildcards.model}/s{snakemake.wildcards.seed}"
    ),
)
