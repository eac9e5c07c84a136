"""Two results compared (rules/compare.smk)."""

from mofe.jobs.job import run

first, second = snakemake.params.places
run(
    "mofe.stages.compare:write",
    snakemake,
    light=True,
    config=snakemake.config,
    first=first,
    second=second,
    markdown=snakemake.params.markdown,
    csv=snakemake.params.csv,
)
