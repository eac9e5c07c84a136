# Two results compared: `snakemake ... compare A B`. The rule has no output, so it always runs when it is
# asked for.

compared.take_arguments(workflow, refuse, CALLED.rename(compared.RULE))


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
