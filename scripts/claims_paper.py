"""The paper's own numbers, tested again (rules/claims.smk)."""

from mofe.jobs.job import run

run(
    "mofe.report.claims:write_paper",
    snakemake,
    light=True,
    claims=snakemake.params.claims,
    out=snakemake.output[0],
)
