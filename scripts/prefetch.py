"""A summary of what was fetched from the hub (rules/data.smk)."""

from mofe.jobs.job import run

run(
    "mofe.data.hub:summary",
    snakemake,
    needs_hub=True,  # as the jobs before it: nothing here needs a warm parent
    manifests=list(snakemake.input),
    instead=snakemake.params.instead,
)
