"""lm-eval's tasks over rows of one's own: documents as their files make them, seeded examples, samples."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import CONFIG, ROOT
from datasets import Dataset
from lm_eval import simple_evaluate
from lm_eval.models.dummy import DummyLM
from lm_eval.tasks import TaskManager

from mofe import tasks
from mofe.models import load
from mofe.records import TaskCounts, TextCounts, read_counts
from mofe.report.views.training_data import cell, contamination
from mofe.stages import prepare, questions
from mofe.study.load import load_study, overlay, read_study
from mofe.study.plan import Plan
from mofe.study.tables import table
from mofe.study.values import ConfigError
from mofe.tasks import training
from mofe.training.tokens import read


def put(mirror: Path, **splits: list[dict]) -> Path:
    folder = mirror / "me" / "rows"
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        Dataset.from_list(rows).to_parquet(folder / f"{split}.parquet")
    return mirror


def study(mirror: Path, harness: list[str], task: dict | None = None, **changes) -> Plan:
    """A study of one task of lm-eval's, which a table shows, and of its training rows."""
    shown = {"caption": "x", "labels": ["x"], "columns": {"X": "mine"}}
    given = {
        "study": "mine",
        "mirror": str(mirror),
        "sources": {"rows": {"repo": "me/rows", "revision": "main"}},
        "data": {"mine": {"source": "rows", "split": "train", "task": "mine", "rows": "full"}},
        "tasks": {"mine": {"harness": harness, "source": "rows", **(task or {})}},
        "tables": {"M": {**shown, "rows": {"x": {"mixture": "small"}}}},
    }
    for key, value in changes.items():
        given[key] = {**given.get(key, {}), **value} if isinstance(value, dict) else value
    return Plan(read_study(CONFIG, **given))


def prepared(
    plan: Plan, folder: Path, name: str = "mine"
) -> tuple[list[tuple[str, str]], TaskCounts]:
    rows, counts = folder / f"{name}.parquet", folder / f"{name}.json"
    prepare.prepare(plan.params.data(name), rows, counts)
    return read([rows]), read_counts(counts)


def hellaswag(numbers, place: str = "[header] How to sail {}. ") -> list[dict]:
    return [
        {
            "activity_label": "Sailing",
            "ctx_a": place.format(n),
            "ctx_b": "the crew",
            "endings": [f"rests [step] {n}.", f"rows  {n}.", f"swims {n}.", f"sings {n}."],
            "label": str(n % 4),
        }
        for n in numbers
    ]


def glianorex(numbers, language: str) -> list[dict]:
    return [
        {
            "question": f"Which gland is number {n} ({language})?",
            "options": {"A": "one", "B": "two", "C": "three", "D": f"{n}"},
            "answer_idx": "ABCD"[n % 4],
            "language": language,
        }
        for n in numbers
    ]


def test_columns_that_only_process_docs_makes(tmp_path):
    """hellaswag's prompt and options are written by its file, which also rewrites them."""
    test = hellaswag(range(6))
    train = [*hellaswag(range(4, 12)), hellaswag([20], "[header] how to  SAIL {} ")[0]]
    train += hellaswag([5], "[header] How to Sail {}! ")
    plan = study(put(tmp_path, train=train, validation=test), ["hellaswag"])
    pairs, counts = prepared(plan, tmp_path)
    assert counts.also_in_test == 2, "rows 4 and 5 are asked, whatever other columns they have"
    assert counts.nearly_in_test == 1 and counts.usable == len(pairs) == 8
    assert counts.left_by_task == counts.made_by_task == 0
    (task,) = tasks.build(plan.params.task("mine")).values()
    asked = {task.doc_to_text(doc) for doc in task.eval_docs}
    assert not asked & {prompt for prompt, _ in pairs}
    answers = dict(pairs)
    assert answers["Sailing: How to sail 9. The crew"] == " rows 9."
    assert answers["Sailing: How to sail 8. The crew"] == " rests 8."


def test_rows_that_the_task_leaves_out_are_not_trained_on(tmp_path):
    train = glianorex(range(10), "en") + glianorex(range(6), "fr")
    test = glianorex(range(3), "en") + glianorex(range(3), "fr")
    mirror = put(tmp_path, train=train, test=test)
    pairs, counts = prepared(study(mirror, ["glianorex_en"]), tmp_path)
    assert all("(en)" in prompt for prompt, _ in pairs)
    assert (counts.left_by_task, counts.also_in_test, counts.usable) == (6, 3, 7)
    # the tasks of a group that part the rows have them all, each by its own task
    pairs, counts = prepared(study(mirror, ["glianorex_en", "glianorex_fr"]), tmp_path)
    assert (counts.left_by_task, counts.also_in_test, counts.usable) == (0, 6, 10)
    assert sum("(fr)" in prompt for prompt, _ in pairs) == 3


def test_held_out_rows_are_the_tasks_documents(tmp_path, tiny):
    train = [row for n in range(12) for row in (*glianorex([n], "fr"), *glianorex([n], "en"))]
    mirror = put(tmp_path, train=train, test=glianorex([50], "en") + glianorex([50], "fr"))
    data = {"mine": {"source": "rows", "split": "train", "task": "mine", "rows": 4}}
    for names in (["glianorex_en"], ["glianorex_en", "glianorex_fr"]):
        given = {"harness": names, "source": "rows"}
        both = {"mine": given, "held": {"held_out": "mine", "questions": 8}}
        plan = study(mirror, names, data=data, tasks=both)
        trained = {prompt for prompt, _ in prepared(plan, tmp_path)[0]}
        built = training.held_out(plan.params.task("held"))
        assert list(built) == (["held"] if len(names) == 1 else names)
        asked = {t.doc_to_text(doc) for t in built.values() for doc in t.eval_docs}
        assert len(asked) == 8 and not asked & trained
        assert len(names) == 2 or all("(en)" in prompt for prompt in asked)
        found = questions.build(plan.params.task("held"), load.tokenizer(tiny / "a"))
        assert len(found) == 8


def test_a_source_without_a_row_that_the_task_asks_is_one_sentence(tmp_path):
    mirror = put(tmp_path, train=glianorex(range(4), "fr"), test=glianorex(range(4), "fr"))
    plan = study(mirror, ["glianorex_en"])
    with pytest.raises(
        ValueError, match=r"^tasks.mine: glianorex_en asks none of the 4 rows of me"
    ):
        tasks.build(plan.params.task("mine"))
    (mirror / "me/rows/test.parquet").unlink()
    Dataset.from_list(glianorex([1], "en")).to_parquet(mirror / "me/rows/test.parquet")
    with pytest.raises(ValueError, match=r"^data: none of the 4 rows of me/rows \(train\) can be"):
        prepared(plan, tmp_path)


@pytest.mark.parametrize("lacking", ["label", "ctx_b"])
def test_rows_that_a_tasks_process_docs_cannot_read_are_one_sentence(tmp_path, lacking):
    """An empty label or text, in training rows and in those that are asked."""
    hole = [{**hellaswag([3])[0], lacking: "" if lacking == "label" else None}]
    whole = hellaswag(range(10, 14))
    said = r"^tasks.mine: hellaswag cannot read the rows of me/rows \(\w+Error: .*leave out those"
    there = put(tmp_path / "asked", train=whole, validation=whole + hole)
    with pytest.raises(ValueError, match=said):
        tasks.build(study(there, ["hellaswag"]).params.task("mine"))
    there = put(tmp_path / "trained", train=whole + hole, validation=whole)
    with pytest.raises(ValueError, match=said):
        prepared(study(there, ["hellaswag"]), tmp_path)


def gpqa(numbers) -> list[dict]:
    wrong = {f"Incorrect Answer {i}": f"wrong {i}" for i in (1, 2, 3)}
    return [{"Question": f"What is {n}?", "Correct Answer": f"right {n}", **wrong} for n in numbers]


class Guessing(DummyLM):
    """A language model that needs no tokenizer from the hub."""

    tokenizer = None

    def chat_template(self, chat_template=False) -> str:
        return ""


def theirs(folder: Path, name: str, repo: Path, shots: int | None) -> list[str]:
    """The prompts of lm-eval's own evaluation of a task, on a local copy of its data set."""
    (config,) = tasks.harness.leaves("x", name)
    own = {"task": f"stock_{name}", "dataset_path": str(repo)}
    text = f"include: {config.path}\n{yaml.safe_dump(own)}"
    (folder / f"{name}.yaml").write_text(text)
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    options = {"task_manager": manager, "num_fewshot": shots, "bootstrap_iters": 0}
    result = simple_evaluate(Guessing(), tasks=[f"stock_{name}"], **options)
    samples = sorted(result["samples"][f"stock_{name}"], key=lambda sample: sample["doc_id"])
    return [sample["arguments"][0][0] for sample in samples]


PROMPTS = """
import json, sys
from mofe import tasks
with tasks.lm_evals_seeds():
    (task,) = tasks.build(json.loads(sys.argv[1])).values()
    task.build_all_requests()
print(json.dumps([i.args[0] for i in task.instances if i.idx == 0]))
"""


def in_a_fresh_process(params: dict) -> list[str]:
    command = [sys.executable, "-c", PROMPTS, json.dumps(params)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("name, shots", [("hellaswag", 3), ("gpqa_main_zeroshot", 0)])
def test_prompts_are_those_of_lm_evals_own_evaluation(tmp_path, name, shots):
    """Examples are drawn, and options shuffled, by lm-eval's seeds."""
    rows = {"train": hellaswag(range(30)), "validation": hellaswag(range(40, 70))}
    if name != "hellaswag":
        rows = {"train": gpqa(range(30))}
    mirror = put(tmp_path, **rows)
    if name != "hellaswag":
        card = {"configs": [{"config_name": "gpqa_main", "data_files": "train.parquet"}]}
        (mirror / "me/rows/README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n")
    params = study(
        mirror, [name], data={"mine": {"text": "x", "source": "rows", "split": "no", "rows": 1}}
    ).params.task("mine")
    params["shots"] = shots
    ours = in_a_fresh_process(params)
    assert len(set(ours)) == 30
    assert ours == theirs(tmp_path, name, mirror / "me/rows", shots or None)
    if shots:
        assert ours[0].count("Sailing") == 4
        assert in_a_fresh_process(params | {"shots_seed": 5}) != ours


# ------------------------------------------------------------------------------------- samples


def test_a_sample_is_drawn_by_the_seed_and_grows(tmp_path, tiny):
    mirror = put(tmp_path, train=hellaswag(range(50, 60)), validation=hellaswag(range(40)))
    tokenizer = load.tokenizer(tiny / "a")

    def asked(sample: int | None, seed: int = 0) -> dict[int, str]:
        plan = study(mirror, ["hellaswag"], {"sample": sample}, sampling_seed=seed)
        found = questions.build(plan.params.task("mine"), tokenizer)
        return {question.question: question.prompt_sha256 for question in found}

    whole, few, more = asked(None), asked(10), asked(15)
    assert (len(whole), len(few), len(more)) == (40, 10, 15)
    assert few.items() < more.items() < whole.items(), "the same questions under the same numbers"
    assert asked(10) == few != asked(10, seed=1)
    with pytest.raises(ValueError, match=r"tasks.mine.sample: 41 questions .* has 40; lower it"):
        asked(41)
    plan = study(mirror, ["hellaswag"], {"sample": 10})
    assert plan.params.data("mine") == study(mirror, ["hellaswag"]).params.data("mine")
    file = tmp_path / "asked.parquet"
    line = questions.make(params=plan.params.task("mine"), tokenizer=str(tiny / "a"), out=file)
    found = questions.read(file)
    assert line == "10 questions of 40" and len(found) == 10 and questions.has_norm(file)
    # as docs/results.md says how to repeat it
    numbers = sorted(np.random.default_rng([0, *b"sample"]).permutation(40)[:10].tolist())
    lines = "".join(f"hellaswag {number}\n" for number in numbers)
    digest = hashlib.sha256(lines.encode()).hexdigest()
    assert questions.sample(file, found) == questions.Sample(of=40, seed=0, sha256=digest)
    questions.make(
        params=study(mirror, ["hellaswag"]).params.task("mine"), tokenizer=str(tiny / "a"), out=file
    )
    assert questions.sample(file, questions.read(file)) is None


def test_captions_say_what_is_a_sample(tmp_path):
    plans = [study(tmp_path, ["hellaswag"], {"sample": sample}) for sample in (None, 1200)]
    captions = [table(plan, "M", plan.study.tables["M"]).caption for plan in plans]
    assert captions == ["x", "x X: a sample of 1,200 questions."]


def test_a_sample_is_part_of_the_estimates(tmp_path):
    whole = study(tmp_path, ["hellaswag"], {"questions": 5000}).study.tasks["mine"]
    part = study(tmp_path, ["hellaswag"], {"questions": 5000, "sample": 70}).study.tasks["mine"]
    assert (whole.count, part.count) == (5000, 70)


def test_the_papers_study_asks_all_questions():
    told = "tasks.mmlu.sample (--config): the study 'paper' asks all questions for the "
    told += "paper's columns, not 100 of them"
    command = {"tasks": {"mmlu": {"sample": 100}}}
    content = overlay(yaml.safe_load(CONFIG.read_text()), command)
    with pytest.raises(ConfigError) as raised:
        load_study(content, [CONFIG], command)
    assert raised.value.problems == [f"{told}; give the study another name"], "and it is told once"


def test_tasks_that_divide_their_set_are_known_without_lm_eval():
    assert tasks.PARTS.keys() == set(tasks.harness.DIVIDED)


# ---------------------------------------------------------------------- what a configuration has


@pytest.mark.parametrize(
    "harness, told",
    [
        (
            ["helaswag"],
            "tasks.mine.harness: neither lm-eval nor mofe/tasks has a task named 'helasw",
        ),
        (["hellaswag", "mmlu_anatmy"], "did you mean 'mmlu_anatomy'?"),
        (["gsm8k"], "gsm8k is scored by exact_match in a way of its own"),
        (["winogrande_no"], "named 'winogrande_no'"),
        (["squadv2"], "'squadv2' is a program of its own"),
        (["openllm"], "group 'openllm' changes its tasks"),
        (["hellaswag", "mofe_finance_open"], "mixes questions that are answered by choice and in"),
    ],
)
def test_tasks_that_cannot_be_asked_are_faults_of_the_configuration(tmp_path, harness, told):
    with pytest.raises(ConfigError) as raised:
        study(tmp_path, harness)
    assert any(told in problem for problem in raised.value.problems), raised.value.problems
    assert all(problem.startswith("tasks.mine.harness: ") for problem in raised.value.problems)


@pytest.mark.parametrize(
    "harness, split", [("hellaswag", "validation"), ("glianorex_en", "test"), ("arc_easy", "test")]
)
def test_training_on_a_tasks_own_test_split_is_refused(tmp_path, harness, split):
    row = {"mixture": "small", "train": {"mine": "mofe"}}
    shown = {"caption": "x", "labels": ["x"], "columns": {"X": "mine"}, "rows": {"x": row}}
    trained = {"tables": {"M": shown}}
    data = {"mine": {"source": "rows", "split": split, "task": "mine", "rows": "full"}}
    with pytest.raises(ConfigError, match=rf"data.mine.split: '{split}' is what tasks.mine asks"):
        study(tmp_path, [harness], data=data, **trained)
    text = {"mine": {"source": "rows", "split": split, "text": "question", "rows": "full"}}
    with pytest.raises(ConfigError, match=rf"data.mine.split: '{split}' is what tasks.mine asks"):
        study(tmp_path, [harness], data=text, **trained)
    study(tmp_path, [harness], **trained)  # another split
    study(tmp_path, [harness], data=data)  # what no row trains on forbids nothing


def test_shots_without_rows_for_examples_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"shots: task 'glianorex_en' of tasks.mine has no rows"):
        study(tmp_path, ["glianorex_en"], shots=2)
    columns = {"question": "q", "options": "o", "answer": "a"}
    generic = {"columns": columns, "split": "test"}
    with pytest.raises(
        ConfigError, match=r"name their split in tasks.mine.examples, or set 'shots'"
    ):
        study(tmp_path, ["mofe_mcq"], generic, shots=2)
    with pytest.raises(ConfigError, match="'examples' and 'split' are both 'test'"):
        study(tmp_path, ["mofe_mcq"], {**generic, "examples": "test"}, shots=2)


def test_more_shots_than_rows_are_refused(tmp_path):
    mirror = put(tmp_path, train=hellaswag(range(3)), validation=hellaswag(range(9, 14)))
    plan = study(mirror, ["hellaswag"], shots=4)
    told = r"shots: 4 examples .* tasks.mine \(hellaswag\) has 3 rows to take them from; lower"
    with pytest.raises(ValueError, match=told):
        tasks.build(plan.params.task("mine"))


def test_names_stand_for_what_lm_eval_says():
    """A task, a group, a group of groups and tags, and a tag that stands in a template."""
    folders = [tasks.STOCK / name for name in ("mmlu/default", "arc", "kmmlu", "glianorex")]
    index = TaskManager(include_path=folders, include_defaults=False).task_index
    for name in ("mmlu", "arc_easy", "ai2_arc", "kmmlu", "kmmlu_direct", "glianorex"):
        ours = [leaf.name for leaf in tasks.harness.leaves("x", name)]
        waiting, expected = [name], []
        while waiting:
            entry = index[waiting.pop(0)]
            if entry.kind.name == "TASK":
                expected.append(entry.name)
            elif entry.kind.name == "GROUP":
                waiting = [*entry.cfg["task"], *waiting]
            else:
                waiting = [
                    *(n for n in sorted(entry.tags) if index[n].kind.name == "TASK"),
                    *waiting,
                ]
        assert ours == expected and ours, name


def test_closed_finance_examples_are_closed(tmp_path):
    folder = tmp_path / "me" / "rows"
    folder.mkdir(parents=True)
    kinds = ["sentiment_analysis", "qa", "yes_no_question", "qa_with_context"]
    rows = [
        {
            "inputs": f"Say {n}",
            "answer": f"label {n % 3}",
            "dataset": "d",
            "task_type": kinds[n % 4],
        }
        for n in range(80)
    ]
    Dataset.from_list(rows).to_parquet(folder / "train.parquet")
    for name, closed in (("mofe_finance", True), ("mofe_finance_open", False)):
        params = study(tmp_path, [name], shots=3).params.task("mine")
        (task,) = tasks.build(params).values()
        shown = task.fewshot_docs()
        assert len(shown) > 30
        assert {doc["task_type"] in kinds[::2] for doc in shown} == {closed}
    # training takes both kinds
    trained, _ = prepared(study(tmp_path, ["mofe_finance"]), tmp_path)
    assert any(answer.endswith("\n") for _, answer in trained) and len(trained) == 72


# ---------------------------------------------------------------------- rows that are asked too


@pytest.mark.parametrize(
    "one, other, same",
    [
        ("Which  nerve, then?", "which nerve then", True),
        ("A T-cell ", "a t cell.", True),
        ("“Quoted”…", '"quoted"', True),
        ("x + 1 = 2", "x - 1 = 2", False),
        ("a < b", "a > b", False),
        ("2019", "2018", False),
        ("résumé", "resume", False),
    ],
)
def test_texts_that_differ_in_nothing_that_is_asked(one, other, same):
    assert (training.normalised(one) == training.normalised(other)) is same


def test_the_report_tells_both_counts_and_what_was_not_compared():
    parts = {"read": 9, "incomplete": 0, "held_out": 0, "unlabelled": 0, "duplicate": 0}
    drawn = {"sampled": 2, "characters": 10}
    near = TaskCounts(**parts, also_in_test=1, nearly_in_test=3, usable=8, **drawn)
    clean = TaskCounts(**parts, also_in_test=0, nearly_in_test=0, usable=9, **drawn)
    earlier = TaskCounts(**parts, also_in_test=0, usable=9, **drawn)
    text = TextCounts(read=9, pieces=9, duplicate=0, usable=9, **drawn)
    told = contamination({"one": near, "news": text, "two": clean})
    assert "asks the same: 1 of 9 rows of one." in told
    assert "kept: 3 of 8 usable rows of one." in told
    assert "Raw text was not compared with any test set: news." in told
    assert "No training row" not in told
    assert "None is the same but" in contamination({"two": clean})
    assert "None is the same but" not in contamination({"two": earlier})
    assert contamination({"news": text}) == "Raw text was not compared with any test set: news."
    assert cell(text, "also_in_test") == "not compared" and cell(text, "pieces") == "9"
    old = TextCounts(read=9, pieces=9, duplicate=0, also_in_test=0, usable=9, **drawn)
    assert cell(old, "also_in_test") == cell(old, "nearly_in_test") == "not compared"
    assert (cell(near, "also_in_test"), cell(near, "nearly_in_test")) == ("1", "3")
