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
        model=lambda w: PLAN.params.model(w.model),
    script:
        "../scripts/fetch_model.py"


rule pretrain:
    input:
        world=PLAN.paths.world,
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
        model=lambda w: PLAN.params.model(w.model),
    script:
        "../scripts/pretrain.py"


rule preflight:
    # An expert that will not fit is refused before GPU-hours are spent on training others for its
    # mixtures. Headers, configurations and tokenizers are read, no weights.
    input:
        lambda w: list(PLAN.params.preflight(w.model)["names"]),
    output:
        f"{ROOT}/preflight/{{model}}.json",
    log:
        f"{ROOT}/logs/preflight/{{model}}.log",
    wildcard_constraints:
        model=models_by("from_"),
    localrule: True  # it takes seconds
    conda:
        "../envs/mofe.yaml"
    params:
        models=lambda w: PLAN.params.preflight(w.model),
    script:
        "../scripts/preflight.py"


rule train_expert:
    input:
        f"{ROOT}/preflight/{{model}}.json",
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
        **spread(COSTS.train_expert, [m for m in PLAN.models if STUDY.models[m].from_]),
    params:
        stage=lambda w: PLAN.params.model(w.model),
        seed=STUDY.sampling_seed,
    script:
        "../scripts/train_expert.py"
