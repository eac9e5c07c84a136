# Dense models: the base, which is linked from the hub's folder or pretrained here, once for all
# seeds, and the experts that are fine-tuned from it, for each seed anew.


rule fetch_model:
    input:
        unpack(lambda w: GRAPH.fetch_model(**w)),
    output:
        directory(f"{ROOT}/experts/{{model}}"),
    log:
        f"{ROOT}/logs/experts/{{model}}.log",
    wildcard_constraints:
        model=models_by("hub"),
    localrule: True
    conda:
        "../envs/mofe.yaml"
    threads: cpus("fetch_model")
    resources:
        **asks("fetch_model"),
    params:
        **given("fetch_model", "model"),
    script:
        "../scripts/fetch_model.py"


rule pretrain:
    input:
        unpack(lambda w: GRAPH.pretrain(**w)),
    output:
        directory(f"{ROOT}/experts/{{model}}"),
    log:
        f"{ROOT}/logs/experts/{{model}}.log",
    wildcard_constraints:
        model=models_by("scratch"),
    conda:
        "../envs/mofe.yaml"
    threads: cpus("pretrain")
    resources:
        **asks("pretrain"),
    params:
        **given("pretrain", "model"),
    script:
        "../scripts/pretrain.py"


rule preflight:
    # Refuses models that do not fit together, or whose weights are not finite, before GPU-hours are
    # spent on training them.
    input:
        unpack(lambda w: GRAPH.preflight(**w)),
    output:
        f"{ROOT}/preflight/{{model}}.json",
    log:
        f"{ROOT}/logs/preflight/{{model}}.log",
    wildcard_constraints:
        model=models_by("train"),
    localrule: True  # it takes as long as reading the models once
    conda:
        "../envs/mofe.yaml"
    params:
        **given("preflight", "models"),
    script:
        "../scripts/preflight.py"


rule train_expert:
    input:
        unpack(lambda w: GRAPH.train_expert(**w)),
    output:
        directory(f"{ROOT}/experts/{{model}}/s{{seed}}"),
    log:
        f"{ROOT}/logs/experts/{{model}}/s{{seed}}.log",
    wildcard_constraints:
        model=models_by("train"),
    conda:
        "../envs/mofe.yaml"
    threads: cpus("train_expert")
    resources:
        **asks("train_expert"),
        **spread("train_expert"),
    params:
        **given("train_expert", "stage"),
    script:
        "../scripts/train_expert.py"


rule reinitialise:
    input:
        unpack(lambda w: GRAPH.reinitialise(**w)),
    output:
        directory(f"{ROOT}/experts/{{model}}/s{{seed}}"),
    log:
        f"{ROOT}/logs/experts/{{model}}/s{{seed}}.log",
    wildcard_constraints:
        model=models_by("reinitialise"),
    conda:
        "../envs/mofe.yaml"
    threads: cpus("reinitialise")
    resources:
        **asks("reinitialise"),
    params:
        **given("reinitialise", "model"),
    script:
        "../scripts/reinitialise.py"
