"""A table of the paper as LaTeX, Markdown and CSV (rules/report.smk)."""

from mofe.jobs.job import run
from mofe.study.setting import Setting
from mofe.study.tables import filled

(table,) = filled([snakemake.params.table], snakemake.input.cells, snakemake.params.seeds)
run(
    "mofe.report.tables:write",
    snakemake,
    table=table,
    setting=Setting(**snakemake.params.setting),
    tex=snakemake.output.tex,
    md=snakemake.output.md,
    csv=snakemake.output.csv,
)
