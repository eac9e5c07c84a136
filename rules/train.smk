# Fine-tuning: one stage of one variant with one seed. What was trained is stored, to be laid over
# the merge.


rule train:
    input:
        merge=lambda w: PLAN.paths.origin_dir(variant(w)),
        dense=lambda w: PLAN.dense_input(variant(w)),
        parents=lambda w: PLAN.trained_files(variant(w), w.seed)[:-1],
        data=lambda w: PLAN.stage_data(variant(w).stages[-1].mix),
    output:
        trained=f"{ROOT}/variants/{{variant}}/s{{seed}}/trained.safetensors",
        record=f"{ROOT}/variants/{{variant}}/s{{seed}}/train.json",
        log=f"{ROOT}/variants/{{variant}}/s{{seed}}/log.jsonl",
    log:
        f"{ROOT}/logs/variants/{{variant}}/s{{seed}}.log",
    conda:
        "../envs/mofe.yaml"
    threads: cpus(lambda w: COSTS.train(variant(w)))
    resources:
        **asks(lambda w: COSTS.train(variant(w))),
        **spread(COSTS.train, PLAN.trained.values()),
    params:
        stage=lambda w: PLAN.params.stage(variant(w).stages[-1]),
        chain=lambda w: PLAN.params.chain(variant(w))[:-1],
        names=named,
    script:
        "../scripts/train.py"
