"""A summary of what was fetched from the hub (rules/data.smk)."""

from mofe.jobs.job import go_online, run

go_online()  # as the jobs before it: nothing here needs a warm parent
run(
    "mofe.data.hub:summary",
    snakemake,
    manifests=list(snakemake.input),
    instead=snakemake.params.instead,
)
