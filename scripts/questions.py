"""A task's questions in a model's tokens (rules/evaluate.smk)."""

from pathlib import Path

from mofe.jobs.job import run

run(
    "mofe.stages.questions:make",
    snakemake,
    params=snakemake.params.task,
    tokenizer=snakemake.input.tokenizer,
    out=Path(snakemake.output[0]),
)
