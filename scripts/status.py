"""The study as a page: what is done, runs, failed and is left (rules/status.smk)."""

from mofe.jobs.job import run

run("mofe.stages.status:write", snakemake, light=True, config=snakemake.config)
