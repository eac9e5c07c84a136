# Evaluation: a task's questions, made once for all variants of one tokenizer, and what one variant with
# one seed answers.


rule questions:
    input:
        lambda w: PLAN.task_input(w.task),
        tokenizer=lambda w: PLAN.paths.model_dir(w.model),
    output:
        f"{ROOT}/questions/{{model}}/{{task}}.parquet",
    log:
        f"{ROOT}/logs/questions/{{model}}/{{task}}.log",
    wildcard_constraints:
        model=names(PLAN.tokenizers),
    conda:
        "../envs/mofe.yaml"
    threads: cpus(lambda w: COSTS.questions(w.task))
    resources:
        **asks(lambda w: COSTS.questions(w.task)),
    params:
        task=lambda w: PLAN.params.task(w.task),
    script:
        "../scripts/questions.py"


rule evaluate:
    input:
        asked=lambda w: PLAN.paths.questions(variant(w), w.task),
        merge=lambda w: PLAN.paths.origin_dir(variant(w)),
        dense=lambda w: PLAN.dense_input(variant(w)),
        trained=lambda w: PLAN.trained_files(variant(w), w.seed),
    output:
        record=f"{ROOT}/evals/{{variant}}/s{{seed}}/{{task}}.json",
        questions=f"{ROOT}/evals/{{variant}}/s{{seed}}/{{task}}.questions.jsonl.gz",
    log:
        f"{ROOT}/logs/evals/{{variant}}/s{{seed}}/{{task}}.log",
    conda:
        "../envs/mofe.yaml"
    threads: cpus(lambda w: COSTS.evaluate(variant(w), w.task))
    resources:
        **asks(lambda w: COSTS.evaluate(variant(w), w.task)),
    params:
        task=lambda w: PLAN.params.task(w.task),
        chain=lambda w: PLAN.params.chain(variant(w)),
        names=named,
    script:
        "../scripts/evaluate.py"
