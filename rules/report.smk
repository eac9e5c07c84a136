# Tables, figures and the report, which read JSON and logs only; and on demand one PDF of the tables
# and figures.


localrules:
    pdf,


# The hash of the paper's values: if they change, tables and figures are made again. A hash, because
# a path would differ between checkouts.
PUBLISHED = hashlib.sha256(
    Path(workflow.basedir, "mofe", "paper.csv").read_bytes()
).hexdigest()


rule table:
    input:
        unpack(lambda w: GRAPH.table(**w)),
    output:
        tex=f"{ROOT}/table{{number}}.tex",
        md=f"{ROOT}/table{{number}}.md",
        csv=report(
            f"{ROOT}/table{{number}}.csv",
            caption="../docs/captions/table.rst",
            category="Tables",
            labels={"table": "{number}"},
        ),
    log:
        f"{ROOT}/logs/table{{number}}.log",
    conda:
        "../envs/mofe.yaml"
    threads: cpus("table")
    resources:
        **asks("table"),
    params:
        table=lambda w: bare([PLAN.tables[PLAN.table_key(w.number)]])[0],
        seeds=len(STUDY.seeds),
        setting=STUDY.setting,
        published=PUBLISHED,
    script:
        "../scripts/table.py"


rule figure:
    input:
        unpack(lambda w: GRAPH.figure(**w)),
    output:
        pdf=f"{ROOT}/figures/{{figure}}.pdf",
        png=report(
            f"{ROOT}/figures/{{figure}}.png",
            caption="../docs/captions/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        f"{ROOT}/logs/figures/{{figure}}.log",
    wildcard_constraints:
        figure=names(FIGURES),
    conda:
        "../envs/mofe.yaml"
    threads: cpus("figure")
    resources:
        **asks("figure"),
    params:
        spec=lambda w: FIGURES[w.figure].source.spec(PLAN),
        caption=lambda w: figures.caption(w.figure, STUDY.setting),
        seeds=len(STUDY.seeds),
        setting=STUDY.setting,
        published=PUBLISHED,
    script:
        "../scripts/figure.py"


rule report:
    input:
        **GRAPH.report(),
    output:
        report(
            f"{ROOT}/report.html",
            caption="../docs/captions/report.rst",
            category="Report",
        ),
    log:
        f"{ROOT}/logs/report.log",
    conda:
        "../envs/mofe.yaml"
    threads: cpus("report")
    resources:
        **asks("report"),
    params:
        tables=bare(PLAN.tables.values()),
        seeds=len(STUDY.seeds),
        captions=[figures.caption(name, STUDY.setting) for name in FIGURES],
        assumptions=PLAN.params.assumptions(),
        datasets=list(PLAN.datasets),
        trainings=RECORDS.spec(PLAN),
        mixes=PLAN.mixes,
        setting=STUDY.setting,
        device=STUDY.device,
        command=command.without_target(
            CONFIG_FILES, workflow.config_settings.config, workflow.basedir
        ),
        notes=list(STUDY.notes),
        published=PUBLISHED,
    script:
        "../scripts/report.py"


rule pdf:
    # On demand: `all` does not need LaTeX.
    input:
        **GRAPH.pdf(),
    output:
        PLAN.paths.pdf,
    log:
        f"{ROOT}/logs/pdf.log",
    conda:
        "../envs/mofe.yaml"
    params:
        numbers=list(PLAN.tables),
        captions=[figures.caption(name, STUDY.setting) for name in FIGURES],
        setting=STUDY.setting,
    script:
        "../scripts/document.py"


rule archive:
    # On demand: everything but weights, to be kept and cited.
    input:
        **GRAPH.archive(),
        lock=os.path.relpath(Path(workflow.basedir, "requirements.lock")),
    output:
        f"{ROOT}/archive.zip",
    log:
        f"{ROOT}/logs/archive.log",
    localrule: True  # it only copies files
    conda:
        "../envs/mofe.yaml"
    params:
        config=config,
        study=STUDY.study,
        scale=STUDY.scale,
    script:
        "../scripts/archive.py"
