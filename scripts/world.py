"""The generated world of the mini study (rules/data.smk)."""

from mofe.jobs.job import run

run(
    "mofe.data.world:make",
    snakemake,
    light=True,
    world=snakemake.params.world,
    out=snakemake.output[0],
)
