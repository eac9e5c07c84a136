"""What was fetched from the hub (rules/data.smk)."""

from mofe.job import go_online, run

go_online()  # as the jobs before it: nothing here needs a warm parent
run(
    "mofe.hub:summary",
    snakemake,
    manifests=list(snakemake.input),
    instead=snakemake.params.instead,
)
