"""Any multiple-choice data set as a benchmark, by the names of its columns."""

from pathlib import Path

import pytest
from conftest import CONFIG
from datasets import Dataset, load_dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from mofe import tasks
from mofe.study.load import read_study
from mofe.study.plan import Plan
from mofe.study.values import ConfigError
from mofe.tasks import mcq

COLUMNS = {"question": "stem", "options": ["a", "b", "c"], "answer": "key"}
ROWS = [
    {"stem": f" Which is number {n}? ", "a": f"a{n}", "b": f"b{n}", "c": f"c{n}", "key": "B"}
    for n in range(40)
]


def study(mirror: Path, task: dict | None = None, split: str = "train", **study) -> Plan:
    task = {"harness": ["mofe_mcq"], "source": "mine", "columns": COLUMNS, **(task or {})}
    changes = {
        "mirror": str(mirror),
        "sources": {"mine": {"repo": "me/mine", "revision": "main"}},
        "data": {"mine": {"source": "mine", "split": split, "task": "mine", "rows": "full"}},
        "tasks": {"mine": {"split": "test"} | task},
    }
    return Plan(read_study(CONFIG, **changes, **study))


def put(mirror: Path, **splits: list[dict]) -> Path:
    folder = mirror / "me" / "mine"
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        Dataset.from_list(rows).to_parquet(folder / f"{split}.parquet")
    return mirror


def trained_on(plan: Plan) -> list[tuple[str, str]]:
    params = plan.params.data("mine")
    rows = tasks.sources.load(params["source"], None, params["data"]["split"], params["mirror"])
    return list(tasks.training_rows(params["task"], rows))


def test_the_prompt_is_mmlus(shared, tmp_path):
    rows = load_dataset(str(shared / "data/cais/mmlu"), "virology", split="test")
    own = rows.rename_columns({"question": "q", "choices": "c", "answer": "a"})
    put(tmp_path, test=own.to_list())
    columns = {"question": "q", "options": "c", "answer": "a"}
    (ours,) = tasks.build(study(tmp_path, {"columns": columns}).params.task("mine")).values()
    plan = Plan(read_study(CONFIG, mirror=str(shared / "data")))
    params = plan.params.task("mmlu") | {"harness": ["mmlu_virology"]}
    (theirs,) = tasks.build(params).values()
    assert len(ours.eval_docs) == len(theirs.eval_docs) > 10
    for a, b in zip(ours.eval_docs, theirs.eval_docs, strict=True):
        assert ours.doc_to_text(a) == theirs.doc_to_text(b)
        assert ours.doc_to_choice(a) == theirs.doc_to_choice(b)
        assert ours.doc_to_target(a) == theirs.doc_to_target(b)


@pytest.mark.parametrize(
    "scoring, prompt, answer",
    [
        ("letter", "Which is number 7?\nA. a7\nB. b7\nC. c7\nAnswer:", " B"),
        ("text", "Which is number 7?\nAnswer:", " b7"),
    ],
)
def test_training_rows_are_the_questions_form_with_the_answer(tmp_path, scoring, prompt, answer):
    plan = study(put(tmp_path, train=ROWS[:20], test=ROWS[20:]), scoring=scoring)
    pairs = trained_on(plan)
    assert len(pairs) == 20 and pairs[7] == (prompt, answer)
    (task,) = tasks.build(plan.params.task("mine")).values()
    assert len(task.eval_docs) == 20


def test_few_shot_examples_come_from_their_split(tmp_path):
    put(tmp_path, train=ROWS[:20], test=ROWS[20:])
    plan = study(tmp_path, {"examples": "train"}, shots=2)
    (task,) = tasks.build(plan.params.task("mine")).values()
    context = task.fewshot_context(task.eval_docs[0], 2)
    assert context.count("Answer: B") == 2 and context.endswith("A. a20\nB. b20\nC. c20\nAnswer:")
    with pytest.raises(ValueError, match="has no rows to take 2 examples from"):
        tasks.build(study(tmp_path, shots=2).params.task("mine"))


@settings(max_examples=15)
@given(st.lists(st.integers(0, 15), min_size=10, max_size=60), st.integers(0, 3))
def test_one_split_is_parted_by_question(numbers, seed):
    """Rows of one question stay together, every question is on one side, always the same."""
    rows = Dataset.from_list([ROWS[n] | {"b": f"option {i}"} for i, n in enumerate(numbers)])
    settings = {"test_share": 0.25, "columns": COLUMNS, "split": "train"}
    params = {"name": "mine", "source": {"repo": "me/mine"}, "mcq": settings, "seed": seed}
    test, train = (mcq.part(params, rows, which) for which in ("test", "train"))
    assert sorted([*test["b"], *train["b"]]) == sorted(rows["b"])
    asked, trained = set(test["stem"]), set(train["stem"])
    assert not asked & trained
    assert len(asked) == max(1, round(len(asked | trained) / 4))
    assert mcq.part(params, rows, "test")["b"] == test["b"]


def test_a_share_of_one_split_is_asked_and_the_rest_trained_on(tmp_path):
    plan = study(put(tmp_path, train=ROWS), {"split": "train", "test_share": 0.2})
    (task,) = tasks.build(plan.params.task("mine")).values()
    asked = {task.doc_to_text(doc) for doc in task.eval_docs}
    trained = {prompt for prompt, _ in trained_on(plan)}
    assert (len(asked), len(trained)) == (8, 32) and not asked & trained


@pytest.mark.parametrize(
    "answer, gold",
    [
        (2, 2),
        (0, 0),
        ("C", 2),
        (" c ", 2),
        ("spleen", 1),
        ("A", 0),
        (None, -1),
        (-1, -1),
        (3, None),
        ("D", None),
        ("2", 2),
        ("-1", -1),
        ("", -1),
        (float("nan"), -1),
        (1.0, 1),
        ("1.0", 1),
        (1.5, None),
        ("01", None),
        ("3", None),
        (-2, None),
        ("lung", None),
        (True, None),
    ],
)
def test_an_answer_is_an_index_a_letter_or_a_text(answer, gold):
    assert mcq._gold(answer, ["liver", "spleen", "kidney"]) == gold


def test_an_answer_that_reads_in_two_ways_is_no_answer():
    assert mcq._gold("B", ["B", "A"]) is None
    assert mcq._gold("A", ["A", "B"]) == 0
    assert mcq._gold("same", ["same", "same"]) is None


def test_options_inside_a_column_and_rows_with_fewer_of_them(tmp_path):
    rows = [
        {"q": "One?", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "key": "B"},
        {"q": "Two?", "choices": {"text": ["x", "y", "z"], "label": ["A", "B", "C"]}, "key": "C"},
    ]
    columns = {"question": "q", "options": "choices.text", "answer": "key"}
    plan = study(put(tmp_path, test=rows), {"columns": columns})
    (task,) = tasks.build(plan.params.task("mine")).values()
    assert [task.doc_to_choice(d) for d in task.eval_docs] == [["A", "B"], ["A", "B", "C"]]
    assert [task.doc_to_target(d) for d in task.eval_docs] == [1, 2]


@pytest.mark.parametrize(
    "change, told",
    [
        ({"key": "E"}, r"columns.answer: row 1 of me/mine \(test\) has the answer 'E'"),
        ({"key": None}, r"columns.answer: row 1 of me/mine \(test\) has no answer"),
        ({"stem": " "}, r"columns.question: row 1 of me/mine \(test\) has no question in 'stem'"),
        ({"b": None, "c": None}, r"columns.options: row 1 .* has the options \['a1'\]"),
    ],
)
def test_a_bad_row_is_named(tmp_path, change, told):
    plan = study(put(tmp_path, test=[ROWS[0], ROWS[1] | change]))
    with pytest.raises(ValueError, match=told):
        tasks.build(plan.params.task("mine"))


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path):
    put(tmp_path, test=ROWS)
    plan = study(tmp_path, {"columns": COLUMNS | {"answer": "gold"}})
    told = r"tasks.mine.columns.answer: me/mine \(test\) has no column 'gold'; it has stem, a, b"
    with pytest.raises(ValueError, match=told):
        tasks.build(plan.params.task("mine"))


@pytest.mark.parametrize(
    "task, split, told",
    [
        ({"columns": None}, "train", "'mofe_mcq' needs 'columns'"),
        ({"harness": ["medmcqa"]}, "train", "'columns' goes with"),
        ({"split": None}, "train", "'columns' needs 'split'"),
        ({"test_share": 0.1, "examples": "dev"}, "train", "leave 'examples' out"),
        ({}, "test", "data.mine.split: 'test' is what tasks.mine asks"),
        ({"test_share": 0.1}, "train", "asks a share of its own split"),
        ({"columns": COLUMNS | {"answr": "x"}}, "train", "did you mean 'answer'?"),
    ],
)
def test_faults_in_the_configuration(tmp_path, task, split, told):
    with pytest.raises(ConfigError) as raised:
        study(tmp_path, task, split, mixes={"medmcqa_sujet": {"data": ["medmcqa", "mine"]}})
    assert any(told in problem for problem in raised.value.problems), raised.value.problems


def test_lm_evals_own_tasks_take_no_columns():
    task = {"harness": ["medmcqa"], "source": "medmcqa", "split": "validation"}
    with pytest.raises(ConfigError, match="split go with 'columns' only"):
        read_study(CONFIG, tasks={"medmcqa": task})
