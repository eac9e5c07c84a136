# The study as a page, while a run is at work or afterwards. The rule has no output, so it always runs
# when it is asked for, makes nothing else first, and locks nothing.


rule status:
    log:
        f"{ROOT}/logs/status.log",
    localrule: True
    conda:
        "../envs/mofe.yaml"
    script:
        "../scripts/status.py"
