"""Claims that several studies were asked, each study as one observation (rules/claims.smk)."""

from mofe.jobs.job import run

run(
    "mofe.report.replications:write",
    snakemake,
    claims=snakemake.params.claims,
    asked=list(snakemake.input.claims),
    **dict(snakemake.output.items()),
)
