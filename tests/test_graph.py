"""One graph: what the plan counts is what Snakemake runs, and each job comes after what it needs."""

from collections import Counter
from pathlib import Path

import pytest
import yaml
from conftest import CONFIG, LOOK, MINI, REDUCED, ROOT, snakemake
from hypothesis import given
from hypothesis import strategies as st
from test_workflow import PAPER_SCALE
from test_workflow import jobs as printed

from mofe.estimate.cost import Costs
from mofe.estimate.forecast import forecast
from mofe.estimate.schedule import jobs
from mofe.report.figures import inputs
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
    made = jobs(costs, inputs(costs.plan))
    assert forecast(costs, inputs(costs.plan)).totals.jobs == len(made)
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
    row = {"mixture": "small", "train": {"posttrain": "mofe", "medmcqa": "lora"}}
    table = {"caption": "Ours.", "labels": ["Tuning"], "columns": {"Q": "mmlu", "Time": "time"}}
    untuned = {name: {"mixture": name} for name in ("small", "medical_experts")}
    untuned |= {name: {"model": name} for name in ("tinyllama", "finance")}
    return {
        "a mirror": ([], {"mirror": str(folder)}),
        "two seeds and a table of one's own": (
            [MINI, REDUCED],
            {
                "seeds": [0, 1],
                "training": {"fold_duplicates": False},
                "tables": {2: None, 3: None, 8: {**table, "rows": {"a": row}}},
            },
        ),
        "untuned experts, one from another, with two seeds": (
            [MINI, REDUCED],
            {
                "seeds": [4, 2],
                "models": {"finance": {"from": "medical"}},
                "tables": {
                    **dict.fromkeys(range(1, 8)),
                    "X1": {**table, "columns": {"Q": "mmlu"}, "rows": untuned},
                },
            },
        ),
        "a search with two seeds": (
            [MINI, REDUCED],
            {
                "seeds": [3, 1],
                "tables": dict.fromkeys((1, 2, 3, 4, 5, 6)),
                "searches": {"rate": {"learning_rate": [1e-3, 2e-3, 4e-3]}},
            },
        ),
        "a base of one's own": (
            [],
            {
                "study": "own",
                "models": {"tinyllama": own},
                "tables": dict.fromkeys((1, 2, 3, 6, 7)),
            },
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
    made = jobs(Costs(paper_plan), inputs(paper_plan)).values()
    needed = Counter(job.rule for job in made if number in job.tables)
    assert needed == {**PAPER_SCALE[number], "table": 1}
    graph = Graph(paper_plan, inputs(paper_plan)).needed(paper_plan.paths.table(number, "tex"))
    assert Counter(node.rule for node in graph) == needed


@pytest.fixture(scope="module")
def graph(paper_plan) -> Graph:
    return Graph(paper_plan, inputs(paper_plan))


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
    plan = Plan(read_study(CONFIG, **change))
    order = [node.outputs[0] for node in Graph(plan, inputs(plan)).needed(ALL)]
    preflight = order.index(f"{tmp_path}/preflight/general.json")
    assert order.index(f"{tmp_path}/experts/law") < preflight


MADE_AGAIN = {"claim", "table", "figure", "report"}  # by a further seed


@pytest.mark.parametrize("files", [[], [MINI, REDUCED]], ids=["paper", "reduced"])
def test_a_further_seed_adds_jobs_of_its_own_and_leaves_the_others_as_they_are(files):
    one, two = (Plan(read_study(CONFIG, *files, seeds=seeds)) for seeds in ([0], [0, 1]))
    before, after = (
        {node.outputs[0]: node for node in Graph(plan, inputs(plan)).jobs} for plan in (one, two)
    )
    assert before.keys() <= after.keys()
    changed = {after[name].rule for name in before if before[name] != after[name]}
    assert changed == MADE_AGAIN
    added = [after[name] for name in after.keys() - before.keys()]
    assert {node.wildcards["seed"] for node in added} == {"1"}
    seeded = ["train", "train_expert", "merge_per_seed", "evaluate"]
    assert {node.rule for node in added} == set(seeded)
    assert Counter(n.rule for n in added)["train_expert"] == 3
    assert all(
        one.params.merge(node.wildcards["moe"], "0") == two.params.merge(node.wildcards["moe"], "0")
        for node in before.values()
        if node.rule == "merge_per_seed"
    )
    forecasted = forecast(Costs(one), inputs(one)).further_seed
    assert forecasted.totals.jobs == len(added)
    counts = Counter(node.rule for node in added)
    assert forecasted.experts.jobs == counts["train_expert"]
    assert forecasted.trainings.jobs == counts["train"]
    assert sum(share.jobs for share in forecasted.evaluations.values()) == counts["evaluate"]


def test_what_a_further_seed_takes_is_the_difference_that_it_makes():
    one, two = (
        forecast(Costs(plan), inputs(plan))
        for plan in (Plan(read_study(CONFIG, LOOK, seeds=seeds)) for seeds in ([4], [4, 5]))
    )
    further = one.further_seed.totals
    assert two.totals.gpu_hours - one.totals.gpu_hours == pytest.approx(further.gpu_hours)
    assert two.totals.jobs - one.totals.jobs == further.jobs
    assert two.totals.trainings - one.totals.trainings == further.trainings == 34
    assert two.totals.disk - one.totals.disk == pytest.approx(further.disk)
    parts = one.further_seed
    shares = [parts.trainings, parts.experts, *parts.evaluations.values()]
    assert sum(share.gpu_hours for share in shares) == pytest.approx(further.gpu_hours)


def test_no_folder_that_a_job_makes_lies_in_another(paper_plan):
    """Snakemake would delete the inner one with the outer."""
    made = [n for n in Graph(paper_plan, inputs(paper_plan)).jobs if n.rule != "all"]
    outputs = {output for node in made for output in node.outputs}
    assert all(str(up) not in outputs for name in outputs for up in Path(name).parents)


def test_pushing_to_nowhere_is_refused_before_anything_is_trained(paper_plan):
    key = "tinyllama_4tinyllama/medmcqa_mofe"
    with pytest.raises(ConfigError, match=r"export.push is null.*set it to org/name"):
        Graph(paper_plan, inputs(paper_plan)).push(variant=key, seed="0")
    named = Plan(read_study(CONFIG, export={"push": "org/name"}))
    assert Graph(named, inputs(named)).push(variant=key, seed="0") == {
        "model": f"results/models/{key}/s0"
    }
