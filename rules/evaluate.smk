# Evaluation: a task's questions, made once for all variants with the same tokenizer, and the
# answers of one variant with one seed.


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
