"""One graph: what the plan counts is what Snakemake runs, and each job comes after what it needs."""

from collections import Counter

import pytest
import yaml
from conftest import CONFIG, MINI, REDUCED, ROOT, snakemake
from hypothesis import given
from hypothesis import strategies as st
from test_workflow import PAPER_SCALE
from test_workflow import jobs as printed

from mofe.estimate.cost import Costs
from mofe.estimate.forecast import forecast
from mofe.estimate.schedule import jobs
from mofe.study.graph import ALL, Graph
from mofe.study.load import read_study
from mofe.study.plan import Plan
from mofe.study.values import ConfigError

PILOT = ROOT / "profiles" / "pilot" / "study.yaml"
GPU = ["--cores", "1"]  # a dry run needs no GPU
PROFILES = {
    "none": (GPU, []),
    "slurm": (["--profile", "profiles/slurm"], []),
    "pilot": (["--profile", "profiles/pilot"], [PILOT]),
    "mini": (["--profile", "profiles/mini"], [MINI]),
}


def rules(study) -> Counter:
    """The plan's jobs by rule."""
    costs = Costs(Plan(study))
    made = jobs(costs)
    assert forecast(costs)["totals"]["jobs"] == len(made)
    return Counter(job.rule for job in made.values())


@pytest.mark.parametrize("profile", PROFILES)
def test_the_plan_counts_the_jobs_that_a_dry_run_counts(profile, tmp_path):
    arguments, files = PROFILES[profile]
    places = {"results": str(tmp_path / "r"), "hub": str(tmp_path / "hub")}
    done = snakemake("-n", *arguments, "--config", *(f"{k}={v}" for k, v in places.items()))
    assert rules(read_study(CONFIG, *files, **places)) == printed(done.stdout)


def overlays(folder) -> dict[str, tuple[list, dict]]:
    """By name: the files of a study, and an overlay's content."""
    own = {"hub": None, "revision": None, "path": str(folder)}
    row = {"mixture": "small", "labels": ["a"], "train": {"posttrain": "mofe", "medmcqa": "lora"}}
    table = {"caption": "Ours.", "labels": ["Tuning"], "columns": {"Q": "mmlu", "Time": "time"}}
    return {
        "a mirror": ([], {"mirror": str(folder)}),
        "two seeds and a table of one's own": (
            [MINI, REDUCED],
            {"seeds": [0, 1], "tables": {2: None, 3: None, 8: {**table, "rows": [row]}}},
        ),
        "a base of one's own": (
            [],
            {"models": {"tinyllama": own}, "tables": dict.fromkeys((1, 2, 3, 6, 7))},
        ),
    }


@pytest.mark.parametrize("name", overlays("."))
def test_so_it_does_for_an_overlay(name, tiny, tmp_path):
    files, overlay = overlays(tiny / "a")[name]
    overlay |= {"results": str(tmp_path / "r"), "hub": str(tmp_path / "hub")}
    laid_over = tmp_path / "overlay.yaml"
    laid_over.write_text(yaml.safe_dump(overlay))
    files = [*files, laid_over]
    done = snakemake("-n", *GPU, "--configfile", *map(str, [CONFIG, *files]))
    assert rules(read_study(CONFIG, *files)) == printed(done.stdout)


@pytest.mark.parametrize("number", PAPER_SCALE)
def test_a_table_alone_counts_what_its_dry_run_counts(number, paper_plan):
    made = jobs(Costs(paper_plan)).values()
    needed = Counter(job.rule for job in made if number in job.tables)
    assert needed == {**PAPER_SCALE[number], "table": 1}
    graph = Graph(paper_plan).needed(paper_plan.paths.table(number, "tex"))
    assert Counter(node.rule for node in graph) == needed


@pytest.fixture(scope="module")
def graph(paper_plan) -> Graph:
    return Graph(paper_plan)


def test_every_job_is_needed_by_all_and_every_input_is_made(graph):
    assert graph.needed(ALL) == list(graph.jobs)
    made = {output for node in graph.jobs for output in node.outputs}
    assert all(set(node.inputs) <= made for node in graph.jobs)
    assert len(made) == sum(len(node.outputs) for node in graph.jobs), "each by one job"


@given(st.data())
def test_what_a_target_needs_comes_before_it_and_is_no_more(graph, data):
    targets = data.draw(st.lists(st.sampled_from(graph.jobs), max_size=3))
    found = graph.needed(*(node.outputs[-1] for node in targets))
    made = set()
    for node in found:
        assert set(node.inputs) <= made
        made |= set(node.outputs)
    read = {name for node in found for name in node.inputs}
    assert all(node in targets or read & set(node.outputs) for node in found)


def test_an_outside_model_comes_before_the_preflight_that_reads_it(tmp_path):
    """Also where the study names it later than the expert that it is checked with."""
    gates = {"positive": [["x"]], "negative": ["y"]}
    hub = {"hub": "lab/law", "revision": "main", "gates": gates}
    mixture = {"base": "general", "experts": {"medical": 1, "law": 1}}
    change = {"models": {"law": hub}, "mixtures": {"small": mixture}, "results": str(tmp_path)}
    order = [n.outputs[0] for n in Graph(Plan(read_study(CONFIG, **change))).needed(ALL)]
    preflight = order.index(f"{tmp_path}/preflight/general.json")
    assert order.index(f"{tmp_path}/experts/law") < preflight


def test_pushing_to_nowhere_is_refused_before_anything_is_trained(paper_plan):
    key = "tinyllama_4tinyllama/medmcqa_mofe"
    with pytest.raises(ConfigError, match=r"export.push is null.*set it to org/name"):
        Graph(paper_plan).push(variant=key, seed="0")
    named = Plan(read_study(CONFIG, export={"push": "org/name"}))
    assert Graph(named).push(variant=key, seed="0") == {"model": f"results/models/{key}/s0"}
