"""All claims of a study (rules/claims.smk)."""

from mofe.jobs.job import run

run(
    "mofe.report.claims:write_all",
    snakemake,
    claims=list(snakemake.input.claims),
    seeds=snakemake.params.seeds,
    **dict(snakemake.output.items()),
)
