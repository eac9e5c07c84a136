"""The plan: what is shared, what depends on what, and that it costs nothing to ask."""

import subprocess
import sys
from collections import Counter

import pytest
import yaml
from conftest import CONFIG, LOOK, MINI, ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from mofe import paper
from mofe.estimate.cost import Costs
from mofe.estimate.schedule import jobs
from mofe.report import figures, sources
from mofe.report.figures import inputs
from mofe.study import tables
from mofe.study.graph import Graph
from mofe.study.load import load_study, read_study
from mofe.study.plan import Plan
from mofe.study.values import ConfigError
from mofe.study.variants import Moe, Stage, Variant

PAPERS = 62  # evaluations that the paper's columns show
BESIDE = 8  # and those of our own columns: Tables 4 and 5 are nine rows and eight models


def eval_jsons(plan: Plan) -> list[str]:
    """The JSON of every evaluation of a plan: each variant on its tasks, seed by seed."""
    return [
        plan.paths.eval_json(plan.variants[key], seed, task)
        for key, tasks in plan.tasks.items()
        for seed in plan.seeds(plan.variants[key])
        for task in tasks
    ]


def test_the_papers_study_is_31_trainings(paper_plan):
    rows = [row for table in paper_plan.tables.values() for row in table.rows]
    assert len(rows) == 44
    assert len(paper_plan.tasks) == 33, "variants that a table shows"
    assert len(paper_plan.trained) == 31
    assert [m for m in paper_plan.models if paper_plan.study.models[m].from_] == [
        "general",
        "medical",
        "finance",
    ]
    assert len(paper_plan.moes) == 12
    assert len(eval_jsons(paper_plan)) == len(set(eval_jsons(paper_plan))) == PAPERS + BESIDE
    beside = [path for path in eval_jsons(paper_plan) if path.endswith("/finance_open.json")]
    assert len(beside) == BESIDE


def files(plan: Plan, table: int, row: int) -> list:
    """The eval files of a table's row (from 1)."""
    return [c.files for c in plan.tables[table].rows[row - 1].cells if c.kind == "task"]


@pytest.mark.parametrize(
    "one, other",
    [
        ((1, 1), (2, 1)),  # untuned small
        ((1, 3), (2, 5)),  # MoFE small
        ((1, 9), (2, 15)),  # MoFE large
        ((3, 1), (4, 1)),
        ((3, 2), (4, 2)),
        ((3, 3), (4, 3)),
        ((5, 1), (4, 5)),  # general base
        ((6, 1), (7, 1)),
    ],
)
def test_rows_that_are_one_model_share_its_files(paper_plan, one, other):
    first, second = files(paper_plan, *one), files(paper_plan, *other)
    assert first[0] == second[0]


def test_every_table_shows_the_papers_rows(paper_plan):
    published = paper.published()
    for number, table in paper_plan.tables.items():
        ours = {(" | ".join(r.labels), c.column) for r in table.rows for c in r.cells if c.files}
        theirs = published[published["table"] == number]
        assert ours == set(zip(theirs["label"], theirs["column"], strict=True)), number


def test_columns_beside_the_papers_are_evaluated_and_stay_out_of_its_columns(paper_plan):
    for number, table in paper_plan.tables.items():
        assert table.beside == (("Finance answers (F1)",) if number in (4, 5) else ())
        for row in table.rows:
            assert [cell.column for cell in row.beside] == list(table.beside)
            own = [file for cell in row.beside for file in cell.files]
            assert own == [f for f in own if f.endswith("/s0/finance_open.json")]
            assert set(own) <= set(paper_plan.table_input(number)) & set(eval_jsons(paper_plan))
            assert not set(own) & set(figures.FIGURES["medical_experts"].source.files(paper_plan))
    general, two_two = paper_plan.tables[5].rows[0], paper_plan.tables[4].rows[4]
    assert general.beside == two_two.beside


def test_mixes_hold_every_training_once(paper_plan):
    source = sources.RECORDS
    trainings = source.filled(source.spec(paper_plan), source.files(paper_plan), seeds=1)
    mixes = sources.by_mix(paper_plan.mixes, trainings)
    runs = [run for mix in mixes.values() for run in mix["trainings"]]
    assert sorted(runs) == sorted(paper_plan.train_jsons)
    assert mixes["posttrain"]["data"] == ["medical_corpus", "multi_news"]
    assert mixes["medmcqa"]["data"] == ["medmcqa"]


@pytest.mark.parametrize("seeds", [[0], [0, 1, 2]])
def test_tables_lose_their_files_and_get_them_back(seeds):
    dense = {2: {"rows": {"T | X": {"model": "general"}}}}
    plan, once = (Plan(read_study(CONFIG, LOOK, seeds=s, tables=dense)) for s in (seeds, [0]))
    whole = list(plan.tables.values())
    bare, files = tables.bare(whole), tables.files(whole)
    assert tables.filled(bare, files, len(seeds)) == whole
    assert bare == tables.bare(once.tables.values()), "whatever the seeds"
    assert "/" not in str(bare)
    assert sorted(tables.evaluations(whole)) == sorted(eval_jsons(plan))
    with pytest.raises(ValueError, match="lacks its file"):
        tables.filled(bare, files[:-1], len(seeds))
    with pytest.raises(ValueError, match="belongs to no cell"):
        tables.filled(bare, [*files, "more.json"], len(seeds))


def test_a_study_has_the_figures_that_it_can_draw(paper_plan):
    of_claims = ["claims", "noise", "power"]
    every = ["time_accuracy", "medical_experts", "frozen_experts", "loss_curves", *of_claims]
    assert list(figures.of(paper_plan)) == every
    recording = Plan(read_study(CONFIG, training={"record_router": 9}))
    assert list(figures.of(recording)) == list(figures.FIGURES)
    routers = {"router_load", "router_entropy", "router_information"}
    assert set(figures.FIGURES) - set(every) == {"learning_rates"} | routers
    few = Plan(read_study(CONFIG, LOOK, tables=dict.fromkeys((1, 2, 7))))
    assert list(figures.of(few)) == ["medical_experts", "loss_curves", *of_claims]
    rows = {"rows": {"Small": {"mixture": "small"}}}
    alone = {**dict.fromkeys(range(1, 8)), "C1": {**UNTUNED, **rows}}
    untuned = Plan(read_study(CONFIG, LOOK, tables=alone))
    assert list(figures.of(untuned)) == of_claims


UNTUNED = {
    "caption": "As merged.",
    "labels": ["Model"],
    "columns": {"MedMCQA": "medmcqa", "Trained": "trainable"},
    "rows": {
        "Dense": {"model": "tinyllama"},
        "Small": {"mixture": "small"},
        "Routed": {"mixture": "routed"},
    },
}


def test_a_mixtures_own_merge_enters_its_name_where_it_differs(paper_plan):
    def merged(**merge) -> Plan:
        routed = {"base": "tinyllama", "experts": {"tinyllama": 2}, "merge": merge}
        return Plan(read_study(CONFIG, LOOK, mixtures={"routed": routed}, tables={"C1": UNTUNED}))

    assert set(merged(gate_mode="hidden").moes) == set(paper_plan.moes)
    plan = merged(gate_mode="random", experts_per_token=1)
    (name,) = plan.moes.keys() - paper_plan.moes.keys()
    assert name == "tinyllama_2tinyllama_random_top1"
    params = plan.params.merge(name)
    assert (params["gate_mode"], params["experts_per_token"]) == ("random", 1)
    assert params["seed"] == plan.study.sampling_seed
    assert plan.params.merge("tinyllama_2tinyllama") == paper_plan.params.merge(
        "tinyllama_2tinyllama"
    )
    costs = Costs(plan)
    assert costs.moe_shape(name).active == 1
    assert costs.moe_shape("tinyllama_2tinyllama").active == 2


def test_a_dense_row_is_the_model_itself(paper_plan):
    table = {
        **UNTUNED,
        "rows": {
            "D": {"model": "general"},
            "T": {"model": "general", "train": {"medmcqa": "lora"}},
        },
    }
    plan = Plan(read_study(CONFIG, LOOK, tables={**dict.fromkeys(range(1, 8)), "C1": table}))
    assert not plan.moes and plan.models == ("tinyllama", "general")
    untuned, tuned = plan.variants.values()
    assert [v.key for v in (untuned, tuned)] == ["general/none", "general/medmcqa_lora"]
    assert plan.paths.origin_dir(tuned, 0) == "results/experts/general/s0"
    assert plan.dense_input(tuned, 0) == []
    untuned_row, tuned_row = plan.tables["C1"].rows
    assert (untuned_row.experts, tuned_row.frozen) == ((), None)
    assert not untuned_row.cells[1].files and tuned_row.cells[1].files
    costs = Costs(plan)
    trained = costs.train(tuned)
    assert trained.parameters - trained.trainable == costs.shape("general").parameters
    assert trained.trainable == 2_252_800
    assert costs.evaluate(untuned, "medmcqa").parameters == costs.shape("general").parameters
    made = jobs(costs, inputs(costs.plan))
    assert made[plan.paths.eval_json(untuned, 0, "medmcqa")].tables == ("C1",)
    assert plan.paths.model_dir("general", 0) in made[plan.paths.train_json(tuned, 0)].after


def test_a_dense_row_shares_no_name_with_a_merge():
    row = {"mixture": "medium"}
    study = {
        "models": {"tinyllama_4tinyllama": {"path": "x"}},
        "tables": {7: {"rows": {"8 | 9": row, "9 | 9": {"model": "tinyllama_4tinyllama"}}}},
    }
    with pytest.raises(ConfigError, match="both be stored as tinyllama_4tinyllama;"):
        Plan(read_study(CONFIG, LOOK, **study))


def test_a_study_of_three_seeds_makes_what_it_trains_three_times(paper_plan):
    mini = Plan(read_study(CONFIG, LOOK, MINI))
    assert len(mini.train_jsons) == 3 * 31
    assert len(eval_jsons(mini)) == 3 * PAPERS - 2 * 6, "an untuned merge of the base has no seed"
    assert not any(table.beside for table in mini.tables.values())
    assert all(path.startswith("results/mini/") for path in eval_jsons(mini) + mini.train_jsons)
    assert eval_jsons(paper_plan)[0].startswith("results/evals/")


UNTUNED_EXPERTS = {
    **UNTUNED,
    "rows": {
        "Base": {"model": "tinyllama"},
        "Copies of it": {"mixture": "small"},
        "Expert": {"model": "medical"},
        "Experts": {"mixture": "mixed"},
        "Tuned": {"mixture": "small", "train": {"medmcqa": "mofe"}},
    },
}
MIXED = {"base": "general", "experts": {"tinyllama": 1, "medical": 1}}


def drawn(seeds: list[int], **changes) -> Plan:
    study = {"mixtures": {"mixed": MIXED}, "tables": {"C1": UNTUNED_EXPERTS}, "seeds": seeds}
    return Plan(read_study(CONFIG, LOOK, **{**study, **changes}))


def test_a_row_takes_the_seeds_if_anything_of_it_is_trained():
    plan = drawn([3, 5])
    rows = plan.tables["C1"].rows
    seeds = {row.labels[0]: [f.split("/")[4] for f in row.cells[0].files] for row in rows}
    several = ["s3", "s5"]
    assert seeds == {
        "Base": ["s0"],
        "Copies of it": ["s0"],
        "Expert": several,
        "Experts": several,
        "Tuned": several,
    }


def test_a_dense_model_that_the_study_trains_has_a_folder_per_seed_and_so_have_its_merges():
    plan = drawn([3, 5])
    paths, mixed = plan.paths, plan.moes["general_1medical-1tinyllama"]
    assert paths.model_dir("medical", 3) == "results/experts/medical/s3"
    assert paths.moe_dir(mixed, "5") == "results/moe/general_1medical-1tinyllama/s5"
    assert plan.merge_input(mixed, 5) == [
        "results/experts/general/s5",
        "results/experts/medical/s5",
        "results/experts/tinyllama",
    ]
    slots = plan.params.merge(mixed.name, "5")["slots"]
    assert [slot["model"] for slot in slots] == plan.merge_input(mixed, 5)[1:]
    small = plan.moes["tinyllama_2tinyllama"]
    assert paths.moe_dir(small, 5) == paths.moe_dir(small) == "results/moe/tinyllama_2tinyllama"
    assert (plan.merge_seeds(small), plan.merge_seeds(mixed)) == ((), (3, 5))
    with pytest.raises(ValueError, match="experts/medical: there is one for each seed"):
        paths.model_dir("medical")
    own = drawn([3], models={"medical": {"from": None, "train": None, "path": "mine"}})
    assert own.paths.model_dir("medical", 3) == own.paths.model_dir("medical") == "mine"


def test_the_experts_of_experts_take_the_same_seed():
    plan = drawn([3, 5], models={"medical": {"from": "general"}})
    graph = Graph(plan, inputs(plan))
    assert graph.train_expert("medical", "5")["origin"] == "results/experts/general/s5"
    assert graph.train_expert("general", "5")["origin"] == "results/experts/tinyllama"


def test_the_rows_of_the_data_are_the_same_for_all_seeds():
    plan, other = drawn([0]), drawn([1, 2])
    for dataset in plan.datasets:
        assert plan.params.data(dataset) == other.params.data(dataset)
        assert plan.params.data(dataset)["seed"] == plan.study.sampling_seed
    for task in plan.study.tasks:
        assert plan.params.task(task) == other.params.task(task)
    assert drawn([0], sampling_seed=1).params.data("medmcqa") != plan.params.data("medmcqa")
    assert plan.params.model("medical") == drawn([0], sampling_seed=1).params.model("medical")


def test_planning_imports_neither_torch_nor_transformers():
    code = (
        "import sys; from mofe.study.load import read_study; from mofe.study.plan import Plan;"
        "from mofe.report import figures;"
        f"plan = Plan(read_study({str(CONFIG)!r})); plan.tables; figures.of(plan);"
        "heavy = {'torch', 'transformers', 'pandas', 'datasets', 'matplotlib'};"
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def stages(plan: Plan) -> dict:
    return {k: plan.params.stage(v.stages[-1]) for k, v in plan.trained.items()}


@pytest.mark.parametrize(
    "change, changed",
    [
        ({"recipes": {"lora": {"rank": 4}}}, {"lora"}),
        ({"recipes": {"mofe": {"training": {"epochs": 7}}}}, {"mofe"}),
        ({"recipes": {"freeze2": {"frozen": 1}}}, {"freeze2"}),
    ],
)
def test_a_recipes_change_reaches_its_own_variants_only(paper_plan, change, changed):
    before, after = stages(paper_plan), stages(Plan(read_study(CONFIG, LOOK, **change)))
    assert before.keys() == after.keys()
    differ = {key.rsplit("_", 1)[-1] for key in before if before[key] != after[key]}
    assert differ == changed
    assert all(before[key] != after[key] for key in before if key.rsplit("_", 1)[-1] in changed)


def test_overrides_resolve_mix_then_recipe(paper_plan):
    plan = Plan(read_study(CONFIG, LOOK, recipes={"mofe": {"training": {"weight_decay": 0.5}}}))
    posttrain = plan.params.stage(Stage("posttrain", "mofe"))["training"]
    assert (posttrain["epochs"], posttrain["weight_decay"]) == (1, 0.5)
    assert plan.params.stage(Stage("medmcqa", "mofe"))["training"]["epochs"] == 3


def test_experts_are_stored_in_the_merges_dtype_where_that_loses_nothing(paper_plan):
    def stored(*files, **changes):
        plan = Plan(read_study(CONFIG, LOOK, *files, **changes))
        return {m: plan.params.model(m).get("dtype") for m in plan.models}

    halved = dict.fromkeys(("general", "medical", "finance"), "bfloat16") | {"tinyllama": None}
    assert stored() == halved
    # it is trained from its origin's weights, not from rounded ones
    assert stored(models={"finance": {"from": "general"}}) == halved | {"general": "float32"}
    assert set(stored(MINI).values()) == {None, "float32"}
    assert set(stored(merge={"dtype": "float32"}).values()) == {None, "float32"}


def test_an_artefact_that_a_row_only_starts_from_shares_no_name_either():
    row = {"mixture": "medium", "train": {"a_b": "c"}}
    study = {
        "mixes": {"a_b": {"data": ["mmlu"]}, "a": {"data": ["medmcqa"]}},
        "recipes": {"c": {"method": "full"}, "b_c": {"method": "full"}},
        "tables": {
            7: {"rows": {"8 | 9": row, "9 | 9": {**row, "train": {"a": "b_c", "medmcqa": "mofe"}}}}
        },
    }
    with pytest.raises(ConfigError, match="would both be stored as"):
        Plan(read_study(CONFIG, LOOK, **study))


def test_examples_shown_in_evaluation_do_not_change_the_training(paper_plan):
    few = Plan(read_study(CONFIG, LOOK, shots=5))
    assert few.params.data("medmcqa") == paper_plan.params.data("medmcqa")
    assert few.params.task("medmcqa") != paper_plan.params.task("medmcqa")


def test_two_artefacts_never_share_a_name():
    row = {"mixture": "medium", "train": {"a_b": "c"}}
    study = {
        "mixes": {"a_b": {"data": ["mmlu"]}, "a": {"data": ["medmcqa"]}},
        "recipes": {"c": {"method": "full"}, "b_c": {"method": "full"}},
        "tables": {7: {"rows": {"8 | 9": row, "9 | 9": {**row, "train": {"a": "b_c"}}}}},
    }
    with pytest.raises(ConfigError, match="would both be stored as"):
        Plan(read_study(CONFIG, LOOK, **study))


def test_two_merges_never_share_a_name_also_where_their_training_differs():
    """An expert's own name may end like the settings that enter a merge's name."""
    medical = {"from": "tinyllama", "train": {"medmcqa": "expert"}}
    gates = {"positive": [["x"], ["y"]]}
    study = {
        "models": {"medical_random": {**medical, "gates": gates}},
        "mixtures": {
            "A": {"base": "tinyllama", "experts": {"medical_random": 2}},
            "B": {
                "base": "tinyllama",
                "experts": {"medical": 2},
                "merge": {"gate_mode": "random"},
            },
        },
        "tables": {
            7: {
                "rows": {
                    "8 | 9": {"mixture": "A", "train": {"medmcqa": "lora"}},
                    "9 | 9": {"mixture": "B", "train": {"medmcqa": "mofe"}},
                }
            }
        },
    }
    with pytest.raises(ConfigError, match="both be stored as tinyllama_2medical_random;"):
        Plan(read_study(CONFIG, LOOK, **study))


experts = st.dictionaries(
    st.sampled_from(["tinyllama", "general", "medical", "finance"]),
    st.integers(1, 3),
    min_size=1,
).filter(lambda e: sum(e.values()) >= 2)


@settings(max_examples=25)
@given(experts, st.randoms())
def test_equal_mixtures_have_equal_names_whatever_their_order(counts, random):
    shuffled = list(counts.items())
    random.shuffle(shuffled)
    ours, other = with_small(counts), with_small(dict(shuffled))
    assert ours == other
    assert Counter(ours.experts) == counts


def with_small(experts: dict[str, int]) -> Moe:
    """The merge of the small rows when the small mixture has these experts on a general base."""
    config = yaml.safe_load(CONFIG.read_text())
    config["mixtures"]["small"] = {"base": "general", "experts": experts}
    plan = Plan(load_study(config))
    (name,) = {name for name in plan.moes if files(plan, 1, 1)[0][0].split("/")[2] == name}
    return plan.moes[name]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), max_size=4))
def test_a_variants_parents_are_its_beginnings(names):
    variant = Variant(Moe("m", ("e", "e")), tuple(Stage(*n) for n in names))
    chain = [*variant.parents, variant] if names else []
    assert [v.stages for v in chain] == [variant.stages[: n + 1] for n in range(len(names))]
    assert variant.key == f"m_2e/{'.'.join(f'{a}_{b}' for a, b in names) or 'none'}"
