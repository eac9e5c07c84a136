"""Searches for learning rates: what they add to the plan, what they choose, and what trains by it."""

import json
import re
from pathlib import Path

import matplotlib.image
import pytest
import yaml
from conftest import CONFIG, MINI, TRAINING
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from test_models import SETTINGS
from test_report import eval_record, train_record

from mofe import records
from mofe.estimate.cost import Costs
from mofe.estimate.forecast import forecast
from mofe.records import Metric, SearchRecord, TriedRate
from mofe.report import drawing, figures
from mofe.stages import search, train
from mofe.study.graph import ALL, Graph
from mofe.study.load import read_study
from mofe.study.plan import Plan
from mofe.study.values import ConfigError

HELD_OUT = ["mmlu_held", "medmcqa_held"]
NONE = dict.fromkeys(yaml.safe_load(CONFIG.read_text())["tables"])
TUNED = "tinyllama_4tinyllama/mmlu_medmcqa_mofe_tuned"
OWN = {
    "caption": "Rates.",
    "labels": ["Fine-tuning"],
    "columns": {"Rate": "rate", "MedMCQA": "medmcqa"},
    "rows": {"MoFE": {"mixture": "medium", "train": {"mmlu_medmcqa": "mofe_tuned"}}},
}


def plan_of(*rates: float, seeds=(3, 1), **changes) -> Plan:
    """A study of one table, whose row has its learning rate searched among these."""
    tables = {**NONE, "own": OWN}
    searches = {"rate": {"learning_rate": list(rates or (1e-3, 1e-4))}}
    return Plan(
        read_study(
            CONFIG, **{"seeds": list(seeds), "tables": tables, "searches": searches} | changes
        )
    )


def trainings(plan: Plan) -> list[str]:
    """The labels of all trainings that `all` needs, without those of dense experts."""
    graph = Graph(plan, figures.inputs(plan)).needed(ALL)
    return [node.label for node in graph if node.rule == "train"]


# --- the plan ---------------------------------------------------------------------------------


def test_a_row_with_a_search_is_trained_at_every_rate_with_the_first_seed():
    plan = plan_of()
    assert list(plan.trained) == [TUNED]
    assert [c.key for c in plan.searches[TUNED]] == [f"{TUNED}-0.0001", f"{TUNED}-0.001"]
    assert trainings(plan) == [
        *(f"{TUNED}-0.0001/s3", f"{TUNED}-0.001/s3"),
        *(f"{TUNED}/s3", f"{TUNED}/s1"),
    ]
    assert plan.tasks[f"{TUNED}-0.001"] == tuple(HELD_OUT)
    assert plan.tasks[TUNED] == ("medmcqa",), "test questions choose no rate"
    assert plan.train_jsons == [plan.paths.train_json(plan.trained[TUNED], s) for s in (3, 1)]


def test_a_training_waits_for_its_search_and_that_for_every_candidate():
    plan = plan_of()
    graph = Graph(plan, figures.inputs(plan))
    found = f"results/variants/{TUNED}/search.json"
    assert graph.train(variant=TUNED, seed="1")["search"] == [found]
    assert graph.train(variant=f"{TUNED}-0.001", seed="3")["search"] == []
    inputs = graph.search(variant=TUNED)
    assert inputs == {
        "trainings": [f"results/variants/{TUNED}-{r}/s3/train.json" for r in ("0.0001", "0.001")],
        "evaluations": [
            f"results/evals/{TUNED}-{rate}/s3/{task}.json"
            for rate in ("0.0001", "0.001")
            for task in HELD_OUT
        ],
    }
    assert found in [output for node in graph.needed(ALL) for output in node.outputs]


def test_every_job_comes_after_what_it_needs_also_where_two_stages_are_searched():
    stages = {"medmcqa": "mofe_tuned", "mmlu": "full_tuned"}
    row = {"MoFE": {"mixture": "medium", "train": stages}}
    plan = plan_of(tables={**NONE, "own": {**OWN, "rows": row}})
    first, both = list(plan.searches)
    assert both == f"{first}.mmlu_full_tuned"
    candidate = plan.searches[both][0]
    assert [v.key for v in candidate.parents] == [first], "which has its own best rate"
    made: set[str] = set()
    graph = Graph(plan, figures.inputs(plan))
    for node in graph.needed(ALL):
        assert set(node.inputs) <= made, node
        made |= set(node.outputs)
    assert graph.needed(ALL) == list(graph.jobs)


def test_a_candidate_knows_its_rate_and_the_row_reads_it():
    plan = plan_of()

    def rate(variant):
        return plan.params.stage(variant.stages[-1])["training"]["learning_rate"]

    assert [rate(c) for c in plan.searches[TUNED]] == [1e-4, 1e-3]
    assert rate(plan.trained[TUNED]) is None, "its job reads search.json"
    method = plan.params.method(plan.trained[TUNED].stages[-1])
    assert method == {"recipe": "mofe_tuned", "method": "freeze", "frozen": "all"}


def test_another_rate_and_another_shared_rate_change_no_other_training():
    def params(plan):
        return {k: plan.params.stage(v.stages[-1]) for k, v in plan.variants.items()}

    before, more = params(plan_of()), params(plan_of(1e-3, 1e-4, 2e-4))
    assert more.keys() - before.keys() == {f"{TUNED}-0.0002"}
    assert {k: more[k] for k in before} == before
    assert params(plan_of(training={"learning_rate": 0.5})) == before
    (only,) = plan_of(1e-3, 1e-4, seeds=(3, 1, 7)).searches.values()
    assert only == plan_of().searches[TUNED], "one more seed searches nothing anew"


def test_estimates_count_the_candidates():
    plan = plan_of()
    made = forecast(Costs(plan), figures.inputs(plan)).jobs
    hours = {job.label: job.gpu_hours for job in made if job.rule == "train"}
    assert list(hours) == trainings(plan)
    assert len(set(hours.values())) == 1, "a rate does not change what a training takes"
    assert [job.tables for job in made if job.rule == "search"] == [("own",)]


def test_a_candidate_shares_no_name_with_a_recipe():
    recipes = {"mofe_tuned-0.001": {"method": "full"}}
    rows = {"Full": {"mixture": "medium", "train": {"mmlu_medmcqa": "mofe_tuned-0.001"}}}
    with pytest.raises(ConfigError, match=r"both be stored as \S+mofe_tuned-0.001; rename"):
        plan_of(recipes=recipes, tables={**NONE, "own": {**OWN, "rows": {**OWN["rows"], **rows}}})


# --- the configuration ------------------------------------------------------------------------


FAULTS = {
    "a test's questions": (
        {"searches": {"rate": {"tasks": ["mmlu_held", "medmcqa"]}}},
        (
            "searches.rate.tasks: 'medmcqa' asks test questions, which must not choose a learning "
            "rate; name a task with 'held_out'"
        ),
    ),
    "a rate twice": (
        {"searches": {"rate": {"learning_rate": [1e-3, 2e-3, 1e-3]}}},
        "searches.rate.learning_rate: 0.001 stands there twice (to six digits); give each rate once",
    ),
    "two rates for a recipe": (
        {"recipes": {"mofe_tuned": {"training": {"learning_rate": 1e-3}}}},
        (
            "recipes.mofe_tuned: both 'search' and 'training.learning_rate' set its learning rate; "
            "remove one"
        ),
    ),
    "a dense expert": (
        {"recipes": {"expert": {"search": "rate"}}},
        (
            "models.general.train: recipe 'expert' searches its learning rate, which only rows of "
            "tables can; name a recipe without 'search'"
        ),
    ),
    "a misspelt search": (
        {"recipes": {"mofe_tuned": {"search": "rates"}}},
        "recipes.mofe_tuned.search: 'rates' is not declared under searches; did you mean 'rate'?",
    ),
    "a rate of nothing": (
        {"searches": {"rate": {"learning_rate": [1e-3, 0.0]}}},
        "searches.rate.learning_rate.1: 0.0 is too small; give more than 0",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_sentence(name):
    change, sentence = FAULTS[name]
    with pytest.raises(ConfigError) as error:
        read_study(CONFIG, **change)
    told = [re.sub(r" \(\S+:\d+\)", "", problem) for problem in error.value.problems]
    assert told[0] == sentence


# --- the choice -------------------------------------------------------------------------------


def tried(rate: float, *scores: float) -> TriedRate:
    metrics = {f"t{n}": Metric(value=s, stderr=0.01) for n, s in enumerate(scores)}
    return TriedRate(learning_rate=rate, scores=metrics)


def test_the_best_has_the_greatest_mean_and_of_equal_ones_the_lowest_rate():
    assert search.best([tried(1e-3, 0.5, 0.7), tried(2e-3, 0.9, 0.2)]).learning_rate == 1e-3
    assert search.best([tried(2e-3, 0.5, 0.7), tried(1e-3, 0.7, 0.5)]).learning_rate == 1e-3


eighths = st.integers(0, 8).map(lambda n: n / 8)  # exact, so that ties are ties


@given(st.dictionaries(st.integers(1, 99), st.tuples(eighths, eighths), min_size=1), st.randoms())
def test_the_best_does_not_depend_on_the_order(scores, random):
    given_ = [tried(rate / 1000, *pair) for rate, pair in scores.items()]
    best = search.best(given_)
    random.shuffle(given_)
    assert search.best(given_) == best
    assert all((best.mean, -best.learning_rate) >= (c.mean, -c.learning_rate) for c in given_)


def files(folder: Path, scores: dict[float, tuple[float, float]]) -> tuple[list[str], list[str]]:
    """The train.json and the two evaluations of a candidate at each rate."""
    runs, evaluations = [], []
    for rate, values in scores.items():
        names = {"moe": "m", "stages": f"x_tuned-{rate:g}", "seed": 3}
        own = folder / f"{rate:g}"
        own.mkdir(parents=True)
        record = train_record(**names, learning_rate=rate, recipe="tuned")
        (own / "train.json").write_text(json.dumps(record))
        runs.append(str(own / "train.json"))
        for task, value in zip(HELD_OUT, values, strict=True):
            metrics = {"acc": {"value": value, "stderr": 0.02}}
            record = eval_record(**names, task=task, metrics=metrics)
            (own / f"{task}.json").write_text(json.dumps(record))
            evaluations.append(str(own / f"{task}.json"))
    return runs, evaluations


def choose(folder: Path, scores) -> SearchRecord:
    runs, evaluations = files(folder, scores)
    names, out = {"moe": "m", "stages": "x_tuned"}, folder / "search.json"
    search.choose(trainings=runs, evaluations=evaluations, names=names, out=out)
    return records.read(out, SearchRecord)


def test_the_record_says_what_was_tried_and_whether_the_best_is_at_the_edge(tmp_path):
    inside = {1e-4: (0.3, 0.3), 1e-3: (0.6, 0.5), 1e-2: (0.5, 0.5)}
    found = choose(tmp_path / "a", inside)
    assert (found.best, found.at_edge, found.seed, found.recipe) == (1e-3, False, 3, "tuned")
    assert [(c.learning_rate, c.mean) for c in found.tried] == [
        (1e-4, pytest.approx(0.3)),
        (1e-3, pytest.approx(0.55)),
        (1e-2, pytest.approx(0.5)),
    ]
    assert list(found.tried[0].scores) == HELD_OUT
    assert found.tried[0].stderr == pytest.approx(0.02 / 2**0.5)
    assert choose(tmp_path / "b", inside | {1e-2: (0.7, 0.7)}).at_edge
    assert choose(tmp_path / "c", inside | {1e-4: (0.7, 0.7)}).at_edge
    again = (tmp_path / "d", dict(reversed(inside.items())))
    choose(*again)
    same = [(tmp_path / name / "search.json").read_bytes() for name in "ad"]
    assert same[0] == same[1], "equal searches are equal files"


def test_a_score_of_another_candidate_is_refused(tmp_path):
    runs, evaluations = files(tmp_path, {1e-4: (0.3, 0.3), 1e-3: (0.6, 0.5)})
    names = {"moe": "m", "stages": "x_tuned"}
    where = re.escape(evaluations[2])
    with pytest.raises(ValueError, match=f"{where}: is not of m/x_tuned-0.0001/s3"):
        search.choose(
            trainings=runs,
            evaluations=evaluations[2:] + evaluations[:2],
            names=names,
            out=tmp_path / "search.json",
        )
    assert not (tmp_path / "search.json").exists()


# --- training by it ---------------------------------------------------------------------------


def trained(tiny, data, out: Path, rate: float | None, found: list[str]) -> dict:
    params = {"recipe": "mofe", **SETTINGS["mofe"], "training": {**TRAINING, "learning_rate": rate}}
    train.train_variant(
        merge=str(tiny / "moe2a2b"),
        data=[data],
        parents=[],
        chain=[],
        params=params,
        names={"moe": "m", "stages": "x_tuned"},
        seed=0,
        trained=out / "trained.safetensors",
        record=out / "train.json",
        log=out / "log.jsonl",
        checkpoint=out / "checkpoint",
        search=found,
    )
    return json.loads((out / "train.json").read_text())


def test_a_training_has_the_rate_that_its_search_found(tiny, data, tmp_path):
    """It is the very training that has this rate as its own; its hash, which a checkpoint is known by,
    tells two rates apart."""
    for name, best in (("low", {1e-3: (0.6, 0.6), 5e-3: (0.5, 0.5)}), ("high", None)):
        choose(tmp_path / name, best or {1e-3: (0.5, 0.5), 5e-3: (0.6, 0.6)})
    given_ = trained(tiny, data, tmp_path / "given", 5e-3, [])
    runs = {
        name: trained(tiny, data, tmp_path / name, None, [str(tmp_path / name / "search.json")])
        for name in ("low", "high")
    }
    assert {name: run["learning_rate"] for name, run in runs.items()} == {"low": 1e-3, "high": 5e-3}
    assert runs["high"]["config_hash"] == given_["config_hash"] != runs["low"]["config_hash"]
    weights = [
        (tmp_path / n / "trained.safetensors").read_bytes() for n in ("high", "given", "low")
    ]
    assert weights[0] == weights[1] != weights[2]


# --- the figures ------------------------------------------------------------------------------


def test_the_figure_shows_rates_and_the_seeds_of_the_best(tmp_path):
    """One panel of held-out scores, and one for each task of the table."""
    plan = plan_of(results=str(tmp_path))
    figure = figures.of(plan)["learning_rates"]
    spec, paths = figure.source.spec(plan), figure.source.files(plan)
    assert spec == [("tinyllama_4tinyllama", "mmlu_medmcqa", "mofe_tuned", ("medmcqa",))]
    assert paths == [
        f"{tmp_path}/variants/{TUNED}/search.json",
        *(f"{tmp_path}/evals/{TUNED}/s{seed}/medmcqa.json" for seed in (3, 1)),
    ]
    choose(Path(paths[0]).parent, {1e-4: (0.3, 0.4), 1e-3: (0.6, 0.5)})
    for path, value in zip(paths[1:], (0.61, 0.63), strict=True):
        Path(path).parent.mkdir(parents=True)
        metrics = {"acc": {"value": value, "stderr": 0.01}}
        Path(path).write_text(json.dumps(eval_record(task="medmcqa", metrics=metrics)))
    (drawn_from,) = figure.source.filled(spec, paths, 2)
    assert drawn_from.scores == {"medmcqa": tuple(paths[1:])}
    drawn = figure.function([drawn_from], plan.study.setting)
    held_out, test = drawn.axes
    assert held_out.get_xscale() == "log"
    best = next(line for line in held_out.lines if line.get_markersize() == 11)
    assert (best.get_xdata()[0], best.get_ydata()[0]) == (1e-3, pytest.approx(0.55))
    assert sorted(test.lines[0].get_ydata()) == [0.61, 0.63]
    figures.draw("learning_rates", spec, paths, 2, plan.study.setting, [tmp_path / "x.png"])
    assert min(matplotlib.image.imread(tmp_path / "x.png").shape[:2]) > 400


@pytest.mark.parametrize(("best", "marker"), [(1e-3, "o"), (1e-4, "s"), (1e-2, "s")])
def test_the_figure_shows_a_best_rate_that_is_at_the_edge(tmp_path, best, marker):
    choose(tmp_path, {1e-4: (0.3, 0.3), 1e-3: (0.4, 0.4), 1e-2: (0.3, 0.3)} | {best: (0.9, 0.9)})
    axis = Figure().add_subplot()
    drawing.tried(axis, str(tmp_path / "search.json"), "#333333", "D")
    (around,) = (line for line in axis.lines if line.get_markersize() == 11)
    assert (around.get_xdata()[0], around.get_marker()) == (best, marker)


def test_the_mini_study_tries_every_method_of_the_tables_at_the_same_rates():
    plan = Plan(read_study(CONFIG, MINI))
    rates = {key: [c.stages[-1].rate for c in found] for key, found in plan.searches.items()}
    methods = {plan.variants[key].stages[-1].recipe for key in rates}
    assert methods == {f"{name}_tuned" for name in ("full", "mofe", "lora", "qlora", "dora")}
    shared = plan.study.training.learning_rate
    assert all(found == sorted(found) and shared in found for found in rates.values())
    for name in methods:
        own, plain = plan.study.recipes[name], plan.study.recipes[name.removesuffix("_tuned")]
        assert own.settings() == plain.settings()


def test_loss_curves_are_those_of_numbered_tables():
    """A panel with the controls' trainings too would have too many lines."""

    def recipes(plan):
        return {recipe for _, recipe in figures.of(plan)["loss_curves"].source.spec(plan)}

    paper = {"full", "mofe", "lora", "qlora", "dora", "freeze1", "freeze2", "freeze3"}
    assert recipes(Plan(read_study(CONFIG))) == paper
    assert recipes(plan_of()) == {"mofe_tuned"}, "where no table has a number, all are drawn"
