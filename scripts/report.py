"""The report, one self-contained page (rules/report.smk)."""

from mofe.jobs.job import run
from mofe.report import sources
from mofe.study import tables
from mofe.study.setting import Setting

seeds = snakemake.params.seeds
shown = tables.filled(snakemake.params.tables, snakemake.input.cells, seeds)
trainings = list(snakemake.input.trainings)
runs = sources.RECORDS.filled(snakemake.params.trainings, trainings, seeds)
run(
    "mofe.report.page:write",
    snakemake,
    tables=shown,
    figures=list(zip(snakemake.input.figures, snakemake.params.captions, strict=True)),
    assumptions=snakemake.params.assumptions,
    data=dict(zip(snakemake.params.datasets, snakemake.input.data, strict=True)),
    mixes=sources.by_mix(snakemake.params.mixes, runs),
    trainings=trainings,
    evaluations=tables.evaluations(shown),
    claims=snakemake.input.claims,
    replications=next(iter(snakemake.input.get("replications", [])), None),
    command=snakemake.params.command,
    setting=Setting(**snakemake.params.setting),
    device=snakemake.params.device,
    notes=snakemake.params.notes,
    questions=snakemake.params.questions,
    out=snakemake.output[0],
)
