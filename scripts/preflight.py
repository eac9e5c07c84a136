"""Whether the models of a dense expert's mixtures fit together (rules/experts.smk)."""

from pathlib import Path

from mofe.job import run

run(
    "mofe.preflight:record",
    snakemake,
    params=snakemake.params.models,
    out=Path(snakemake.output[0]),
)
