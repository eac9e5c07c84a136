# Mixtures of experts: mergekit-moe's Mixtral of a base and its experts.


rule merge:
    input:
        lambda w: PLAN.merge_input(w.moe),
    output:
        directory(f"{ROOT}/moe/{{moe}}"),
    log:
        f"{ROOT}/logs/moe/{{moe}}.log",
    conda:
        "../envs/mofe.yaml"
    threads: cpus(lambda w: COSTS.merge(w.moe))
    resources:
        **asks(lambda w: COSTS.merge(w.moe)),
    params:
        merge=lambda w: PLAN.merge_params(w.moe),
    script:
        "../scripts/merge.py"
