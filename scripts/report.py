"""The report, one self-contained page (rules/report.smk)."""

from mofe.jobs.job import run

run(
    "mofe.report.page:write",
    snakemake,
    tables=snakemake.params.tables,
    figures=list(zip(snakemake.input.figures, snakemake.params.captions, strict=True)),
    assumptions=snakemake.params.assumptions,
    data=dict(zip(snakemake.params.datasets, snakemake.input.data, strict=True)),
    mixes=snakemake.params.mixes,
    trainings=list(snakemake.input.trainings),
    evaluations=list(snakemake.input.evaluations),
    study=snakemake.params.study,
    unit=snakemake.params.unit,
    notes=snakemake.params.notes,
    out=snakemake.output[0],
)
