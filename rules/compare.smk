# Two results compared: `snakemake ... compare A B`. The rule has no output, so it always runs when it is
# asked for.

if CALLED.rename(compared.RULE) == compared.RULE:  # no module renames it
    compared.take_arguments(workflow, refuse)


rule compare:
    log:
        f"{ROOT}/logs/compare.log",
    localrule: True
    conda:
        "../envs/mofe.yaml"
    params:
        places=compared.places,
        markdown=PLAN.paths.compared("md"),
        csv=PLAN.paths.compared("csv"),
    script:
        "../scripts/compare.py"
