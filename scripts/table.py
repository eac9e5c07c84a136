"""A table of the paper as LaTeX, Markdown and CSV (rules/report.smk)."""

from mofe.jobs.job import run

run(
    "mofe.report.tables:write",
    snakemake,
    table=snakemake.params.table,
    unit=snakemake.params.unit,
    tex=snakemake.output.tex,
    md=snakemake.output.md,
    csv=snakemake.output.csv,
)
