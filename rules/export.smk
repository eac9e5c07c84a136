# Trained models as checkpoints for others, on demand: no table needs them, so `all` makes none.


rule export:
    input:
        unpack(lambda w: GRAPH.export(**w)),
    output:
        directory(f"{ROOT}/models/{{variant}}/s{{seed}}"),
    log:
        f"{ROOT}/logs/models/{{variant}}/s{{seed}}.log",
    conda:
        "../envs/mofe.yaml"
    threads: cpus("export")
    resources:
        **asks("export"),
    params:
        **given("export", "model", "names"),
    script:
        "../scripts/export.py"


rule push:
    input:
        unpack(lambda w: GRAPH.push(**w)),
    output:
        f"{ROOT}/pushed/{{variant}}/s{{seed}}.json",
    log:
        f"{ROOT}/logs/pushed/{{variant}}/s{{seed}}.log",
    localrule: True  # compute nodes have no internet
    conda:
        "../envs/mofe.yaml"
    params:
        **given("push", "repo"),
    script:
        "../scripts/push.py"
