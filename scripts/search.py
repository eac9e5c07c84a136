"""The best learning rate of a variant, from its candidates' records (rules/train.smk)."""

from pathlib import Path

from mofe.jobs.job import run

run(
    "mofe.stages.search:choose",
    snakemake,
    trainings=list(snakemake.input.trainings),
    evaluations=list(snakemake.input.evaluations),
    names=snakemake.params.names,
    out=Path(snakemake.output[0]),
    config_hash=snakemake.params.config_hash,
)
