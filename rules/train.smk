# Fine-tuning: one stage of one variant with one seed. Only the trained parameters are stored;
# loading puts them in place of the merge's. A recipe with `search` has its learning rate found first.


rule train:
    input:
        unpack(lambda w: GRAPH.train(**w)),
    output:
        record=f"{ROOT}/variants/{{variant}}/s{{seed}}/train.json",
        trained=f"{ROOT}/variants/{{variant}}/s{{seed}}/trained.safetensors",
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
        **given("train", "stage", "chain", "names"),
    script:
        "../scripts/train.py"


rule search:
    # A learning rate for a variant: the best of its candidates, which are trainings as all others.
    input:
        unpack(lambda w: GRAPH.search(**w)),
    output:
        f"{ROOT}/variants/{{variant}}/search.json",
    log:
        f"{ROOT}/logs/variants/{{variant}}/search.log",
    wildcard_constraints:
        variant=names(PLAN.searches),
    conda:
        "../envs/mofe.yaml"
    threads: cpus("search")
    resources:
        **asks("search"),
    params:
        **given("search", "names"),
    script:
        "../scripts/search.py"
