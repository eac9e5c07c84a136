"""The tables and figures as one PDF (rules/report.smk)."""

from mofe.jobs.job import run
from mofe.study.setting import Setting

run(
    "mofe.report.document:write",
    snakemake,
    light=True,
    tables=list(zip(snakemake.input.tables, snakemake.params.numbers, strict=True)),
    figures=list(zip(snakemake.input.figures, snakemake.params.captions, strict=True)),
    setting=Setting(**snakemake.params.setting),
    out=snakemake.output[0],
)
