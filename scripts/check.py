"""Whether this machine and the jobs' can run the study, in one screen (rules/check.smk)."""

from pathlib import Path

from mofe.jobs.job import run

run(
    "mofe.stages.check:report",
    snakemake,
    light=True,
    config=snakemake.config,
    seen=Path(snakemake.input.here),
    nodes=[snakemake.input.nodes],
    out=Path(snakemake.params.json),
)
