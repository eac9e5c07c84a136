"""Rows of a training set that training does not draw, asked as questions."""

import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from conftest import CONFIG, MINI, REDUCED
from datasets import Dataset
from test_mcq import COLUMNS, ROWS, put

from mofe import records, tasks
from mofe.data import sources, texts
from mofe.estimate.cost import Costs
from mofe.jobs import checks
from mofe.jobs.checks import Waiting
from mofe.models import load
from mofe.records import AskedQuestion
from mofe.stages import evaluate, prepare, questions
from mofe.study.load import read_study
from mofe.study.plan import Plan
from mofe.study.values import ConfigError
from mofe.tasks import training
from mofe.training.tokens import read, tokenize

SETS = ["mmlu", "medmcqa"]


def table(task: str) -> dict:
    """A table that shows a task."""
    rows = {"x": {"mixture": "small"}}
    return {"H": {"caption": "x", "labels": ["x"], "columns": {"X": task}, "rows": rows}}


def plan_of(root: Path, **changes) -> Plan:
    return Plan(read_study(CONFIG, MINI, REDUCED, results=str(root), **changes))


@pytest.fixture(scope="module")
def plan(tiny) -> Plan:
    return plan_of(tiny)  # tiny/world is its world


def prompts(built: list[AskedQuestion]) -> list[tuple[int, ...]]:
    return [tuple(q.ids[0][: q.starts[0]]) for q in built]


def prepared(plan: Plan, dataset: str, folder: Path) -> list[tuple[str, str]]:
    prepare.prepare(plan.params.data(dataset), folder / "rows.parquet", folder / "rows.json")
    return list(read([folder / "rows.parquet"]))


@pytest.mark.parametrize("scoring", ["text", "letter"])
@pytest.mark.parametrize("dataset", SETS)
def test_what_is_asked_is_neither_trained_on_nor_a_test_question(tiny, tmp_path, dataset, scoring):
    """Questions are training rows in all but being drawn: prompt, options and answer."""
    plan = plan_of(tiny, scoring=scoring)
    tokenizer = load.tokenizer(tiny / "a")
    params = plan.params.data(dataset)
    rows = sources.load(
        params["source"], params["data"]["subset"], params["data"]["split"], params["mirror"]
    )
    usable = {
        tuple(tokenizer(prompt)["input_ids"]): tokenizer(prompt + answer)["input_ids"]
        for prompt, answer in tasks.training_rows(params["task"], rows)
    }
    asked = questions.build(plan.params.task(f"{dataset}_held"), tokenizer)
    assert len(asked) == len(set(prompts(asked))) == 40
    for question, prompt in zip(asked, prompts(asked), strict=True):
        assert question.ids[question.target] == usable[prompt]
        assert question.task == f"{dataset}_held"
    trained = {
        tuple(tokenizer(prompt)["input_ids"]) for prompt, _ in prepared(plan, dataset, tmp_path)
    }
    tested = set(prompts(questions.build(plan.params.task(dataset), tokenizer)))
    assert len(trained) == 64 and not set(prompts(asked)) & (trained | tested)


def test_the_draw_is_the_seeds_and_leaves_training_alone(tiny, plan, tmp_path):
    tokenizer = load.tokenizer(tiny / "a")
    held = {}
    for seed in (0, 1):
        other = plan_of(tiny, sampling_seed=seed).params.task("mmlu_held")
        held[seed] = prompts(questions.build(other, tokenizer))
        assert held[seed] == prompts(questions.build(other, tokenizer))
    assert held[0] != held[1]
    # as many more questions keep those that were asked
    more = plan_of(tiny, tasks={"mmlu_held": {"questions": 90}}).params.task("mmlu_held")
    assert set(held[0]) < set(prompts(questions.build(more, tokenizer)))
    # nothing of the task is part of what a training set depends on
    assert plan_of(tiny, tasks={"mmlu_held": {"questions": 90}}).params.data("mmlu") == (
        plan.params.data("mmlu")
    )


def test_every_row_is_drawn_left_or_asked(tiny, plan, tmp_path):
    """Asking all that training leaves asks every usable row that it does not draw."""
    params = plan.params.data("mmlu")
    everything = {row.prompt for row in training.usable(params).rows}
    trained = {prompt for prompt, _ in prepared(plan, "mmlu", tmp_path)}
    left = len(everything) - len(trained)
    whole = plan_of(tiny, tasks={"mmlu_held": {"questions": left}}).params.task("mmlu_held")
    (task,) = training.held_out(whole).values()
    assert {task.doc_to_text(doc) for doc in task.eval_docs} == everything - trained
    whole["held_out"]["questions"] = left + 1
    with pytest.raises(
        ValueError,
        match=rf"tasks.mmlu_held.questions: {left + 1} are to be asked, but training on 64 of "
        rf"{len(everything)} usable rows leaves {left}; lower",
    ):
        questions.build(whole, load.tokenizer(tiny / "a"))


def test_a_variant_is_evaluated_on_them(tiny, plan, tmp_path):
    params = plan.params.task("medmcqa_held")
    questions.make(params=params, tokenizer=str(tiny / "a"), out=tmp_path / "asked.parquet")
    evaluate.evaluate_variant(
        merge=str(tiny / "moe2a"),
        trained=[],
        chain=[],
        asked=str(tmp_path / "asked.parquet"),
        params=params,
        names={"moe": "moe2a", "stages": "none", "seed": 0},
        record=tmp_path / "medmcqa_held.json",
        questions=tmp_path / "medmcqa_held.questions.jsonl.gz",
    )
    record = evaluate.records.read(tmp_path / "medmcqa_held.json", evaluate.records.EvalRecord)
    assert (record.task, record.held_out, record.n) == ("medmcqa_held", "medmcqa", 40)
    assert list(record.metrics) == ["acc", "acc_norm", "entropy", "perplexity"]
    assert 0.25 <= record.floor.value < 0.6
    names = pq.read_table(tmp_path / "asked.parquet")["cluster"].to_pylist()
    facts = [name for name in names if name is not None]
    assert facts and record.clusters == 40 - len(facts) + len(set(facts))


def test_rows_of_any_columns_and_of_one_split(tmp_path):
    """The generic task: clusters come from the set's own columns, also where they are nested."""
    rows = [row | {"about": {"topic": f"t{n % 5}" if n % 4 else ""}} for n, row in enumerate(ROWS)]
    put(tmp_path, train=rows)
    study = {
        "mirror": str(tmp_path),
        "sources": {"mine": {"repo": "me/mine", "revision": "main"}},
        "data": {"mine": {"source": "mine", "split": "train", "task": "mine", "rows": 12}},
        "tasks": {
            "mine": {
                "harness": ["mofe_mcq"],
                "source": "mine",
                "columns": COLUMNS,
                "split": "train",
                "test_share": 0.5,
                "cluster": "about.topic",
            },
            "held": {"held_out": "mine", "questions": 8, "cluster": "about.topic"},
        },
    }
    plan = Plan(read_study(CONFIG, **study))
    topics = {row["stem"]: row["about"]["topic"] or None for row in rows}
    asked = {}
    for name in ("mine", "held"):
        params = plan.params.task(name)
        (task,) = (training.held_out(params) if name == "held" else tasks.build(params)).values()
        asked[name] = {doc["question"] for doc in task.eval_docs}
        for doc in task.eval_docs:
            assert doc["mofe_cluster"] == topics[doc["question"]]
    trained = {prompt for prompt, _ in prepared(plan, "mine", tmp_path)}
    texts = {f"{q.strip()}\n" for name in asked for q in asked[name]}
    assert [len(asked["mine"]), len(asked["held"]), len(trained)] == [20, 8, 12]
    assert not any(prompt.startswith(tuple(texts)) for prompt in trained)
    study["tasks"]["held"]["cluster"] = "about.them"
    params = Plan(read_study(CONFIG, **study)).params.task("held")
    told = r"tasks.held.cluster: me/mine \(train\) has no column 'about.them'; it has stem, a"
    with pytest.raises(ValueError, match=told):
        training.held_out(params)


@pytest.mark.parametrize("task", [*SETS, "finance", "pubmedqa"])
def test_clusters_change_no_question(tiny, plan, task):
    """Tokens, options, targets and lm-eval's hash are those of the task without clusters."""
    tokenizer, params = load.tokenizer(tiny / "a"), plan.params.task(task)
    names = {"mmlu": "fact", "medmcqa": "fact", "finance": "fact", "pubmedqa": "question"}
    named = questions.build({**params, "cluster": names[task]}, tokenizer)
    plain = questions.build({**params, "cluster": None}, tokenizer)
    assert any(question.cluster for question in named)
    for with_name, without in zip(named, plain, strict=True):
        assert with_name.model_copy(update={"cluster": None}) == without
    with pytest.raises(
        ValueError, match=rf"tasks.{task}.cluster: .* has no column 'fict'; it has "
    ):
        questions.build({**params, "cluster": "fict"}, tokenizer)


def test_a_cluster_is_a_text_or_a_number():
    rows = Dataset.from_dict({"n": [3, 3, None], "t": ["x", "", " "], "l": [[1], [2], [3]]})
    named = {
        path: tasks.schema.clustered(rows, path, "tasks.x.cluster", "me/mine")["mofe_cluster"][:]
        for path in ("n", "t")
    }
    assert named == {"n": ["3", "3", None], "t": ["x", None, None]}
    with pytest.raises(ValueError, match=r"tasks.x.cluster: row 0 of me/mine has in 'l' neither"):
        tasks.schema.clustered(rows, "l", "tasks.x.cluster", "me/mine")


# ----------------------------------------------------------------------------------- raw text

NEWS = {"held_out": "multi_news", "questions": 20}


def news(root: Path, **changes) -> Plan:
    """A study that reads news of which training leaves a half."""
    shown = {"tables": {**table("news"), **changes.pop("tables", {})}}
    held = {"tasks": {"news": {**NEWS, **changes.pop("task", {})}}}
    return plan_of(root, data={"multi_news": {"rows": 40}}, **held, **shown, **changes)


def test_raw_text_is_read_that_training_does_not_draw(tiny, tmp_path):
    """In pieces as training has them, with the document that each is from."""
    plan, tokenizer = news(tiny, training={"max_length": 32}), load.tokenizer(tiny / "a")
    params = plan.params.task("news")
    asked = questions.build(params, tokenizer)
    trained = [text for _, text in prepared(plan, "multi_news", tmp_path)]
    rows = tokenize([("", text) for text in trained], tokenizer, 32)
    seen = {tuple(ids) for ids in rows.ids}
    found = [ids for question in asked for ids in question.ids]
    assert len(asked) == 20 and len(found) > 20 and max(map(len, found)) == 32
    assert not seen & {tuple(ids) for ids in found if len(ids) == 32}
    assert all(question.is_text and not question.in_words for question in asked)
    everything = texts.load(params["held_out"]["data"])
    for question in asked:
        text = everything.distinct[question.question]
        assert text not in trained
        assert [i for ids in question.ids for i in ids] == tokenizer(text)["input_ids"]
        assert text in [t for d, t in everything.pieces if question.cluster == f"document {d}"]
    assert [q.ids for q in asked] == [q.ids for q in questions.build(params, tokenizer)]
    params["held_out"]["questions"] = left = len(everything.distinct) - 40
    assert len(questions.build(params, tokenizer)) == left
    params["held_out"]["questions"] = left + 1
    with pytest.raises(ValueError, match=rf"tasks.news.questions: .* leaves {left}; lower"):
        questions.build(params, tokenizer)


def test_the_perplexity_of_raw_text_is_plain_transformers(tiny, tmp_path):
    params = news(tiny, training={"max_length": 32}).params.task("news")
    questions.make(params=params, tokenizer=str(tiny / "a"), out=tmp_path / "asked.parquet")
    evaluate.evaluate_variant(
        merge=str(tiny / "moe2a2b"),
        trained=[],
        chain=[],
        asked=str(tmp_path / "asked.parquet"),
        params=params,
        names={"moe": "moe2a2b", "stages": "none", "seed": 0},
        record=tmp_path / "news.json",
        questions=tmp_path / "news.questions.jsonl.gz",
    )
    record = records.read(tmp_path / "news.json", records.EvalRecord)
    model = load.checkpoint(tiny / "moe2a2b")
    model.set_experts_implementation("eager")
    nats, count = 0.0, 0
    for question in questions.read(tmp_path / "asked.parquet"):
        for ids in map(torch.tensor, question.ids):
            with torch.no_grad():
                loss = model(input_ids=ids[None], labels=ids[None]).loss  # the mean
            nats, count = nats + loss.item() * (len(ids) - 1), count + len(ids) - 1
    assert (record.headline, record.floor, record.n) == ("perplexity", None, 20)
    assert record.metrics["perplexity"].value == pytest.approx(math.exp(nats / count), rel=1e-4)
    assert list(record.metrics) == ["perplexity"] and record.held_out == "multi_news"
    answers = records.read_lines(tmp_path / "news.questions.jsonl.gz", records.TextAnswer)
    assert sum(answer.tokens for answer in answers) == count
    assert record.clusters == len({answer.cluster for answer in answers}) > 2


def test_texts_that_begin_alike_are_read_one_by_one(tiny, monkeypatch):
    """Not as the options of one question: each sequence has at most the tokens of one text."""
    scorer = evaluate.AnswerScorer(load.checkpoint(tiny / "moe2a2b"))
    asked = [([1, *range(5 + n, 25 + n)], 1) for n in range(8)]
    together = scorer.loglikelihoods(asked)
    lengths = []
    scored = scorer._tree_scores
    monkeypatch.setattr(
        scorer, "_tree_scores", lambda trees: lengths.extend(map(len, trees)) or scored(trees)
    )
    assert scorer.loglikelihoods(asked, together=False) == pytest.approx(together, abs=1e-4)
    assert len(lengths) == 8 and max(lengths) <= 21


def test_raw_text_is_planned_and_shown_as_a_perplexity(tmp_path):
    plan = news(tmp_path)
    (row,) = plan.tables["H"].rows
    assert [(cell.kind, cell.task) for cell in row.cells] == [("perplexity", "news")]
    costs = Costs(plan)
    (variant,) = (v for v in plan.variants.values() if "news" in plan.tasks.get(v.key, ()))
    estimate = costs.evaluate(variant, "news")
    assert estimate.memory["logits"] > 0 and estimate.tokens == 20 * 42.9
    longer = news(tmp_path, training={"max_length": 64}).params
    assert longer.task("news")["max_length"] == 64
    assert longer.task("mmlu") == plan.params.task("mmlu"), "no other task knows of it"


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"task": {"cluster": "x"}}, "tasks.news.cluster: data.multi_news is raw text"),
        (
            {"tables": table("news.acc")},
            "column 'X' shows news.acc, but evaluations of tasks.news measure perplexity; show",
        ),
        (
            {"searches": {"rate": {"tasks": ["news"]}}},
            "searches.rate.tasks: 'news' reads raw text, which has no score",
        ),
        (
            {
                "claims": {
                    "mine": {
                        "says": "x",
                        "place": "here",
                        "section": "own",
                        "table": "H",
                        "kind": "all",
                        "parts": {"X": [["x", "y"]]},
                    }
                }
            },
            "kind 'all' compares a score, and column 'X' shows news",
        ),
    ],
)
def test_what_needs_a_score_refuses_raw_text(tmp_path, changes, told):
    with pytest.raises(ConfigError) as raised:
        news(tmp_path, **changes)
    assert any(told in problem for problem in raised.value.problems), raised.value.problems


# ------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"tasks": {"mmlu_held": {"source": "mmlu"}}}, "leave out source"),
        ({"tasks": {"mmlu_held": {"questions": None}}}, "'held_out' needs 'questions'"),
        ({"tasks": {"mmlu": {"source": None}}}, "needs 'harness' and 'source', or 'held_out'"),
        ({"tasks": {"mmlu_held": {"held_out": "mmul"}}}, "did you mean 'mmlu'?"),
        ({"data": {"mmlu": {"task": "mmlu_held"}}}, "'mmlu_held' asks rows of data.mmlu"),
        (
            {"tasks": {"mmlu_held": {"held_out": "multi_news"}}},
            "data.multi_news is raw text, whose texts of one document are alike",
        ),
        (
            {"data": {"mmlu": {"rows": "full"}}},
            "data.mmlu has 'rows: full', so training leaves none to ask",
        ),
        (
            {"tasks": {"mmlu_held": {"questions": 137}}},
            "137 are to be asked, but training on 64 of at most 200 rows leaves 136",
        ),
        (
            {
                "data": {
                    "more": {
                        "source": "mmlu",
                        "split": "auxiliary_train",
                        "task": "mmlu",
                        "rows": 9,
                    }
                },
                "mixes": {"medmcqa_sujet": {"data": ["medmcqa", "more"]}},
            },
            "data.mmlu and data.more draw from one split",
        ),
    ],
)
def test_faults_in_the_configuration(tmp_path, changes, told):
    with pytest.raises(ConfigError) as raised:
        plan_of(tmp_path, tables=table("mmlu_held"), **changes)
    assert any(told in problem for problem in raised.value.problems), raised.value.problems


def test_what_no_table_shows_is_no_fault(tmp_path):
    full = {"data": {"mmlu": {"rows": "full"}}}
    with pytest.raises(ConfigError, match="tables that search for a learning rate"):
        plan_of(tmp_path, **full)
    assert plan_of(tmp_path, **full, tables={"C3": None}).study.data["mmlu"].rows == "full"
    fewer = {"source": "mmlu", "subset": "all", "split": "auxiliary_train", "task": "mmlu"}
    plan_of(tmp_path, data={"fewer": {**fewer, "rows": 9}}, tables=table("mmlu_held"))


def test_too_few_rows_are_told_before_a_run_once_they_are_counted(tiny, tmp_path):
    held = {"mmlu_held": {"questions": 137}}
    plan = Plan(read_study(CONFIG, results=str(tmp_path), tables=table("mmlu_held"), tasks=held))
    asks = [Waiting("questions", {"model": "tinyllama", "task": "mmlu_held"})]
    assert checks.too_few_held_out(Costs(plan), asks) == []
    counts = Path(plan.paths.data_counts("mmlu"))
    counts.parent.mkdir(parents=True)
    prepare.prepare(plan_of(tiny).params.data("mmlu"), tmp_path / "rows.parquet", counts)
    (told,) = checks.too_few_held_out(Costs(plan), asks)
    assert told == (
        "tasks.mmlu_held.questions: 137 are to be asked, but training on 64 of the 200 usable rows of "
        "data.mmlu leaves 136; lower one of them"
    )
    again = [*asks, Waiting("prepare_data", {"dataset": "mmlu"})]
    assert checks.too_few_held_out(Costs(plan), again) == [], "the counts may change"


def test_a_table_may_show_them(tmp_path):
    plan = plan_of(tmp_path, tables=table("mmlu_held"))
    assert "mmlu_held" in {task for shown in plan.tasks.values() for task in shown}
    assert Costs(plan).questions("mmlu_held").disk > 0
    hub = Plan(read_study(CONFIG, tables=table("mmlu_held")))
    assert [r.repo for r in hub.task_repositories("mmlu_held")] == ["cais/mmlu"] * 2
