# Claims: the paper's own numbers tested again, and what the study's records show of each claim.


rule claim:
    input:
        unpack(lambda w: GRAPH.claim(**w)),
    output:
        f"{ROOT}/claims/{{claim}}.json",
    log:
        f"{ROOT}/logs/claims/{{claim}}.log",
    wildcard_constraints:
        claim=names(PLAN.claims),
    conda:
        "../envs/mofe.yaml"
    threads: cpus("claim")
    resources:
        **asks("claim"),
    params:
        **given("claim", "claim", "tables", "conditions", "seeds", "published"),
    script:
        "../scripts/claim.py"


rule claims:
    input:
        **GRAPH.claims(),
    output:
        json=f"{ROOT}/claims.json",
        csv=f"{ROOT}/claims.csv",
        md=report(
            f"{ROOT}/claims.md",
            caption="../docs/captions/claims.rst",
            category="Claims",
        ),
        tex=f"{ROOT}/claims.tex",
    log:
        f"{ROOT}/logs/claims.log",
    conda:
        "../envs/mofe.yaml"
    threads: cpus("claims")
    resources:
        **asks("claims"),
    params:
        **given("claims", "seeds", "published"),
    script:
        "../scripts/claims.py"


rule replicated:
    input:
        **GRAPH.replicated(),
    # What this study says of the claims that others are asked too; it makes nothing else.
    localrule: True


rule replications:
    input:
        unpack(asked_elsewhere),
    output:
        json=f"{ROOT}/replications.json",
        md=f"{ROOT}/replications.md",
    log:
        f"{ROOT}/logs/replications.log",
    localrule: True
    conda:
        "../envs/mofe.yaml"
    params:
        **given("replications", "claims", "published"),
    script:
        "../scripts/replications.py"


rule claims_paper:
    # The verdicts on the paper's own numbers: nothing is trained for them.
    output:
        f"{ROOT}/claims_paper.md",
    log:
        f"{ROOT}/logs/claims_paper.log",
    localrule: True
    conda:
        "../envs/mofe.yaml"
    params:
        **given("claims_paper", "claims", "published"),
    script:
        "../scripts/claims_paper.py"
