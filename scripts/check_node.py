"""What the machine has that jobs run on (rules/check.smk)."""

from pathlib import Path

from mofe.jobs.job import run

run(
    "mofe.stages.check:look_at_node",
    snakemake,
    light=True,
    needs_gpus=False,
    config=snakemake.config,
    locks=snakemake.params.locks,
    out=Path(snakemake.output[0]),
)
