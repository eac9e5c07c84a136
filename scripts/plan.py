"""The plan of the study, as a page and as JSON (rules/plan.smk)."""

from pathlib import Path

from mofe.jobs.job import run

run(
    "mofe.stages.plan:write",
    snakemake,
    config=snakemake.config,
    markdown_file=Path(snakemake.params.markdown),
    json_file=Path(snakemake.params.json),
)
