"""What the machine has where the workflow is called (rules/check.smk)."""

from pathlib import Path

from mofe.jobs.job import run

run(
    "mofe.stages.check:look_here",
    snakemake,
    light=True,
    config=snakemake.config,
    asked=dict(snakemake.resources.items()),
    cluster=snakemake.params.cluster,
    ours=list(map(str, snakemake.output)),
    out=Path(snakemake.output[0]),
)
