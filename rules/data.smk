# Data: repositories of the hub, the generated world of the mini study, and training sets, whose
# rows are sampled once for all variants. Repositories are fetched on the machine that calls the
# workflow, because a cluster's nodes have no internet.


rule prefetch:
    input:
        **GRAPH.prefetch(),
    log:
        f"{ROOT}/logs/prefetch.log",
    localrule: True
    conda:
        "../envs/mofe.yaml"
    params:
        **given("prefetch", "instead"),
    script:
        "../scripts/prefetch.py"


rule fetch_repository:
    output:
        # The files are no output: Snakemake would delete them after a cut connection.
        f"{STUDY.hub}/{{repo}}.json",
    log:
        f"{ROOT}/logs/hub/{{repo}}.log",
    wildcard_constraints:
        repo=names(PLAN.repositories),
    localrule: True
    conda:
        "../envs/mofe.yaml"
    params:
        **given("fetch_repository", "repository"),
    script:
        "../scripts/fetch_repository.py"


rule world:
    output:
        directory(PLAN.paths.world),
    log:
        f"{ROOT}/logs/world.log",
    conda:
        "../envs/mofe.yaml"
    threads: cpus("world")
    resources:
        **asks("world"),
    params:
        **given("world", "world"),
    script:
        "../scripts/world.py"


rule prepare_data:
    input:
        unpack(lambda w: GRAPH.prepare_data(**w)),
    output:
        rows=f"{ROOT}/data/{{dataset}}.parquet",
        counts=f"{ROOT}/data/{{dataset}}.json",
    log:
        f"{ROOT}/logs/data/{{dataset}}.log",
    conda:
        "../envs/mofe.yaml"
    threads: cpus("prepare_data")
    resources:
        **asks("prepare_data"),
    params:
        **given("prepare_data", "data"),
    script:
        "../scripts/prepare_data.py"
