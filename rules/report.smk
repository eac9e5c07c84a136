# Tables, figures and the report, which read JSON and logs only; and on demand one PDF of the tables
# and figures.


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
    wildcard_constraints:
        number=names(str(n) for n, spec in PLAN.specs.items() if not spec.on_demand),
    conda:
        "../envs/mofe.yaml"
    threads: cpus("table")
    resources:
        **asks("table"),
    params:
        **given("table", "table", "seeds", "setting", "published"),
    script:
        "../scripts/table.py"


use rule table as table_on_demand with:
    # Such as the open questions': E3.tex.
    output:
        tex=f"{ROOT}/{{number}}.tex",
        md=f"{ROOT}/{{number}}.md",
        csv=report(
            f"{ROOT}/{{number}}.csv",
            caption="../docs/captions/table.rst",
            category="Tables",
            labels={"table": "{number}"},
        ),
    log:
        f"{ROOT}/logs/{{number}}.log",
    wildcard_constraints:
        number=names(str(n) for n, spec in PLAN.specs.items() if spec.on_demand),
    params:
        **given("table_on_demand", "table", "seeds", "setting", "published"),


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
        **given("figure", "spec", "caption", "seeds", "setting", "published"),
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
        **given(
            "report",
            "tables",
            "captions",
            "assumptions",
            "datasets",
            "trainings",
            "mixes",
            "device",
            "command",
            "notes",
            "questions",
            "seeds",
            "setting",
            "published",
        ),
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
    localrule: True
    conda:
        "../envs/mofe.yaml"
    params:
        **given("pdf", "numbers", "captions", "setting"),
    script:
        "../scripts/document.py"


rule archive:
    # On demand: everything but weights, to be kept and cited.
    input:
        **GRAPH.archive(),
        lock=provenance.lock(LOCKS),
    output:
        f"{ROOT}/archive.zip",
    log:
        f"{ROOT}/logs/archive.log",
    localrule: True  # it only copies files
    conda:
        "../envs/mofe.yaml"
    params:
        **given("archive", "config", "study", "scale"),
    script:
        "../scripts/archive.py"
