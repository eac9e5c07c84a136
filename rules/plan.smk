# What the study will take, before anything runs. The rule has no output, so it always runs when it
# is asked for: finished runs correct the estimates.


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
