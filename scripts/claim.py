"""What is known of one claim (rules/claims.smk)."""

from mofe.jobs.job import run
from mofe.study.tables import filled

shown = filled(snakemake.params.tables, snakemake.input.get("cells", []), snakemake.params.seeds)
run(
    "mofe.report.claims:write_one",
    snakemake,
    name=snakemake.wildcards.claim,
    claim=snakemake.params.claim,
    tables=shown or None,
    conditions=snakemake.params.conditions,
    world=next(iter(snakemake.input.get("world", [])), None),
    out=snakemake.output[0],
)
