"""A study's results in one file (rules/report.smk)."""

from pathlib import Path

from mofe.jobs.job import run

# with the checksums beside what is packed, by which a reader finds damage
sums = sorted({made["sums"] for made in snakemake.params.read})
run(
    "mofe.report.archive:write",
    snakemake,
    files=[*(file for file in snakemake.input if file != snakemake.input.lock), *sums],
    root=Path(snakemake.output[0]).parent,
    config=snakemake.params.config,
    lock=snakemake.input.lock,
    study=snakemake.params.study,
    scale=snakemake.params.scale,
    out=snakemake.output[0],
)
