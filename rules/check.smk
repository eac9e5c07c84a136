# The doctor: whether the machine where the workflow is called, and the one that jobs run on, can run the
# study. A parameter that is never the same has everything looked at anew each time.
import time


rule check_here:
    output:
        f"{ROOT}/check/here.json",
    log:
        f"{ROOT}/logs/check/here.log",
    localrule: True
    conda:
        "../envs/mofe.yaml"
    params:
        cluster=not workflow.local_exec,
        when=time.time(),
    script:
        "../scripts/check_here.py"


rule check_node:
    input:
        f"{ROOT}/check/here.json",  # which ends the check where nothing can be submitted
    output:
        f"{ROOT}/check/node.json",
    log:
        f"{ROOT}/logs/check/node.log",
    conda:
        "../envs/mofe.yaml"
    resources:
        gpu=int(STUDY.device == "cuda"),
        mem_mb=8000,
        runtime=5,
    params:
        locks=LOCKS,
        when=time.time(),
    script:
        "../scripts/check_node.py"


rule check:
    input:
        here=f"{ROOT}/check/here.json",
        nodes=f"{ROOT}/check/node.json",
    log:
        f"{ROOT}/logs/check.log",
    localrule: True
    conda:
        "../envs/mofe.yaml"
    params:
        json=PLAN.paths.check,
    script:
        "../scripts/check.py"
