"""Evaluation: lm-eval's own scores, floors and records."""

import gzip
import json
import math

import pytest
from conftest import CONFIG, MINI, REDUCED
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.evaluator import evaluate as harness
from lm_eval.models.huggingface import HFLM
from test_models import SETTINGS

from mofe import evaluate, methods, models, tasks
from mofe.config import read_study
from mofe.plan import Plan


@pytest.fixture(scope="module")
def plan(tiny) -> Plan:
    return Plan(read_study(CONFIG, MINI, REDUCED, results=str(tiny)))  # tiny/world is its world


@pytest.mark.parametrize("task", ["mmlu", "medmcqa", "pubmedqa", "finance"])
@pytest.mark.parametrize("scoring", ["text", "letter"])
def test_scores_are_lm_evals(tiny, plan, task, scoring):
    """Log-likelihoods and every item's accuracy equal those of lm-eval's own language model."""
    params = {**plan.task_params(task), "scoring": scoring}
    tokenizer = models.tokenizer(tiny / "a")
    model = methods.apply(models.load(tiny / "moe2a2b"), SETTINGS["lora"])
    ours = evaluate.score(model, tokenizer, params)
    lm = HFLM(pretrained=model.get_base_model(), tokenizer=tokenizer, batch_size=16, device="cpu")
    theirs = harness(lm, {"tasks": tasks.build(params)}, bootstrap_iters=2)
    samples = [s for leaf in theirs["samples"].values() for s in leaf]
    assert len(ours) == len(samples) >= 50
    for question, sample in zip(ours, samples, strict=True):
        expected = [response[0] for response in sample["filtered_resps"]]
        assert question["loglikelihoods"] == pytest.approx(expected, abs=2e-4)
        assert question["correct"] == sample["acc"]
    if len(theirs["results"]) == 1:
        (result,) = theirs["results"].values()
        summary = evaluate.summarise(ours)["metrics"]["acc"]
        assert summary["value"] == pytest.approx(result["acc,none"])
        assert summary["stderr"] == pytest.approx(result["acc_stderr,none"])


def test_the_record_and_its_questions(tiny, plan, tmp_path):
    record, questions = tmp_path / "medmcqa.json", tmp_path / "medmcqa.questions.jsonl.gz"
    arguments = {
        "merge": str(tiny / "moe2a"),
        "deltas": [],
        "chain": [],
        "params": plan.task_params("medmcqa"),
        "names": {"moe": "moe2a", "stages": "none", "seed": 0},
        "record": record,
        "questions": questions,
    }
    line = evaluate.evaluate_variant(**arguments)
    result = json.loads(record.read_text())
    asked = [json.loads(x) for x in gzip.decompress(questions.read_bytes()).splitlines()]
    assert result["n"] == len(asked) == 100
    assert result["questions"] == questions.name
    accuracy = result["metrics"]["acc"]["value"]
    assert accuracy == sum(q["correct"] for q in asked) / 100
    assert f"{accuracy:.4f}" in line
    for q in asked:
        best = max(range(4), key=q["loglikelihoods"].__getitem__)
        assert q["choice"] == best and q["correct"] == (q["choice"] == q["target"])
        assert len(q["options"]) == 4
    first = questions.read_bytes()
    evaluate.evaluate_variant(**arguments)
    assert questions.read_bytes() == first, "the same scores twice"


def test_a_model_that_is_not_a_number_has_no_accuracy(tiny, plan):
    model = models.load(tiny / "moe2a")
    model.model.layers[0].mlp.experts.down_proj.data[:] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        evaluate.score(model, models.tokenizer(tiny / "a"), plan.task_params("medmcqa"))


def question(options, target, correct=0) -> dict:
    return {"options": list(options), "target": target, "correct": correct}


def test_floors():
    letters = [question("ABCD", t) for t in [0] * 30 + [1] * 50 + [3] * 20]
    assert evaluate.floor(letters)["value"] == 0.5
    two_sets = [question(["no", "yes"], t) for t in [0] * 30 + [1] * 20]
    two_sets += [question(["down", "flat", "up"], t) for t in [0] * 10 + [2] * 40]
    assert evaluate.floor(two_sets)["value"] == 0.7
    own_options = [question([f"a{i}", f"b{i}"], int(i < 60)) for i in range(100)]
    assert evaluate.floor(own_options) == {"value": 0.6, "how": "always the same position"}


@given(st.lists(st.integers(0, 1), min_size=2, max_size=60))
def test_standard_error_is_that_of_a_mean(correct):
    import statistics

    summary = evaluate.summarise([question("AB", 0, c) for c in correct])["metrics"]["acc"]
    assert summary["value"] == pytest.approx(statistics.mean(correct))
    assert summary["stderr"] == pytest.approx(statistics.stdev(correct) / math.sqrt(len(correct)))


def test_too_few_questions_are_refused():
    with pytest.raises(ValueError, match="too few"):
        evaluate.summarise([question("AB", 0)])
