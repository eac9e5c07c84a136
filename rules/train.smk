# Fine-tuning: one stage of one variant with one seed. Only the trained parameters are stored;
# loading puts them in place of the merge's.


rule train:
    input:
        unpack(lambda w: GRAPH.train(**w)),
    output:
        trained=f"{ROOT}/variants/{{variant}}/s{{seed}}/trained.safetensors",
        record=f"{ROOT}/variants/{{variant}}/s{{seed}}/train.json",
        log=f"{ROOT}/variants/{{variant}}/s{{seed}}/log.jsonl",
    log:
        f"{ROOT}/logs/variants/{{variant}}/s{{seed}}.log",
    conda:
        "../envs/mofe.yaml"
    threads: cpus("train")
    resources:
        **asks("train"),
        **spread("train"),
    params:
        stage=lambda w: PLAN.params.stage(variant(w).stages[-1]),
        chain=lambda w: PLAN.params.chain(variant(w))[:-1],
        names=named,
    script:
        "../scripts/train.py"
