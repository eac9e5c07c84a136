# Training sets: the generated world of the mini study, and rows sampled once for all variants.


rule world:
    output:
        directory(PLAN.world),
    log:
        f"{ROOT}/logs/world.log",
    conda:
        "../envs/mofe.yaml"
    threads: cpus(LIGHT)
    resources:
        **asks(LIGHT),
    params:
        world=STUDY.world.model_dump() if STUDY.world else None,
    script:
        "../scripts/world.py"


rule prepare_data:
    input:
        PLAN.source_input(),
    output:
        rows=f"{ROOT}/data/{{dataset}}.parquet",
        counts=f"{ROOT}/data/{{dataset}}.json",
    log:
        f"{ROOT}/logs/data/{{dataset}}.log",
    conda:
        "../envs/mofe.yaml"
    threads: cpus(lambda w: COSTS.data(w.dataset))
    resources:
        **asks(lambda w: COSTS.data(w.dataset)),
    params:
        data=lambda w: PLAN.data_params(w.dataset),
    script:
        "../scripts/prepare_data.py"
