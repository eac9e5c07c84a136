"""A variant with one seed on one task (rules/evaluate.smk)."""

from pathlib import Path

from mofe.jobs.job import run

run(
    "mofe.stages.evaluate:evaluate_variant",
    snakemake,
    merge=snakemake.input.merge,
    trained=list(snakemake.input.trained),
    chain=snakemake.params.chain,
    asked=snakemake.input.asked,
    params=snakemake.params.task,
    names={**snakemake.params.names, "seed": int(snakemake.wildcards.seed)},
    record=Path(snakemake.output.record),
    questions=Path(snakemake.output.questions),
    loads=True,
    config_hash=snakemake.params.config_hash,
)
