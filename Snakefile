# MoFE, reproduced: every table of the paper, from nothing. config.yaml describes the experiment;
# profiles/ say where and how it runs.
from snakemake.utils import min_version

min_version("9.27.1")


report: "docs/captions/workflow.rst"


include: "rules/where.smk"
include: "rules/common.smk"
include: "rules/data.smk"
include: "rules/experts.smk"
include: "rules/merge.smk"
include: "rules/train.smk"
include: "rules/evaluate.smk"
include: "rules/report.smk"
include: "rules/claims.smk"
include: "rules/plan.smk"
include: "rules/verify.smk"
include: "rules/partial.smk"
include: "rules/compare.smk"
include: "rules/status.smk"
include: "rules/check.smk"
include: "rules/export.smk"


rule all:
    default_target: True
    input:
        **GRAPH.all(),
