# What the study will take, before anything runs. It declares no output, so that asking for it always
# asks anew: finished runs correct it.


rule plan:
    log:
        f"{ROOT}/logs/plan.log",
    localrule: True
    conda:
        "../envs/mofe.yaml"
    params:
        markdown=f"{ROOT}/plan.md",
        json=f"{ROOT}/plan.json",
    script:
        "../scripts/plan.py"
