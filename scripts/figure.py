"""A figure as PDF and PNG (rules/report.smk)."""

from mofe.jobs.job import run

figure, outputs = snakemake.wildcards.figure, list(snakemake.output)
drawn_from = (
    {"curves": snakemake.params.curves}
    if figure == "loss_curves"
    else {"tables": snakemake.params.tables, "unit": snakemake.params.unit}
)
run(f"mofe.report.figures:{figure}", snakemake, **drawn_from, outputs=outputs)
