"""The tables of what there is (rules/partial.smk)."""

from mofe.jobs.job import run

run("mofe.stages.partial:write", snakemake, light=True, config=snakemake.config)
