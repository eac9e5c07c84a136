"""Rows of other training sets that are trained on with a mix's own, and experts that were
post-pretrained before the merge."""

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import CONFIG, MINI, REDUCED, TRAINING
from hypothesis import given
from hypothesis import strategies as st

from mofe.data import world
from mofe.estimate.cost import Costs
from mofe.models import load
from mofe.report.figures import inputs
from mofe.stages import prepare
from mofe.study.graph import Graph
from mofe.study.load import read_study
from mofe.study.plan import Plan
from mofe.study.values import ConfigError
from mofe.training import tokens

FULL = {"method": "full"}


def rows_of(count: int, first: int = 0) -> tokens.Rows:
    ids, sets = [[first + i, 1] for i in range(count)], [int(first > 0)] * count
    return tokens.Rows(ids, [1] * count, dropped=1 + count % 3, sets=sets)


@given(st.integers(1, 300), st.floats(0.01, 0.9), st.integers(0, 5))
def test_replayed_rows_are_the_share_of_all_and_each_comes_once(own, share, seed):
    mine, others = rows_of(own), rows_of(3000, first=10_000)
    both = tokens.with_replay(mine, others, share, seed)
    assert both.ids[:own] == mine.ids and both.dropped == mine.dropped + others.dropped
    assert both.sets == [0] * own + [1] * both.replayed
    drawn = [ids[0] for ids in both.ids[own:]]
    assert len(drawn) == both.replayed >= 1 and set(drawn) <= set(range(10_000, 13_000))
    assert max(Counter(drawn).values()) == 1
    assert both.replayed == 1 or both.replayed / len(both) == pytest.approx(share, abs=0.5 / own)
    smaller = tokens.with_replay(mine, others, share / 2, seed)
    assert {ids[0] for ids in smaller.ids[own:]} <= set(drawn)
    assert tokens.with_replay(mine, others, share, seed).digest == both.digest


@given(st.integers(1, 40), st.integers(1, 200), st.floats(0.05, 0.9))
def test_fewer_rows_than_the_share_needs_come_again_when_all_have_come(few, own, share):
    both = tokens.with_replay(rows_of(own), rows_of(few, first=10_000), share, 0)
    times = Counter(ids[0] for ids in both.ids[own:])
    counts = [times[row] for row in range(10_000, 10_000 + few)]
    assert sum(counts) == both.replayed == max(1, round(own * share / (1 - share)))
    assert max(counts) - min(counts) <= 1


def test_sets_without_a_row_are_not_replayed():
    with pytest.raises(ValueError, match="the data sets of 'replay' have no row; name others"):
        tokens.with_replay(rows_of(10), rows_of(0), 0.5, 0)


@pytest.fixture(scope="module")
def texts(tiny, tmp_path_factory) -> str:
    """Thirty short texts, no two with the same tokens."""
    file = tmp_path_factory.mktemp("texts") / "texts.parquet"
    known = sorted(word for word in load.tokenizer(tiny / "a").get_vocab() if word.isalpha())
    told = [" ".join(known[n : n + 4]) for n in range(30)]
    pq.write_table(pa.table({"prompt": [""] * 30, "answer": told}), file)
    return str(file)


def test_a_training_with_replay_sees_both_sets_in_every_epoch(tiny, data, tmp_path, texts):
    """As one on the same rows in one file, bit for bit: nothing else is different."""
    replayed = train_with(tiny, data, tmp_path / "replay", replay=([texts], 0.2))
    assert (replayed["rows"], replayed["replayed_rows"]) == (25, 5)
    assert replayed["steps"] == TRAINING["epochs"] * 4
    pairs = tokens.read([data])
    how = load.tokenizer(tiny / "a"), 64
    others = tokens.tokenize(tokens.read([texts]), *how)
    rows = tokens.with_replay(tokens.tokenize(pairs, *how), others, 0.2, 3)
    assert replayed["tokens"] == TRAINING["epochs"] * sum(rows.lengths)
    chosen = {tuple(ids) for ids in rows.ids[20:]}
    pairs += [
        p for p, ids in zip(tokens.read([texts]), others.ids, strict=True) if tuple(ids) in chosen
    ]
    order = {tuple(ids): n for n, ids in enumerate(rows.ids)}
    pairs.sort(key=lambda pair: order[tuple(tokens.tokenize([pair], *how).ids[0])])
    file = tmp_path / "both.parquet"
    pq.write_table(
        pa.table(dict(zip(("prompt", "answer"), zip(*pairs, strict=True), strict=True))), file
    )
    plain = train_with(tiny, str(file), tmp_path / "plain")
    assert "replayed_rows" not in plain
    one, two = (tmp_path / n / "trained.safetensors" for n in ("replay", "plain"))
    assert one.read_bytes() == two.read_bytes()


def train_with(tiny, data, out, replay=None) -> dict:
    from mofe.stages import train

    files, share = replay or ((), None)
    drawn = {"replay": {"share": share, "seed": 3}} if replay else {}
    train.train_variant(
        merge=str(tiny / "moe2a2b"),
        data=[data],
        replay=list(files),
        parents=[],
        chain=[],
        params={"recipe": "it", **FULL, "training": TRAINING, **drawn},
        names={"moe": "moe2a2b", "stages": "it"},
        seed=0,
        trained=out / "trained.safetensors",
        record=out / "train.json",
        log=out / "log.jsonl",
        checkpoint=out / "checkpoint",
    )
    return json.loads((out / "train.json").read_text())


# ----------------------------------------------------------------------------------- in a study


def table(**rows):
    columns = {"MedMCQA": "medmcqa"}
    own = {"caption": "", "labels": ["It"], "columns": columns, "rows": rows}
    return {**dict.fromkeys([*range(1, 8), "C1", "C2", "C3", "C4", "C5"]), "own": own}


MIXES = {
    "posttrain_replay": {
        "data": ["medical_corpus", "multi_news"],
        "replay": {"data": ["medmcqa"], "share": 0.1},
    }
}
ROW = {"mixture": "medium", "train": {"posttrain_replay": "mofe", "medmcqa": "mofe"}}


def test_a_study_plans_what_it_replays():
    mixes = {"posttrain_replay": {**MIXES["posttrain_replay"], "training": {"epochs": 1}}}
    rows = {"with": ROW, "without": {"mixture": "medium", "train": {"posttrain": "mofe"}}}
    plan = Plan(read_study(CONFIG, mixes=mixes, tables=table(**rows)))
    assert plan.datasets == ("medical_corpus", "multi_news", "medmcqa")
    name = "tinyllama_4tinyllama/posttrain_replay_mofe"
    variant, without = plan.variants[name], plan.variants["tinyllama_4tinyllama/posttrain_mofe"]
    assert plan.params.stage(variant.stages[0])["replay"] == {"share": 0.1, "seed": 0}
    assert "replay" not in plan.params.stage(without.stages[0])
    graph = Graph(plan, inputs(plan))
    given = graph.train(name, "0")
    assert given["replay"] == ["results/data/medmcqa.parquet"]
    assert len(given["data"]) == 2 and graph.train(without.key, "0")["replay"] == []
    assert plan.mixes["posttrain_replay"][-1] == "medmcqa (replayed)"
    costs = Costs(plan)
    own, both = (costs.train(v).tokens for v in (without, variant))
    added = 400_000 / 9 * plan.study.data["medmcqa"].tokens
    assert both - own == pytest.approx(added)
    datasets = [d["name"] for d in plan.params.export(variant, 0)["data"]]
    assert "medmcqa" in datasets


@pytest.mark.parametrize(
    "replay, told",
    [
        ({"data": ["multi_news"], "share": 0.1}, "'multi_news' is one of the mix's own sets"),
        ({"data": ["medmcqa"] * 2, "share": 0.1}, "'medmcqa' is named 2 times; name it once"),
        ({"data": ["medmqa"], "share": 0.1}, "'medmqa' is not declared under data"),
        ({"data": ["medmcqa"], "share": 1.0}, "share: 1.0 is too large; give less than 1"),
        ({"data": [], "share": 0.1}, "has 0 of at least 1 entries"),
    ],
)
def test_what_cannot_be_replayed_is_refused(replay, told):
    mixes = {"posttrain_replay": {**MIXES["posttrain_replay"], "replay": replay}}
    with pytest.raises(ConfigError) as refused:
        read_study(CONFIG, mixes=mixes, tables=table(it=ROW))
    assert len(refused.value.problems) == 1 and told in refused.value.problems[0]


def test_a_mix_that_nothing_trains_on_is_not_refused():
    replay = {"data": ["multi_news"], "share": 0.1}
    mixes = {"posttrain_replay": {**MIXES["posttrain_replay"], "replay": replay}}
    plan = Plan(read_study(CONFIG, mixes=mixes))
    assert "posttrain_replay" not in plan.trained_on and "multi_news" in plan.datasets


def test_the_miniature_replays_what_its_base_was_pretrained_on(tmp_path):
    """The corpus is a data set like others, and so are documents of the other kind."""
    mixes = {
        "again": {
            "data": ["medical_asked", "news_asked"],
            "replay": {"data": ["corpus"], "share": 0.5},
        }
    }
    rows = {"it": {"mixture": "medium", "train": {"again": "mofe", "medmcqa": "mofe"}}}
    study = read_study(
        CONFIG, MINI, REDUCED, mixes=mixes, tables=table(**rows), results=str(tmp_path)
    )
    plan = Plan(study)
    assert set(plan.datasets) == {"medical_asked", "news_asked", "corpus", "medmcqa"}
    assert not plan.manifests, "all of them are the world's"
    world.generate(study.world, tmp_path / "world")
    wanted = {"corpus": "full", "medical_asked": 5, "news_asked": 5}
    for name, rows_ in wanted.items():
        params = plan.params.data(name) | {"mirror": str(tmp_path / "world")}
        params["data"] = {**params["data"], "rows": rows_}
        prepare.prepare(params, tmp_path / f"{name}.parquet", tmp_path / f"{name}.json")
        made = pq.read_table(tmp_path / f"{name}.parquet")
        assert set(made["prompt"].to_pylist()) == {""} and all(made["answer"].to_pylist())
    assert pq.read_table(tmp_path / "corpus.parquet").num_rows == len(world.corpus(study.world))


def test_experts_are_post_pretrained_before_the_merge(paper_plan):
    """A chain of dense models, each trained in one stage, is planned as one job after the other."""
    gates = paper_plan.study.models["medical"].gates.model_dump()
    models = {
        "read": {"from": "tinyllama", "train": {"medical_corpus": "expert"}, "gates": gates},
        "tuned": {"from": "read", "train": {"medmcqa": "expert"}, "gates": gates},
    }
    mixtures = {
        "before": {"base": "tinyllama", "experts": {"read": 4}},
        "twice": {"base": "tinyllama", "experts": {"tuned": 4}},
    }
    rows = {
        "Post-pretrained": {"mixture": "before", "train": {"medmcqa": "mofe"}},
        "then tuned": {"mixture": "twice", "train": {"medmcqa": "mofe"}},
    }
    plan = Plan(read_study(CONFIG, models=models, mixtures=mixtures, tables=table(**rows)))
    graph = Graph(plan, inputs(plan))
    jobs = {(node.rule, node.label): node for node in graph.makers.values()}
    read, tuned = jobs["train_expert", "read/s0"], jobs["train_expert", "tuned/s0"]
    assert "results/experts/tinyllama" in read.inputs
    assert "results/data/medical_corpus.parquet" in read.inputs
    assert read.outputs[0] in tuned.inputs and "results/data/medmcqa.parquet" in tuned.inputs
    merged = {label: node for (rule, label), node in jobs.items() if rule == "merge_per_seed"}
    assert tuned.outputs[0] in merged["tinyllama_4tuned/s0"].inputs
    assert read.outputs[0] in merged["tinyllama_4read/s0"].inputs
    costs = Costs(plan)
    assert costs.train_expert("read").tokens > costs.train_expert("tuned").tokens > 0
