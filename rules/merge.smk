# Mixtures of experts: what mergekit-moe makes of a base and its experts, stored as a router and
# references to the dense models. So whatever loads a merge has those as inputs too.


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
