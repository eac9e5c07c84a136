"""A training set's rows, sampled (rules/data.smk)."""

from pathlib import Path

from mofe.jobs.job import run

run(
    "mofe.stages.prepare:prepare",
    snakemake,
    params=snakemake.params.data,
    rows_file=Path(snakemake.output.rows),
    counts_file=Path(snakemake.output.counts),
    config_hash=snakemake.params.config_hash,
)
