# Dense models: the base, linked from the hub's folder or pretrained here, and the experts fine-tuned from it.


localrules:
    fetch_model,


rule fetch_model:
    input:
        lambda w: PLAN.model_input(w.model),
    output:
        directory(f"{ROOT}/experts/{{model}}"),
    log:
        f"{ROOT}/logs/experts/{{model}}.log",
    wildcard_constraints:
        model=models_by("hub"),
    conda:
        "../envs/mofe.yaml"
    threads: cpus(lambda w: COSTS.fetch(w.model))
    resources:
        **asks(lambda w: COSTS.fetch(w.model)),
    params:
        model=lambda w: PLAN.model_params(w.model),
    script:
        "../scripts/fetch_model.py"


rule pretrain:
    input:
        world=PLAN.world,
    output:
        directory(f"{ROOT}/experts/{{model}}"),
    log:
        f"{ROOT}/logs/experts/{{model}}.log",
    wildcard_constraints:
        model=models_by("scratch"),
    conda:
        "../envs/mofe.yaml"
    threads: cpus(lambda w: COSTS.train_expert(w.model))
    resources:
        **asks(lambda w: COSTS.train_expert(w.model)),
    params:
        model=lambda w: PLAN.model_params(w.model),
    script:
        "../scripts/pretrain.py"


rule train_expert:
    input:
        origin=lambda w: PLAN.origin(w.model),
        data=lambda w: PLAN.expert_data(w.model),
    output:
        directory(f"{ROOT}/experts/{{model}}"),
    log:
        f"{ROOT}/logs/experts/{{model}}.log",
    wildcard_constraints:
        model=models_by("from_"),
    conda:
        "../envs/mofe.yaml"
    threads: cpus(lambda w: COSTS.train_expert(w.model))
    resources:
        **asks(lambda w: COSTS.train_expert(w.model)),
    params:
        stage=lambda w: PLAN.model_params(w.model),
        seed=STUDY.sampling_seed,
    script:
        "../scripts/train_expert.py"
