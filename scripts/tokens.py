"""A few questions with the experts of each token (rules/evaluate.smk)."""

from pathlib import Path

from mofe.jobs.job import run
from mofe.study.setting import Setting

run(
    "mofe.stages.tokens:show",
    snakemake,
    merge=snakemake.input.merge,
    trained=list(snakemake.input.trained),
    chain=snakemake.params.chain,
    asked=snakemake.input.asked,
    names={
        **snakemake.params.names,
        "seed": snakemake.wildcards.seed,
        "task": snakemake.wildcards.task,
    },
    slots=list(snakemake.params.slots),
    drawn=snakemake.params.drawn,
    setting=Setting(**snakemake.params.setting),
    out=Path(snakemake.output[0]),
    loads=True,
)
