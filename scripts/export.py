"""A variant with one seed as a Mixtral checkpoint with its card (rules/export.smk)."""

from pathlib import Path

from mofe.jobs.job import run

run(
    "mofe.stages.export:export",
    snakemake,
    merge=snakemake.input.merge,
    trained=list(snakemake.input.trained),
    params=snakemake.params.model,
    names={**snakemake.params.names, "seed": int(snakemake.wildcards.seed)},
    out=Path(snakemake.output[0]),
)
