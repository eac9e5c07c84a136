"""What was fetched from the hub (rules/data.smk)."""

from mofe.job import run

run(
    "mofe.hub:summary",
    snakemake,
    manifests=list(snakemake.input),
    instead=snakemake.params.instead,
)
