# Mixtures of experts, which mergekit-moe makes from a base and its experts. A merge is stored as a
# router with references to the dense models, so every job that loads a merge has those as inputs
# too. A merge with a dense model that the study fine-tunes is made for each seed anew.


rule merge:
    input:
        unpack(lambda w: GRAPH.merge(**w)),
    output:
        directory(f"{ROOT}/moe/{{moe}}"),
    log:
        f"{ROOT}/logs/moe/{{moe}}.log",
    wildcard_constraints:
        moe=names(n for n, moe in PLAN.moes.items() if not PLAN.merge_seeds(moe)),
    conda:
        "../envs/mofe.yaml"
    threads: cpus("merge")
    resources:
        **asks("merge"),
    params:
        **given("merge", "merge"),
    script:
        "../scripts/merge.py"


use rule merge as merge_per_seed with:
    input:
        unpack(lambda w: GRAPH.merge_per_seed(**w)),
    output:
        directory(f"{ROOT}/moe/{{moe}}/s{{seed}}"),
    log:
        f"{ROOT}/logs/moe/{{moe}}/s{{seed}}.log",
    wildcard_constraints:
        moe=names(n for n, moe in PLAN.moes.items() if PLAN.merge_seeds(moe)),
    params:
        **given("merge_per_seed", "merge"),
