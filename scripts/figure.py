"""A figure as PDF and PNG (rules/report.smk)."""

from mofe.jobs.job import run
from mofe.study.setting import Setting

run(
    "mofe.report.figures:draw",
    snakemake,
    name=snakemake.wildcards.figure,
    spec=snakemake.params.spec,
    files=list(snakemake.input.files),
    seeds=snakemake.params.seeds,
    setting=Setting(**snakemake.params.setting),
    outputs=list(snakemake.output),
)
