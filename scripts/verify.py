"""Whether a study's results are as they were made (rules/verify.smk)."""

from mofe.jobs.job import run

run(
    "mofe.stages.verify:verify",
    snakemake,
    light=True,
    config=snakemake.config,
    command=snakemake.params.command,
)
