"""Tasks on real rows: the prompts are lm-eval's, the splits are the papers'."""

import pytest
from conftest import CONFIG
from datasets import Dataset, load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.tasks import TaskManager

from mofe import tasks
from mofe.config import read_study
from mofe.data import prepare, sources
from mofe.plan import Plan
from mofe.tasks import finance, pubmedqa


@pytest.fixture(scope="module")
def plan(shared) -> Plan:
    return Plan(read_study(CONFIG, mirror=str(shared / "data")))


def test_pubmedqa_is_the_official_test_set(shared, plan):
    (task,) = tasks.build(plan.task_params("pubmedqa")).values()
    official = set(map(int, (shared / "data" / "pubmedqa_test_ids.txt").read_text().split()))
    assert {doc["pubid"] for doc in task.eval_docs} == official
    assert len(task.eval_docs) == 500


def stock(name: str, folder: str, path: str, tmp_path) -> object:
    """lm-eval's own task, by its own manager and loader, on a local copy of its data set."""
    yaml = tmp_path / f"{name}.yaml"
    yaml.write_text(f"include: {tasks.STOCK / folder}\ntask: stock_{name}\ndataset_path: {path}\n")
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    return manager.load([f"stock_{name}"])["tasks"][f"stock_{name}"]


@pytest.mark.parametrize(
    "task, leaf, folder, repo",
    [
        ("medmcqa", "medmcqa", "medmcqa/medmcqa.yaml", "openlifescienceai/medmcqa"),
        ("mmlu", "mmlu_virology", "mmlu/default/mmlu_virology.yaml", "cais/mmlu"),
        ("mmlu", "mmlu_sociology", "mmlu/default/mmlu_sociology.yaml", "cais/mmlu"),
    ],
)
def test_prompts_are_lm_evals_character_for_character(
    shared, plan, tmp_path, task, leaf, folder, repo
):
    ours = tasks.build(plan.task_params(task))[leaf]
    theirs = stock(leaf, folder, str(shared / "data" / repo), tmp_path)
    assert len(ours.eval_docs) == len(theirs.eval_docs) > 10
    for a, b in zip(ours.eval_docs, theirs.eval_docs, strict=True):
        assert ours.fewshot_context(a, 0) == theirs.fewshot_context(b, 0)
        assert ours.doc_to_choice(a) == theirs.doc_to_choice(b)
        assert ours.doc_to_target(a) == theirs.doc_to_target(b)


def test_mmlu_is_all_57_subjects(plan):
    assert len(tasks.build(plan.task_params("mmlu"))) == 57


@pytest.mark.parametrize("name", ["medmcqa", "mmlu", "sujet"])
def test_training_prompts_are_the_evaluations_then_the_answer(plan, name):
    params = plan.data_params(name)
    data, task_params = params["data"], params["task"]
    rows = sources.load(params["source"], data["subset"], data["split"], params["mirror"])
    pairs = list(tasks.training_rows(task_params, rows))
    task = next(iter(tasks.build(task_params).values()))
    if name == "sujet":
        rows = finance.part(rows, "train", 0)
    asked = {task.doc_to_text(row): row for row in rows}
    assert len(pairs) > 1000
    for prompt, answer in pairs:
        row = asked[prompt]
        options, target = task.doc_to_choice(row), task.doc_to_target(row)
        assert answer == " " + options[target]
    if name != "sujet":
        assert {answer for _, answer in pairs} == {" A", " B", " C", " D"}


@pytest.mark.parametrize("name", ["medmcqa", "pubmedqa", "finance", "mmlu"])
def test_examples_never_come_from_the_test_set(plan, name):
    for task in tasks.build({**plan.task_params(name), "shots": 2}).values():
        asked = {task.doc_to_text(doc) for doc in task.eval_docs}
        shown = {task.doc_to_text(doc) for doc in task.fewshot_docs()}
        assert shown and not asked & shown
        doc = task.eval_docs[0]
        context = task.fewshot_context(doc, 2)
        assert context.endswith(task.doc_to_text(doc))
        assert sum(text in context for text in shown) >= 2
        if name == "mmlu":
            break


def test_raw_text_is_cut_into_articles_and_pieces():
    data = {"separator": "|||||", "chunk_words": 3}
    texts = list(prepare._texts(["a b c d e ||||| f", " ||||| "], data))
    assert texts == ["a b c", "d e", "f"]
    assert list(prepare._texts([" a  b "], {"separator": None, "chunk_words": None})) == ["a  b"]


def test_unlabelled_rows_are_not_trained_on(shared, plan):
    rows = load_dataset(str(shared / "data/openlifescienceai/medmcqa"), split="test")
    assert rows["cop"] == [-1]
    assert list(tasks.training_rows(plan.task_params("medmcqa"), rows)) == []


def test_prepared_rows_are_reproducible_distinct_and_not_in_the_test_set(plan, tmp_path):
    params = plan.data_params("medmcqa")
    params["data"]["rows"] = 200
    for name in ("one", "two"):
        prepare.prepare(params, tmp_path / f"{name}.parquet", tmp_path / f"{name}.json")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    from mofe.data.tokens import read

    prompts = [prompt for prompt, _ in read([tmp_path / "one.parquet"])]
    (task,) = tasks.build(params["task"]).values()
    assert len(set(prompts)) == 200
    assert not set(prompts) & {task.doc_to_text(doc) for doc in task.eval_docs}


def test_more_rows_than_there_are_is_one_sentence(plan, tmp_path):
    params = plan.data_params("medmcqa")
    with pytest.raises(ValueError, match=r"has \d+ usable rows, but 18000 are asked for; lower"):
        prepare.prepare(params, tmp_path / "rows.parquet", tmp_path / "rows.json")
    assert not list(tmp_path.iterdir())


def test_a_mirror_without_the_data_set_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no folder 'cais/mmlu'"):
        sources.load({"repo": "cais/mmlu", "revision": "x"}, None, "test", str(tmp_path))


def test_an_unknown_task_is_one_sentence(plan):
    with pytest.raises(ValueError, match="'medmqa'"):
        tasks.build({**plan.task_params("medmcqa"), "harness": ["medmqa"]})


labels = ("negative", "neutral", "positive")
sujet_rows = st.lists(
    st.tuples(st.integers(0, 30), st.sampled_from(["sentiment_analysis", "qa"])),
    min_size=20,
    max_size=80,
)


@settings(max_examples=20)
@given(sujet_rows, st.integers(0, 3))
def test_the_finance_split_parts_distinct_prompts(rows, seed):
    data = Dataset.from_list(
        [
            {"inputs": f"text {n}", "answer": labels[n % 3], "dataset": kind, "task_type": kind}
            for n, kind in rows
        ]
    )
    parts = {which: finance.part(data, which, seed) for which in ("train", "test")}
    train, test = (set(parts[which]["inputs"]) for which in ("train", "test"))
    distinct = {f"text {n}" for n, _ in rows}
    assert not train & test
    assert len(train) == len(parts["train"]) == len(distinct) - round(len(distinct) / 10)
    assert set(parts["test"]["task_type"]) <= {"sentiment_analysis"}
    for row in [*parts["train"], *parts["test"]]:
        assert row["options"][row["gold"]] == row["answer"]
    assert finance.part(data, "test", seed)["inputs"] == parts["test"]["inputs"]


def test_the_pubmedqa_split_halves_every_answer():
    decisions = ["yes"] * 11 + ["no"] * 6 + ["maybe"] * 3
    rows = Dataset.from_dict({"final_decision": decisions, "pubid": list(range(20))})
    test, train = (pubmedqa.part(rows, which, 0) for which in ("test", "train"))
    assert sorted([*test["pubid"], *train["pubid"]]) == list(range(20))
    assert [test["final_decision"].count(a) for a in ("yes", "no", "maybe")] == [5, 3, 1]
