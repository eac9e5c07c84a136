"""One stage of a variant's fine-tuning with one seed (rules/train.smk)."""

from pathlib import Path

from mofe.jobs import scratch
from mofe.jobs.job import run, sharding, watched

checkpoint = scratch.of(snakemake.output[0])

run(
    "mofe.stages.train:train_variant",
    snakemake,
    several=True,
    merge=snakemake.input.merge,
    data=list(snakemake.input.data),
    replay=list(snakemake.input.replay),
    parents=list(snakemake.input.parents),
    chain=snakemake.params.chain,
    params=snakemake.params.stage,
    names=snakemake.params.names,
    seed=int(snakemake.wildcards.seed),
    trained=Path(snakemake.output.trained),
    record=Path(snakemake.output.record),
    log=Path(snakemake.output.log),
    checkpoint=checkpoint,
    scratch=checkpoint,
    loads=True,
    search=list(snakemake.input.search),
    sharding=sharding(snakemake),
    config_hash=snakemake.params.config_hash,
    watched=watched(
        snakemake,
        Path(snakemake.output.record).parent,
        f"variants/{snakemake.wildcards.variant}/s{snakemake.wildcards.seed}",
    ),
)
