# The tables of what there is, on request. The rule has no output, so it always runs when it is asked
# for, and makes nothing else first.


rule partial:
    log:
        f"{ROOT}/logs/partial.log",
    localrule: True
    conda:
        "../envs/mofe.yaml"
    script:
        "../scripts/partial.py"
