"""A training set's rows, sampled (rules/data.smk)."""

from pathlib import Path

from mofe.job import run

run(
    "mofe.data.prepare:prepare",
    snakemake,
    params=snakemake.params.data,
    rows_file=Path(snakemake.output.rows),
    counts_file=Path(snakemake.output.counts),
)
