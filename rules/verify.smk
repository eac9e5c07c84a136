# Whether everything that the study has made is still as it was made. The rules have no output, so they
# always run when they are asked for, and make nothing else first.


rule verify:
    log:
        f"{ROOT}/logs/verify.log",
    localrule: True
    conda:
        "../envs/mofe.yaml"
    params:
        command=CALLED.command,
    script:
        "../scripts/verify.py"


rule sums:
    # Takes what has no checksums as it is: results of an earlier version.
    log:
        f"{ROOT}/logs/sums.log",
    localrule: True
    conda:
        "../envs/mofe.yaml"
    params:
        command=CALLED.command,
    script:
        "../scripts/sums.py"
