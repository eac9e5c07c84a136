"""Tasks on real rows: the prompts are lm-eval's, the splits are the papers'."""

import pytest
import yaml
from conftest import CONFIG
from datasets import Dataset, load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from mofe import tasks
from mofe.data import sources, texts
from mofe.stages import prepare
from mofe.study.load import read_study
from mofe.study.plan import Plan
from mofe.tasks import answers, finance, pubmedqa


@pytest.fixture(scope="module")
def plan(shared) -> Plan:
    return Plan(read_study(CONFIG, mirror=str(shared / "data")))


def test_pubmedqa_is_the_official_test_set(shared, plan):
    (task,) = tasks.build(plan.params.task("pubmedqa")).values()
    official = set(map(int, (shared / "data" / "pubmedqa_test_ids.txt").read_text().split()))
    assert {doc["pubid"] for doc in task.eval_docs} == official
    assert len(task.eval_docs) == 500


STOCK = {
    "medmcqa": ("medmcqa/medmcqa.yaml", "openlifescienceai/medmcqa"),
    "mmlu": ("mmlu/default/{leaf}.yaml", "cais/mmlu"),
}


def stock(tmp_path, leaves, file: str, path: str, **changes) -> dict[str, ConfigurableTask]:
    """lm-eval's own tasks, by its own manager and loader, on a local copy of their data set."""
    for leaf in leaves:
        config = {"task": f"stock_{leaf}", "dataset_path": path, **changes}
        include = f"include: {tasks.STOCK / file.format(leaf=leaf)}\n"
        (tmp_path / f"{leaf}.yaml").write_text(include + yaml.safe_dump(config))
    manager = TaskManager(include_path=str(tmp_path), include_defaults=False)
    loaded = manager.load([f"stock_{leaf}" for leaf in leaves])["tasks"]
    return {name.removeprefix("stock_"): task for name, task in loaded.items()}


def assert_equal_prompts(ours: ConfigurableTask, theirs: ConfigurableTask, shots: int) -> None:
    """Every question's whole prompt, what can be answered, and the target, character for
    character."""
    theirs.set_fewshot_seed(1234)  # as lm-eval's simple_evaluate does; ours comes seeded
    assert len(ours.eval_docs) == len(theirs.eval_docs) > 10
    for a, b in zip(ours.eval_docs, theirs.eval_docs, strict=True):
        assert ours.fewshot_context(a, shots) == theirs.fewshot_context(b, shots)
        assert ours.doc_to_choice(a) == theirs.doc_to_choice(b)
        assert ours.doc_to_target(a) == theirs.doc_to_target(b)
    assert ours.config.target_delimiter == theirs.config.target_delimiter


@pytest.mark.parametrize("shots", [0, 5])
@pytest.mark.parametrize("task", STOCK)
def test_prompts_are_lm_evals_character_for_character(shared, plan, tmp_path, task, shots):
    file, repo = STOCK[task]
    ours = tasks.build({**plan.params.task(task), "shots": shots})
    theirs = stock(tmp_path, ours, file, str(shared / "data" / repo))
    assert ours.keys() == theirs.keys() and len(ours) == (57 if task == "mmlu" else 1)
    for leaf in ours:
        assert_equal_prompts(ours[leaf], theirs[leaf], shots)


@pytest.mark.parametrize("shots", [0, 5])
def test_pubmedqas_prompts_are_lm_evals(shared, plan, tmp_path, shots):
    """lm-eval's task reads a script's columns: the same rows under the names that it gives them."""
    (ours,) = tasks.build({**plan.params.task("pubmedqa"), "shots": shots}).values()
    rows = load_dataset(str(shared / "data/qiaojin/PubMedQA/pqa_labeled"), split="train")
    for split, which in (("test", "test"), ("train", "train"), ("validation", "train")):
        named = [
            {
                "QUESTION": row["question"],
                "CONTEXTS": row["context"]["contexts"],
                "final_decision": row["final_decision"],
            }
            for row in pubmedqa.part(rows, which, 0)
        ]
        Dataset.from_list(named).to_parquet(tmp_path / "rows" / f"{split}.parquet")
    file = "pubmedqa/pubmedqa.yaml"
    theirs = stock(tmp_path, ["pubmedqa"], file, str(tmp_path / "rows"), dataset_name=None)
    assert len(ours.eval_docs) == 500
    assert_equal_prompts(ours, theirs["pubmedqa"], shots)


def test_open_finance_questions_are_asked_as_they_are_trained_on(shared, plan):
    """In training an open row is the evaluation's prompt, then its answer on a line of its own."""
    (task,) = tasks.build({**plan.params.task("finance_open"), "shots": 2}).values()
    source = plan.params.data("sujet")["source"]
    rows = sources.load(source, None, "train", str(shared / "data"))
    trained = dict(tasks.training_rows(plan.params.data("sujet")["task"], rows))
    kinds = set(task.eval_docs["task_type"])
    assert kinds == {"qa", "qa_with_context"} and len(task.eval_docs) > 50
    asked = {task.doc_to_text(doc) for doc in task.eval_docs}
    assert asked == {f"{doc['inputs'].strip()}\nAnswer:" for doc in task.eval_docs}
    assert not asked & trained.keys()
    examples = task.fewshot_docs()
    assert len(examples) > 400
    for doc in examples:
        answer = trained[task.doc_to_text(doc)]
        assert answer == f" {' '.join(doc['answer'].split())}\n" == f" {doc['reference']}\n"


def test_a_test_part_without_open_rows_is_one_sentence(plan, tmp_path):
    folder = tmp_path / "sujet-ai" / "Sujet-Finance-Instruct-177k"
    folder.mkdir(parents=True)
    row = {"answer": "up", "dataset": "x", "task_type": "sentiment_analysis"}
    rows = Dataset.from_list([{"inputs": f"text {n}", **row} for n in range(30)])
    rows.to_csv(folder / "rows.csv")
    params = {**plan.params.task("finance_open"), "mirror": str(tmp_path)}
    with pytest.raises(
        ValueError, match=r"^tasks.finance_open: .*Sujet.* has no row .*beside: null"
    ):
        tasks.build(params)
    (closed,) = tasks.build({**params, "harness": ["mofe_finance"]}).values()
    assert len(closed.eval_docs) == 3


def test_a_task_of_choices_and_answers_in_words_is_one_sentence(plan):
    params = plan.params.task("finance")
    with pytest.raises(ValueError, match=r"^tasks.finance.harness: mixes questions"):
        tasks.build({**params, "harness": ["mofe_finance", "mofe_finance_open"]})


@pytest.mark.parametrize(
    "reference, answer, f1, exact",
    [
        ("The operating profit", " operating profit.", 1, 1),
        ("$126 million", "126 Million", 1, 1),
        ("decreased $54.7 million", "It decreased by $54.7 million", 0.75, 0),
        ("to be or not to be", "to be", 2 * 2 / (6 + 2), 0),
        ("yes", "no", 0, 0),
        ("yes", "", 0, 0),
        ("the", "", 1, 1),
        ("a b b c", "b b b", 2 * 2 / (3 + 3), 0),
    ],
)
def test_squads_scores_by_hand(reference, answer, f1, exact):
    assert answers.f1(reference, answer) == pytest.approx(f1)
    assert answers.exact(reference, answer) == exact


written = st.text(alphabet="ab .,\n", max_size=12)


@given(written, written)
def test_squads_scores_are_symmetric_and_agree(one, other):
    assert answers.f1(one, other) == answers.f1(other, one)
    assert 0 <= answers.exact(one, other) <= answers.f1(one, other) <= 1
    assert answers.f1(one, f" {one}!\n") == answers.exact(one, one.upper()) == 1


@pytest.mark.parametrize("name", ["medmcqa", "mmlu", "sujet"])
def test_training_prompts_are_the_evaluations_then_the_answer(plan, name):
    params = plan.params.data(name)
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
    for task in tasks.build({**plan.params.task(name), "shots": 2}).values():
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
    cut = {"separator": "|||||", "chunk_words": 3}
    pieces = list(texts._texts(["a b c d e ||||| f", " ||||| ", "g"], cut))
    assert pieces == [(0, "a b c"), (0, "d e"), (0, "f"), (2, "g")]
    whole = {"separator": None, "chunk_words": None}
    assert list(texts._texts([" a  b "], whole)) == [(0, "a  b")]


def test_unlabelled_rows_are_not_trained_on(shared, plan):
    rows = load_dataset(str(shared / "data/openlifescienceai/medmcqa"), split="test")
    assert rows["cop"] == [-1]
    assert list(tasks.training_rows(plan.params.task("medmcqa"), rows)) == []


def test_prepared_rows_are_reproducible_distinct_and_not_in_the_test_set(plan, tmp_path):
    params = plan.params.data("medmcqa")
    params["data"]["rows"] = 200
    for name in ("one", "two"):
        prepare.prepare(params, tmp_path / f"{name}.parquet", tmp_path / f"{name}.json")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    from mofe.training.tokens import read

    prompts = [prompt for prompt, _ in read([tmp_path / "one.parquet"])]
    (task,) = tasks.build(params["task"]).values()
    assert len(set(prompts)) == 200
    assert not set(prompts) & {task.doc_to_text(doc) for doc in task.eval_docs}


def test_more_rows_than_there_are_is_one_sentence(plan, tmp_path):
    params = plan.params.data("medmcqa")
    with pytest.raises(ValueError, match=r"has \d+ usable rows, but 18000 are asked for; lower"):
        prepare.prepare(params, tmp_path / "rows.parquet", tmp_path / "rows.json")
    assert not list(tmp_path.iterdir())


def test_a_mirror_without_the_data_set_is_one_sentence(tmp_path):
    with pytest.raises(FileNotFoundError, match="has no folder 'cais/mmlu'"):
        sources.load({"repo": "cais/mmlu", "revision": "x"}, None, "test", str(tmp_path))


def test_an_unknown_task_is_one_sentence(plan):
    with pytest.raises(ValueError, match="'medmqa'"):
        tasks.build({**plan.params.task("medmcqa"), "harness": ["medmqa"]})


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
        end = "\n" if row["task_type"] == "qa" else ""
        assert row["options"][row["gold"]] == row["answer"] + end
    assert finance.part(data, "test", seed)["inputs"] == parts["test"]["inputs"]
    opened = {which: finance.open_part(data, which, seed) for which in ("train", "test")}
    asked = [text for rows in (*opened.values(), parts["test"]) for text in rows["inputs"]]
    assert len(asked) == len(set(asked)), "no row is in two of these"
    assert all(kind == "qa" for rows in opened.values() for kind in rows["task_type"])
    assert opened["train"]["inputs"] == [
        row["inputs"] for row in parts["train"] if row["task_type"] == "qa"
    ]


def test_the_pubmedqa_split_halves_every_answer():
    decisions = ["yes"] * 11 + ["no"] * 6 + ["maybe"] * 3
    rows = Dataset.from_dict({"final_decision": decisions, "pubid": list(range(20))})
    test, train = (pubmedqa.part(rows, which, 0) for which in ("test", "train"))
    assert sorted([*test["pubid"], *train["pubid"]]) == list(range(20))
    assert [test["final_decision"].count(a) for a in ("yes", "no", "maybe")] == [5, 3, 1]
