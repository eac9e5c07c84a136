# Trained models for others, on demand: no table needs them, so `all` makes none.


rule export:
    input:
        merge=lambda w: PLAN.paths.origin_dir(variant(w)),
        dense=lambda w: PLAN.dense_input(variant(w)),
        trained=lambda w: PLAN.trained_files(variant(w), w.seed),
        trainings=lambda w: PLAN.params.export(variant(w), w.seed)["trainings"],
    output:
        directory(f"{ROOT}/models/{{variant}}/s{{seed}}"),
    log:
        f"{ROOT}/logs/models/{{variant}}/s{{seed}}.log",
    conda:
        "../envs/mofe.yaml"
    threads: cpus(lambda w: COSTS.export(variant(w)))
    resources:
        **asks(lambda w: COSTS.export(variant(w))),
    params:
        model=lambda w: PLAN.params.export(variant(w), w.seed),
        names=named,
    script:
        "../scripts/export.py"


rule push:
    input:
        model=to_push,
    output:
        f"{ROOT}/pushed/{{variant}}/s{{seed}}.json",
    log:
        f"{ROOT}/logs/pushed/{{variant}}/s{{seed}}.log",
    localrule: True  # compute nodes have no internet
    conda:
        "../envs/mofe.yaml"
    params:
        repo=lambda w: PLAN.params.push_repo(variant(w), w.seed),
    script:
        "../scripts/push.py"
