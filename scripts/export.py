"""A variant with one seed as a Mixtral checkpoint with its card (rules/export.smk)."""

from pathlib import Path

from mofe.job import run

run(
    "mofe.export:export",
    snakemake,
    merge=snakemake.input.merge,
    deltas=list(snakemake.input.deltas),
    params=snakemake.params.model,
    names={**snakemake.params.names, "seed": int(snakemake.wildcards.seed)},
    out=Path(snakemake.output[0]),
)
