# Mixtures of experts, which mergekit-moe makes from a base and its experts. A merge is stored as a
# router with references to the dense models, so every job that loads a merge has those as inputs
# too.


rule merge:
    input:
        unpack(lambda w: GRAPH.merge(**w)),
    output:
        directory(f"{ROOT}/moe/{{moe}}"),
    log:
        f"{ROOT}/logs/moe/{{moe}}.log",
    conda:
        "../envs/mofe.yaml"
    threads: cpus("merge")
    resources:
        **asks("merge"),
    params:
        merge=lambda w: PLAN.params.merge(w.moe),
    script:
        "../scripts/merge.py"
