# Tables, figures and the report: they read JSON and nothing else.

# The paper's values by their hash: other values are drawn anew, wherever this checkout lies.
PUBLISHED = hashlib.sha256(
    Path(workflow.basedir, "mofe", "report", "paper.csv").read_bytes()
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
        table=lambda w: PLAN.tables[int(w.number)],
        unit=STUDY.time_unit,
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
        figure=names(PLAN.figures),
    conda:
        "../envs/mofe.yaml"
    threads: cpus("figure")
    resources:
        **asks("figure"),
    params:
        tables=lambda w: [PLAN.tables[n] for n in PLAN.figures[w.figure]],
        curves=lambda w: PLAN.curves if w.figure == "loss_curves" else [],
        unit=STUDY.time_unit,
        published=PUBLISHED,
        caption=lambda w: caption(w.figure),
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
        tables=list(PLAN.tables.values()),
        captions=[caption(figure) for figure in PLAN.figures],
        assumptions=PLAN.params.assumptions(),
        datasets=list(PLAN.datasets),
        mixes=PLAN.mixes,
        study=STUDY.study,
        unit=STUDY.time_unit,
        notes=list(STUDY.notes),
        published=PUBLISHED,
    script:
        "../scripts/report.py"
