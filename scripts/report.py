"""The report, one self-contained page (rules/report.smk)."""

from pathlib import Path

from mofe.job import run

captions = [" ".join(Path(c).read_text().split()) for c in snakemake.input.captions]
run(
    "mofe.report.page:write",
    snakemake,
    tables=snakemake.params.tables,
    figures=list(zip(snakemake.input.figures, captions, strict=True)),
    assumptions=snakemake.params.assumptions,
    trainings=list(snakemake.input.trainings),
    evaluations=list(snakemake.input.evaluations),
    study=snakemake.params.study,
    unit=snakemake.params.unit,
    notes=snakemake.params.notes,
    out=snakemake.output[0],
)
