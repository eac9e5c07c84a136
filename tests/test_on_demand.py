"""Tables on demand: they are made when their file is asked for, and are no part of `all` until the
study goes beyond."""

import csv
import json
import re
from collections import Counter

import pytest
from conftest import CONFIG, MINI, REDUCED, ROOT, snakemake
from test_workflow import jobs as printed

from mofe import records
from mofe.estimate.cost import Costs
from mofe.estimate.forecast import forecast
from mofe.estimate.page import markdown
from mofe.report import figures
from mofe.study.graph import ALL, Graph
from mofe.study.load import read_study
from mofe.study.plan import Plan

QUESTIONS = ROOT / "profiles" / "questions.yaml"
CLAIM = {
    "says": "MoFE keeps what full fine-tuning gains.",
    "place": "our question",
    "section": "ours",
    "in_paper": False,
    "table": "Q",
    "kind": "equal",
    "parts": {"MMLU": [["MoFE", "Full"]]},
}
TABLE = {
    "caption": "A question.",
    "labels": ["Fine-tuning"],
    "columns": {"MMLU": "mmlu"},
    "on_demand": True,
    "rows": {
        "MoFE": {"mixture": "small", "train": {"mmlu": "mofe"}},
        "Full": {"mixture": "small", "train": {"mmlu": "full"}},
    },
}
ASKED = {"tables": {"Q": TABLE}, "claims": {"mine": CLAIM}}


def plan(on_demand=False, **overlay) -> Plan:
    return Plan(read_study(CONFIG, results="results", **overlay), on_demand)


def outputs(plan: Plan, *targets: str) -> set[str]:
    return {n.outputs[0] for n in Graph(plan, figures.inputs(plan.of_all)).needed(*targets)}


def test_all_is_the_same_with_a_table_on_demand_as_without():
    without, asked = plan(), plan(True, **ASKED)
    assert asked.of_all.tables == without.tables and asked.of_all.variants == without.variants
    assert outputs(asked, ALL) == outputs(without, ALL)
    assert "mine" in asked.claims and "mine" not in asked.of_all.claims


def test_its_file_needs_its_trainings_and_no_other_table():
    asked = plan(True, **ASKED)
    made = outputs(asked, "results/Q.tex")
    trained = {file for file in made if file.endswith("train.json")}
    kept = {
        f"results/variants/tinyllama_2tinyllama/mmlu_{r}/s0/train.json" for r in ("mofe", "full")
    }
    assert trained == kept
    assert not {file for file in made if file.startswith("results/table")}


def test_a_study_that_goes_beyond_has_it_in_all_and_in_the_report():
    beyond = plan(True, **ASKED, beyond=True)
    assert beyond.tables == beyond.of_all.tables and "Q" in beyond.of_all.tables
    assert {"results/Q.tex", "results/claims/mine.json"} <= outputs(beyond, ALL)


def test_only_a_study_that_goes_beyond_fetches_its_models_before_they_are_asked_for():
    def fetched(**overlay) -> set[str]:
        asked = Plan(read_study(CONFIG, QUESTIONS, results="results", **overlay), True)
        graph = Graph(asked, figures.inputs(asked.of_all))
        return set(graph.prefetch()["manifests"])

    alone = plan()
    assert fetched() == set(Graph(alone, figures.inputs(alone)).prefetch()["manifests"])
    further = fetched(beyond=True) - fetched()
    assert any("SmolLM2-135M" in file for file in further)
    assert any("Mistral-7B-v0.1" in file for file in further)


def test_the_plan_prints_what_it_takes_on_each_gpu_and_with_larger_bases():
    asked = plan(True, **ASKED)
    found = forecast(Costs(asked), figures.inputs(asked.of_all))
    one = found.on_demand["Q"]
    assert one.totals.trainings == 2 and set(one.gpu_hours) == set(found.machines)
    assert one.gpu_hours["a100-80gb"] == pytest.approx(one.totals.gpu_hours)
    assert one.gpu_hours["h100"] < one.gpu_hours["a100-80gb"] < min(one.other_bases.values())
    alone = forecast(Costs(plan()), figures.inputs(plan()))
    assert found.totals == alone.totals and not alone.on_demand
    page = markdown(found)
    assert re.search(rf"\| Q +\| +{one.totals.jobs} \| +2 \| +2 \|", page)
    assert "Beyond the paper" not in markdown(alone)


def test_the_workflow_makes_it_when_it_is_asked_for(tmp_path):
    overlay = tmp_path / "asked.yaml"
    row = {"mixture": "small", "train": {"mmlu": "mofe"}}
    overlay.write_text(json.dumps({"tables": {"Q": TABLE | {"rows": {"MoFE": row}}}}))
    results = tmp_path / "results"
    here = [
        "--profile",
        "profiles/mini",
        "--configfile",
        *map(str, (CONFIG, MINI, REDUCED, overlay)),
    ]
    here += ["--config", f"results={results}", "seeds=0"]
    listed = snakemake("-n", *here).stdout
    assert "table_on_demand" not in listed and re.search(r"^table +\d+$", listed, re.MULTILINE)
    snakemake(*here, "--", f"{results}/Q.tex")
    (line,) = csv.DictReader((results / "Q.csv").open())
    assert line["label"] == "MoFE" and 0 <= float(line["value"]) <= 1
    assert "MoFE" in (results / "Q.tex").read_text()


def test_the_report_of_a_study_that_goes_beyond_answers_the_question(tmp_path):
    """Here, and in another world."""
    overlay = tmp_path / "asked.yaml"
    table = TABLE | {"question": "Does MoFE keep it all?", "limits": "Two rows are few."}
    table["columns"] = {"Parameters": "trainable", **TABLE["columns"]}
    table["rows"] = {**TABLE["rows"], "X": {"mixture": "small"}}
    claim = CLAIM | {"section": "Q"}
    share = {"kind": "share", "limit": 0.9, "parts": {"MMLU": [["MoFE", "Full", "X"]]}}
    claims = {"mine": claim, "share": claim | share | {"says": "It keeps most of it."}}
    results, elsewhere = tmp_path / "results", tmp_path / "elsewhere"
    numbered = {**TABLE, "question": "Does one with a number?", "on_demand": False}
    asked = {
        "tables": {"Q": table, "8": numbered},
        "claims": claims,
        "replications": {"claims": ["mine"]},
    }
    overlay.write_text(json.dumps(asked))
    together = tmp_path / "together.yaml"
    together.write_text(json.dumps({"replications": {"results": [str(elsewhere)]}}))
    files = (CONFIG, MINI, REDUCED, overlay, ROOT / "tests" / "studies" / "asked_alone.yaml")
    here = ["--profile", "profiles/mini", "--configfile", *map(str, files)]
    both = [*here, str(together), "--config", f"results={results}", "beyond=true"]
    refused = snakemake("-n", *both, check=False)
    assert refused.returncode and re.search(
        "replications.results: .*elsewhere has no verdict on mine; make the target `replicated`",
        refused.stdout + refused.stderr,
    )
    other = tmp_path / "other.yaml"
    other.write_text(json.dumps({"study": "other", "world": {"seed": 1}}))
    snakemake(*here, str(other), "--config", f"results={elsewhere}", "--", "replicated")
    assert not (elsewhere / "claims.json").exists()
    snakemake(*both)
    found = records.read(results / "replications.json", records.ReplicationsRecord)
    assert found.studies == ("reduced", "other")
    (mine,) = found.claims
    worlds = [
        records.read(f / "claims" / "mine.json", records.ClaimRecord) for f in (results, elsewhere)
    ]
    assert [d for (d,) in mine.differences.values()] == [w.here.parts[0].difference for w in worlds]
    assert "**" + mine.pooled.here.verdict + "**" in (results / "replications.md").read_text()
    page = (results / "report.html").read_text()
    beyond = page.partition('id="beyond"')[2].partition('id="figures"')[0]
    assert "Does MoFE keep it all?" in beyond and "Two rows are few." in beyond
    assert CLAIM["says"] in beyond and CLAIM["says"] not in page.partition('id="beyond"')[0]
    assert "In reduced and other, each as one observation" in beyond and "In 2 studies" in beyond
    assert "data:image/png" in beyond and 'id="tableQ"' in beyond
    assert (results / "figures" / "Q.png").is_file()
    assert (results / "figures" / "Q_kept.pdf").is_file() and beyond.count("<img") == 3
    assert "Does one with a number?" in beyond and 'id="table8"' in beyond
    assert (results / "figures" / "8.png").is_file() and page.count('id="table8"') == 1
    record = json.loads((results / "claims" / "share.json").read_text())
    kept = record["here"]["summary"]["kept"]
    assert (kept["start"], kept["limit"]) == ("X", 0.9) and claims["share"]["says"] in beyond


def test_a_dry_run_of_all_questions_at_the_papers_scale_lists_exactly_their_jobs(tmp_path):
    places = {"results": str(tmp_path / "r"), "hub": str(tmp_path / "hub")}
    asked = Plan(read_study(CONFIG, QUESTIONS, **places), on_demand=True)
    keys = [key for key, spec in asked.specs.items() if spec.question]
    assert keys == [f"E{number}" for number in range(1, 8)]
    targets = [asked.paths.table(key, "tex") for key in keys]
    needed = Graph(asked, figures.inputs(asked.of_all)).needed(*targets)
    named = [f"{key}={value}" for key, value in places.items()]
    done = snakemake("-n", "--profile", "profiles/slurm", "--config", *named, "--", *targets)
    assert printed(done.stdout) == Counter(node.rule for node in needed)
    submitted = set(re.findall(r"^    output: (\S+train\.json)", done.stdout, re.MULTILINE))
    assert submitted == {node.outputs[0] for node in needed if node.rule == "train"}
