"""What Snakemake compares between runs: every parameter of every rule is plain data, from one place."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CONFIG, LOOK, MINI, QUESTIONS, REDUCED, ROOT
from hypothesis import given
from hypothesis import strategies as st
from planned import unplain

from mofe.report import figures
from mofe.report.sources import RECORDS
from mofe.study import tables
from mofe.study.addresses import Addresses
from mofe.study.given import Given
from mofe.study.graph import ALL, Graph
from mofe.study.identity import Identities, placeless
from mofe.study.load import read_study
from mofe.study.plan import Plan

TOKENS = "tokens/tinyllama_4tinyllama/medmcqa_mofe/s0/medmcqa.html"
ON_DEMAND = ("claims_paper.md", "tables.pdf", "archive.zip", TOKENS)
ON_DEMAND_RULES = ("export", "push", "pdf", "archive", "claims_paper")  # nothing reads their hash
STUDIES = {
    "the miniature": [CONFIG, MINI, REDUCED],
    "the paper's": [
        *(CONFIG, QUESTIONS, LOOK),
        *(ROOT / "tests" / "studies" / f"{name}.yaml" for name in ("routing", "replicated")),
    ],
}
ASKED = {"the paper's": ["E7.tex"]}  # tables on demand
PUSHED = "pushed/tinyllama_4tinyllama/medmcqa_mofe/s0.json"


def given_of(plan: Plan, **told) -> Given:
    trainings = RECORDS.spec(plan.of_all)
    return Given(plan, figures.given(plan.of_all), trainings=trainings, **told)


def identities(*files: Path, **changes) -> Identities:
    plan = Plan(read_study(*files, **changes), on_demand=True)
    return Identities(Graph(plan, figures.inputs(plan.of_all)), given_of(plan))


# Rules that make nothing of the study: they look at what there is.
LOOK_ON = {
    "all",
    "plan",
    "verify",
    "sums",
    "partial",
    "compare",
    "replicated",
    "status",
    "check",
    "check_here",
    "check_node",
}


def hashes(found: Identities) -> dict[tuple, str]:
    jobs = (job for job in found.graph.jobs if job.rule != ALL)
    return {(j.rule, *j.wildcards.values()): found.of(j.rule, j.wildcards) for j in jobs}


@pytest.fixture(scope="module")
def planned(tmp_path_factory) -> dict[str, list[dict]]:
    """By study, what Snakemake plans: first the rules, then every job."""
    found = {}
    for name, files in STUDIES.items():
        folder = tmp_path_factory.mktemp("planned")
        targets = [
            "all",
            "prefetch",
            "plan",
            "verify",
            "sums",
            "check",
            "partial",
            "replicated",
            "status",
            *(f"{folder}/{t}" for t in (*ON_DEMAND, PUSHED, *ASKED.get(name, ()))),
            "compare",  # whatever follows is what it compares
            *("docs", "tests"),
        ]
        command = [sys.executable, ROOT / "tests" / "planned.py", folder, *files, "--", *targets]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        lines = done.stdout.splitlines()
        found[name] = [json.loads(line) for line in lines if line.startswith("{")]
        found[name][0]["folder"] = str(folder)
    return found


def test_what_a_job_makes_is_what_the_graph_says_in_its_order(planned):
    """By its first output a job's checksums are found."""
    for name, (top, *jobs) in planned.items():
        places = {"results": top["folder"], "hub": f"{top['folder']}/hub"}
        changes = {**places, "export": {"push": "a/b"}}
        makers = identities(*STUDIES[name], **changes).makers
        made = [tuple(j["outputs"]) for j in jobs if j["outputs"] and j["rule"] not in LOOK_ON]
        assert len(made) > 50 and all(makers[outputs[0]].outputs == outputs for outputs in made)


def test_every_parameter_of_every_rule_is_plain_data(planned):
    """What is not, Snakemake leaves out of its comparison without a word."""
    for _, *jobs in planned.values():
        assert [place for job in jobs for place in job["unplain"]] == []
    rules = {job["rule"] for _, *jobs in planned.values() for job in jobs}
    assert rules == set(planned["the miniature"][0]["rules"]), "every rule is planned somewhere"


def test_every_rule_is_given_what_one_place_says(planned):
    for (first, *jobs), files in zip(planned.values(), STUDIES.values(), strict=True):
        places = {"results": first["folder"], "hub": f"{first['folder']}/hub"}
        plan = Plan(read_study(*files, **places, export={"push": "a/b"}), on_demand=True)
        told = given_of(plan, config={})
        for job in jobs:
            if job["rule"] not in LOOK_ON:
                values = told.of(job["rule"], job["wildcards"])
                assert job["params"] == sorted([*values, "config_hash", "contents", "read"]), job[
                    "rule"
                ]
                assert job["compared"] == len(values) + 2, "all but `read`, a function of the input"


def test_every_jobs_log_is_where_its_hash_is_looked_for(planned):
    for first, *jobs in planned.values():
        study = read_study(CONFIG, results=first["folder"], hub=f"{first['folder']}/hub")
        for job in jobs:
            if job["outputs"] and job["rule"] not in ON_DEMAND_RULES:
                assert [Addresses(study).log(job["outputs"][0])] == job["log"]


class Thing:
    """What is no plain data."""


@pytest.mark.parametrize("value", [Thing(), [Thing()], {"a": {1, 2}}, {"a": (Path("x"),)}, b"x"])
def test_what_is_not_plain_is_found(value):
    assert unplain(value, "here")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, width=16),
    lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts),
)


@given(json_values.filter(lambda value: "inf" not in repr(value)))
def test_plain_data_is_plain(value):
    assert unplain(value) == []


# ------------------------------------------------------------------------------------- one hash


def test_a_hash_does_not_depend_on_where_things_lie(tmp_path):
    one = hashes(identities(CONFIG, MINI))
    assert one == hashes(identities(CONFIG, MINI, results=str(tmp_path / "r")))
    mirrored = hashes(identities(CONFIG, LOOK, mirror="/m"))
    there = {"mirror": "/other/m", "results": "a/b", "hub": "elsewhere"}
    assert mirrored == hashes(identities(CONFIG, LOOK, **there))


def test_placeless_names_the_innermost_place():
    study = read_study(CONFIG, results="r", hub="r/hub", mirror="/m")
    value = {"r/moe/a": ["/m/", "/m/org/x", "r", "r2", "row", 3, None], "hub": ("r/hub/a.json",)}
    assert placeless(value, Addresses(study)) == {
        "{results}/moe/a": ["{hub}", "{hub}/org/x", "{results}", "r2", "row", 3, None],
        "hub": ["{hub}/a.json"],
    }


def changed(overlay: dict, *files: Path) -> set[str]:
    """The rules of the jobs whose hash an overlay changes."""
    before, after = hashes(identities(*files)), hashes(identities(*files, **overlay))
    return {key[0] for key in before.keys() & after.keys() if before[key] != after[key]}


def test_a_changed_key_changes_the_hash_of_all_that_is_made_with_it():
    files = (CONFIG, MINI, REDUCED)
    shown = {"claim", "claims", "figure", "report", "table"}
    trained = {"search", "train", "evaluate", *shown}
    assert changed({"shots": 1}, *files) == {"questions", "evaluate", *shown}
    assert changed({"data": {"medmcqa": {"rows": 60}}}, *files) == {
        *("prepare_data", "train_expert", "merge_per_seed", "questions", *trained)
    }
    assert changed({"recipes": {"lora": {"rank": 4}}}, *files) == trained - {"search"}
    assert changed({"hardware": {"gpus_per_node": 2}}, *files) == set()
    captions = {"tables": {7: {"caption": "Another."}}}
    assert changed(captions, *files) == shown


@pytest.mark.parametrize(
    ("overlay", "rules"),
    [
        ({"mixes": {"mmlu_medmcqa": {"data": ["medmcqa", "mmlu"]}}}, {"train", "evaluate"}),
        ({"tasks": {"mmlu": {"harness": ["mmlu_sociology", "mmlu_virology"]}}}, {"questions"}),
        ({"tables": {7: {"columns": {"MedMCQA": "medmcqa.acc"}}}}, {"table"}),
    ],
)
def test_the_order_of_a_list_counts(overlay, rules):
    files = (CONFIG, MINI, REDUCED)
    assert rules <= changed(overlay, *files)


def test_the_order_of_a_mixtures_experts_and_of_a_searchs_rates_does_not_count():
    files = (CONFIG, MINI, REDUCED)
    study = read_study(*files)
    experts = dict(reversed(study.mixtures["medical_2_general_2"].experts.items()))
    rates = study.searches["rate"].learning_rate[::-1]
    turned = {
        "mixtures": {"medical_2_general_2": {"experts": experts}},
        "searches": {"rate": {"learning_rate": rates}},
    }
    assert changed(turned, *files) == set()


def test_tables_are_the_same_after_a_way_as_plain_data(paper_plan):
    whole = list(paper_plan.tables.values())
    bare = tables.bare(whole)
    assert unplain(bare) == []
    assert tables.filled(json.loads(json.dumps(bare)), tables.files(whole), 1) == whole
