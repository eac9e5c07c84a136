# Tables, figures and the report: they read JSON and nothing else.
PUBLISHED = Path(workflow.basedir, "mofe", "report", "paper.csv")  # the paper's values
TABLE_FORMATS = ["tex", "md", "csv"]
TABLES = expand(
    f"{ROOT}/table{{number}}.{{format}}", number=PLAN.tables, format=TABLE_FORMATS
)
FIGURES = expand(
    f"{ROOT}/figures/{{figure}}.{{format}}", figure=PLAN.figures, format=["pdf", "png"]
)


rule table:
    input:
        lambda w: PLAN.table_input(int(w.number)),
        PUBLISHED,
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
    threads: cpus(LIGHT)
    resources:
        **asks(LIGHT),
    params:
        table=lambda w: PLAN.tables[int(w.number)],
        unit=STUDY.time_unit,
    script:
        "../scripts/table.py"


rule figure:
    input:
        lambda w: PLAN.figure_input(w.figure),
        PUBLISHED,
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
    threads: cpus(LIGHT)
    resources:
        **asks(LIGHT),
    params:
        tables=lambda w: [PLAN.tables[n] for n in PLAN.figures[w.figure]],
        curves=lambda w: PLAN.curves if w.figure == "loss_curves" else [],
        unit=STUDY.time_unit,
    script:
        "../scripts/figure.py"


rule report:
    input:
        PUBLISHED,
        trainings=PLAN.train_jsons,
        evaluations=PLAN.eval_jsons,
        figures=expand(f"{ROOT}/figures/{{figure}}.png", figure=PLAN.figures),
        data=[PLAN.paths.data_counts(d) for d in PLAN.datasets],
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
    threads: cpus(LIGHT)
    resources:
        **asks(LIGHT),
    params:
        tables=list(PLAN.tables.values()),
        captions=[caption(figure) for figure in PLAN.figures],
        assumptions=PLAN.params.assumptions(),
        datasets=list(PLAN.datasets),
        mixes=PLAN.mixes,
        study=STUDY.study,
        unit=STUDY.time_unit,
        notes=list(STUDY.notes),
    script:
        "../scripts/report.py"
