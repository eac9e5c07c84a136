# Evaluation: a task's questions, made once for all variants with the same tokenizer, and the
# answers of one variant with one seed. On demand, the experts of each token of a few questions.


rule questions:
    input:
        unpack(lambda w: GRAPH.questions(**w)),
    output:
        f"{ROOT}/questions/{{model}}/{{task}}.parquet",
    log:
        f"{ROOT}/logs/questions/{{model}}/{{task}}.log",
    wildcard_constraints:
        model=names(PLAN.tokenizers),
    conda:
        "../envs/mofe.yaml"
    threads: cpus("questions")
    resources:
        **asks("questions"),
    params:
        **given("questions", "task"),
    script:
        "../scripts/questions.py"


rule evaluate:
    input:
        unpack(lambda w: GRAPH.evaluate(**w)),
    output:
        record=f"{ROOT}/evals/{{variant}}/s{{seed}}/{{task}}.json",
        questions=f"{ROOT}/evals/{{variant}}/s{{seed}}/{{task}}.questions.jsonl.gz",
    log:
        f"{ROOT}/logs/evals/{{variant}}/s{{seed}}/{{task}}.log",
    conda:
        "../envs/mofe.yaml"
    threads: cpus("evaluate")
    resources:
        **asks("evaluate"),
    params:
        **given("evaluate", "task", "chain", "names"),
    script:
        "../scripts/evaluate.py"


rule tokens:
    # On demand: no table needs it, so `all` makes none.
    input:
        unpack(lambda w: GRAPH.tokens(**w)),
    output:
        f"{ROOT}/tokens/{{variant}}/s{{seed}}/{{task}}.html",
    log:
        f"{ROOT}/logs/tokens/{{variant}}/s{{seed}}/{{task}}.log",
    wildcard_constraints:
        variant=names(key for key, v in PLAN.variants.items() if v.origin.experts),
    conda:
        "../envs/mofe.yaml"
    threads: cpus("tokens")
    resources:
        **asks("tokens"),
    params:
        **given("tokens", "chain", "names", "slots", "drawn", "setting"),
    script:
        "../scripts/tokens.py"
