# Tables, figures and the report: they read JSON and nothing else.
PUBLISHED = Path(workflow.basedir, "mofe", "report", "paper.csv")  # the paper's values
TABLE_FORMATS = ["tex", "md", "csv"]
TABLES = expand(
    f"{ROOT}/table{{number}}.{{format}}", number=PLAN.tables, format=TABLE_FORMATS
)
FIGURE_FILES = expand(
    f"{ROOT}/figures/{{figure}}.{{format}}", figure=FIGURES, format=["pdf", "png"]
)


rule table:
    input:
        PUBLISHED,
        cells=lambda w: PLAN.table_input(table_key(w)),
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
        table=lambda w: bare([PLAN.tables[table_key(w)]])[0],
        seeds=len(STUDY.seeds),
        unit=STUDY.time_unit,
    script:
        "../scripts/table.py"


rule figure:
    input:
        PUBLISHED,
        files=lambda w: FIGURES[w.figure].source.files(PLAN),
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
    threads: cpus(LIGHT)
    resources:
        **asks(LIGHT),
    params:
        spec=lambda w: FIGURES[w.figure].source.spec(PLAN),
        caption=lambda w: FIGURES[w.figure].caption,
        seeds=len(STUDY.seeds),
        unit=STUDY.time_unit,
    script:
        "../scripts/figure.py"


rule report:
    input:
        PUBLISHED,
        trainings=RECORDS.files(PLAN),
        figures=expand(f"{ROOT}/figures/{{figure}}.png", figure=FIGURES),
        cells=files(PLAN.tables.values()),
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
        tables=bare(PLAN.tables.values()),
        seeds=len(STUDY.seeds),
        captions=[figure.caption for figure in FIGURES.values()],
        assumptions=PLAN.params.assumptions(),
        datasets=list(PLAN.datasets),
        trainings=RECORDS.spec(PLAN),
        mixes=PLAN.mixes,
        study=STUDY.study,
        unit=STUDY.time_unit,
        notes=list(STUDY.notes),
    script:
        "../scripts/report.py"
