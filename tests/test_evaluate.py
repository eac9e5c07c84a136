"""Evaluation: lm-eval's own scores, floors and records."""

import gzip
import json
import math
import statistics
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import CONFIG, MINI, REDUCED, save_llama
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate as harness
from lm_eval.models.huggingface import HFLM
from test_models import METHODS

from mofe import records, tasks
from mofe.layers import parameters
from mofe.metrics import SHARES
from mofe.models import load, methods, store
from mofe.records import AskedQuestion, ChoiceAnswer, EvalRecord, Floor, WrittenAnswer
from mofe.stages import evaluate, questions
from mofe.study.load import read_study
from mofe.study.plan import Plan
from mofe.tasks import answers
from mofe.training import encoding


@pytest.fixture(scope="module")
def plan(tiny) -> Plan:
    return Plan(read_study(CONFIG, MINI, REDUCED, results=str(tiny)))  # tiny/world is its world


@pytest.mark.parametrize("task", ["mmlu", "medmcqa", "pubmedqa", "finance"])
@pytest.mark.parametrize("scoring", ["text", "letter"])
def test_scores_are_lm_evals(tiny, plan, task, scoring):
    """Log-likelihoods and every item's accuracy equal those of lm-eval's own language model."""
    # lm-eval knows no clusters
    params = {**plan.params.task(task), "scoring": scoring, "cluster": None}
    tokenizer = load.tokenizer(tiny / "a")
    model = methods.apply(load.checkpoint(tiny / "moe2a2b"), METHODS["lora"])
    ours = evaluate.score(model, tokenizer, questions.build(params, tokenizer), params)
    lm = HFLM(pretrained=model.get_base_model(), tokenizer=tokenizer, batch_size=16, device="cpu")
    theirs = harness(lm, {"tasks": tasks.build(params)}, bootstrap_iters=2)
    samples = [s for leaf in theirs["samples"].values() for s in leaf]
    assert len(ours) == len(samples) >= 50
    for question, sample in zip(ours, samples, strict=True):
        expected = [response[0] for response in sample["filtered_resps"]]
        assert question.loglikelihoods == pytest.approx(expected, abs=2e-4)
        assert question.correct == sample["acc"]
        assert tasks.has_norm(params) == ("acc_norm" in sample) == (task == "medmcqa")
        assert question.score("acc_norm") == sample.get("acc_norm", question.score("acc_norm"))
        assert question.prompt_sha256 == sample["prompt_hash"]
    if len(theirs["results"]) == 1:
        (result,) = theirs["results"].values()
        metrics = evaluate.summarise(ours, tasks.has_norm(params)).metrics
        metrics = {name: metric for name, metric in metrics.items() if name in SHARES}
        assert list(metrics) == [m for m in ("acc", "acc_norm") if f"{m},none" in result]
        for metric, summary in metrics.items():
            assert summary.value == pytest.approx(result[f"{metric},none"])
            assert summary.stderr == pytest.approx(result[f"{metric}_stderr,none"])


@pytest.mark.parametrize("task", ["mmlu", "medmcqa", "pubmedqa"])
@pytest.mark.parametrize("scoring", ["text", "letter"])
def test_perplexity_and_entropy_are_plain_transformers(tiny, plan, task, scoring):
    """Each option is read alone, by the model as transformers loads it."""
    params = {**plan.params.task(task), "scoring": scoring}
    tokenizer, model = load.tokenizer(tiny / "a"), load.checkpoint(tiny / "moe2a2b")
    built = [  # the world's options are single words
        question.model_copy(update={"ids": tuple((*ids, *[7] * (n % 3)) for ids in question.ids)})
        for n, question in enumerate(questions.build(params, tokenizer)[:60])
    ]
    found = evaluate.summarise(evaluate.score(model, tokenizer, built, params))
    model.set_experts_implementation("eager")
    nats, tokens_of, entropies = [], [], []
    for question in built:
        sums = []
        for ids, start in zip(question.ids, question.starts, strict=True):
            with torch.no_grad():
                logits = model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1]
            loss = torch.nn.functional.cross_entropy(
                logits, torch.tensor(ids[start:]), reduction="sum"
            )
            sums.append(-loss)
        nats.append(-sums[question.target].item())
        tokens_of.append(len(question.ids[question.target]) - question.starts[question.target])
        choice = torch.distributions.Categorical(logits=torch.stack(sums))
        entropies.append(choice.entropy().item())
    assert {*tokens_of} == {1, 2, 3}
    metrics = found.metrics
    expected = math.exp(sum(nats) / sum(tokens_of))
    assert metrics["perplexity"].value == pytest.approx(expected, rel=1e-4)
    assert metrics["entropy"].value == pytest.approx(statistics.fmean(entropies), abs=1e-4)
    assert 0 < metrics["entropy"].value <= math.log(max(len(q.options) for q in built))
    assert found.headline == "acc"


texts = st.lists(
    st.tuples(st.floats(0.01, 50), st.integers(1, 9), st.integers(0, 5)), min_size=12, max_size=40
)


@given(texts)
def test_the_standard_error_of_a_perplexity_is_near_the_jackknifes(texts):
    """That leaves one cluster out after the other; both are of the logarithm, the ratio of two
    sums."""
    nats, lengths, alike = map(list, zip(*texts, strict=True))
    if len(set(alike)) < 3:
        return
    found = evaluate.perplexity(nats, lengths, alike)["perplexity"]
    assert found.value == pytest.approx(math.exp(sum(nats) / sum(lengths)))

    def ratio(left_out: int | None) -> float:
        kept = [t for t in texts if t[2] != left_out]
        return sum(t[0] for t in kept) / sum(t[1] for t in kept)

    groups = sorted(set(alike))
    again = [ratio(group) for group in groups]
    shares = [sum(t[1] for t in texts if t[2] == group) / sum(lengths) for group in groups]
    mean, count = ratio(None), len(groups)
    # what leaving a cluster out moves the ratio by, but for its share of the tokens
    moved = [(r - mean) * (1 - share) for r, share in zip(again, shares, strict=True)]
    expected = math.sqrt(count / (count - 1) * sum(x * x for x in moved))
    assert found.stderr == pytest.approx(found.value * expected, rel=1e-6, abs=1e-9)


def test_a_perplexity_too_large_for_a_number_is_left_out():
    assert evaluate.perplexity([800.0, 600.0], [1, 1], [0, 1]) == {}
    assert list(evaluate.perplexity([600.0, 600.0], [1, 1], [0, 1])) == ["perplexity"]


def asked(prompts, **settings) -> list[Instance]:
    return [
        Instance("generate_until", {}, (prompt, settings), number, metadata=("x", number, 1))
        for number, prompt in enumerate(prompts)
    ]


def generated(scorer: evaluate.AnswerScorer, requests: list[Instance]) -> list[str]:
    """What ours answers to requests of lm-eval's of one kind."""
    prompts = scorer.tokenizer([request.args[0] for request in requests])["input_ids"]
    return scorer.generate(prompts, *questions.greedy(requests[0].args[1]))


def made(params: dict, tokenizer: Path, folder: Path) -> str:
    """The file of a task's questions."""
    questions.make(params=params, tokenizer=str(tokenizer), out=folder / "asked.parquet")
    return str(folder / "asked.parquet")


def row(task: str, number: int) -> dict:
    """What every question of a file has."""
    return {"task": task, "question": number, "prompt_sha256": str(number)}


def steadied(model: torch.nn.Module) -> torch.nn.Module:
    """Weights large enough that no two tokens are nearly as likely: rounding decides nothing."""
    generator = torch.Generator().manual_seed(1)
    for parameter in parameters.trained(model).values():
        if parameter.dtype.is_floating_point:
            parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return model


@pytest.mark.parametrize("method", ["full", "freeze1", "lora", "dora", "qlora"])
def test_answers_in_words_are_lm_evals(tiny, plan, method):
    """Greedy texts of prompts of all lengths equal those of lm-eval's own language model."""
    tokenizer = load.tokenizer(tiny / "a")
    torch.manual_seed(0)  # adapters begin at random
    model = steadied(methods.apply(load.checkpoint(tiny / "moe2a2b"), METHODS[method]))
    scorer = evaluate.AnswerScorer(model, tokenizer)
    theirs = HFLM(pretrained=scorer.model, tokenizer=tokenizer, batch_size=8, device="cpu")
    (task,) = tasks.build(plan.params.task("medmcqa")).values()
    prompts = [task.doc_to_text(doc) for doc in task.eval_docs.select(range(24))]
    prompts += [" ".join(prompts[:3]), prompts[0].split()[0]]
    whole = asked(prompts, until=[], max_gen_toks=12)
    free = generated(scorer, whole)
    assert free == theirs.generate_until(whole)
    assert len(set(free)) > 10, "the model says different things"
    # a word inside the answers, so that some end early and others do not
    stop = free[0].split()[5]
    stopped = asked(prompts, until=[stop], max_gen_toks=12, do_sample=False)
    ours = generated(scorer, stopped)
    assert ours == theirs.generate_until(stopped)
    assert ours == [text.split(stop)[0] for text in free] and ours != free


def test_the_end_of_text_ends_an_answer(tiny):
    tokenizer = load.tokenizer(tiny / "a")
    model = load.checkpoint(tiny / "a")
    scorer = evaluate.AnswerScorer(model, tokenizer)
    requests = asked(["which river", "name the dish", "the"], until=["\n"], max_gen_toks=6)
    before = generated(scorer, requests)
    # the end of text becomes the likeliest token wherever the first answer's third one was
    third = tokenizer.convert_tokens_to_ids(before[0].split()[2])
    model.lm_head.weight.data[tokenizer.eos_token_id] = 1.1 * model.lm_head.weight.data[third]
    texts = generated(scorer, requests)
    assert texts[0] == " ".join(before[0].split()[:2])
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2, device="cpu")
    assert texts == theirs.generate_until(requests)


def narrow(tmp_path, tokenizer) -> tuple[evaluate.AnswerScorer, HFLM]:
    """Ours and lm-eval's language model over one that reads 24 tokens."""
    save_llama(tmp_path, tokenizer)
    model = steadied(load.checkpoint(tmp_path))
    model.config.max_position_embeddings = 24
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2, device="cpu")
    return evaluate.AnswerScorer(model, tokenizer), theirs


def test_a_prompt_without_room_for_an_answer_loses_its_beginning(tmp_path, tiny):
    tokenizer = load.tokenizer(tiny / "a")
    scorer, theirs = narrow(tmp_path, tokenizer)
    long = "which river runs through " * 10
    requests = asked([long, "which river"], until=["\n"], max_gen_toks=8)
    assert generated(scorer, requests) == theirs.generate_until(requests)
    lost = len(tokenizer(long)["input_ids"]) - (24 - 8)
    words = {
        "reference": "it",
        "row": '{"reference": "it"}',
        "stops": ["\n"],
        "most": 8,
    }
    built = []
    for number, prompt in enumerate((long, "which river")):
        ids = tokenizer(prompt)["input_ids"]
        found = {**row("mofe_finance_open", number), **words, "ids": [ids], "starts": [len(ids)]}
        built.append(AskedQuestion(**found))
    told = evaluate.score(scorer.model, tokenizer, built, {"harness": ["mofe_finance_open"]})
    assert [answer.prompt_cut for answer in told] == [lost, 0] and lost > 0
    assert [answer.generated for answer in told] == theirs.generate_until(requests)
    with pytest.raises(
        ValueError, match=r"an answer of 24 tokens .* leaves the model's 24 no room"
    ):
        generated(scorer, asked(["which"], until=[], max_gen_toks=24))


def test_a_question_without_room_loses_its_beginning(tmp_path, tiny):
    tokenizer = load.tokenizer(tiny / "a")
    scorer, theirs = narrow(tmp_path, tokenizer)
    long = "which river runs through " * 10
    pairs = [(p, a) for p in (long, "which river") for a in (" which", " river runs through")]
    requests = [Instance("loglikelihood", {}, pair, 0) for pair in pairs]
    encoded = encoding.pairs(tokenizer, pairs, "tasks.x")
    hflms = [score for score, _ in theirs.loglikelihood(requests)]
    assert scorer.loglikelihoods(encoded) == pytest.approx(hflms, abs=1e-4)
    lost = len(tokenizer(long + " river runs through")["input_ids"]) - (24 + 1)
    built = []
    for number in range(2):
        ids, starts = zip(*encoded[2 * number :][:2], strict=True)
        choice = {"options": ["which", "river runs through"], "target": 0}
        tokens = {"ids": list(ids), "starts": list(starts)}
        built.append(AskedQuestion(**row("x", number), **choice, **tokens))
    told = evaluate.score(scorer.model, tokenizer, built, {})
    assert [answer.prompt_cut for answer in told] == [lost, 0] and lost > 0
    with pytest.raises(ValueError, match="leaves the model's 24 no room"):
        scorer.loglikelihoods(encoding.pairs(tokenizer, [("which", " " + long)], "tasks.x"))


token = st.integers(5, 50)
contexts = st.lists(token, min_size=1, max_size=12)
asks = st.tuples(
    contexts, st.lists(st.lists(token, min_size=1, max_size=5), min_size=1, max_size=4)
)


@pytest.fixture(scope="module")
def untrained(tiny) -> torch.nn.Module:
    return evaluate.ready(tiny / "moe2a2b", [], [])


@settings(max_examples=30, deadline=None)
@given(st.lists(asks, min_size=1, max_size=4))
def test_continuations_of_one_context_are_read_as_each_alone(untrained, several):
    asked = [([*c, *more], len(c)) for c, continuations in several for more in continuations]
    expected = []
    for ids, start in asked:
        with torch.inference_mode():
            logs = untrained(torch.tensor([ids])).logits[0].log_softmax(-1)
        expected.append(sum(logs[i - 1, ids[i]].item() for i in range(start, len(ids))))
    found = evaluate.AnswerScorer(untrained).loglikelihoods(asked)
    assert found == pytest.approx(expected, abs=1e-4)


def test_a_context_is_computed_once(untrained):
    context, options = [5, 6, 7, 8], [[9], [10, 11, 12], [13, 14]]
    read = []
    hook = untrained.model.embed_tokens.register_forward_pre_hook(
        lambda module, inputs: read.append(inputs[0].numel())
    )
    with hook:
        asked = [([*context, *option], len(context)) for option in options]
        evaluate.AnswerScorer(untrained).loglikelihoods(asked)
    assert sum(read) == len(context) + sum(len(option) - 1 for option in options)


@pytest.mark.parametrize("chain", [[], [METHODS["mofe"]]], ids=["untuned", "mofe"])
def test_equal_experts_are_computed_once(tiny, tmp_path, chain):
    trained = [tmp_path / f"{number}.safetensors" for number in range(len(chain))]
    for file in trained:
        model = methods.apply(load.checkpoint(tiny / "moe2a2b"), chain[0])
        store.trained(model, file)
    model = evaluate.ready(tiny / "moe2a2b", chain, trained)
    assert {len(layer.mlp.experts.stacks[0]) for layer in model.model.layers} == {2}


def test_logits_are_float32_whatever_was_frozen(tiny):
    """Between bfloat16 logits there are ties, which the first option would win."""
    model = load.checkpoint(tiny / "a")
    model.lm_head.bfloat16()
    scorer = evaluate.AnswerScorer(model, load.tokenizer(tiny / "a"))
    pairs = [("which river runs", f" {word}") for word in ("through", "the", "which")]
    encoded = encoding.pairs(scorer.tokenizer, pairs, "tasks.x")
    low = scorer.loglikelihoods(encoded)
    model.lm_head.float()
    full = evaluate.AnswerScorer(model, scorer.tokenizer)
    assert low == full.loglikelihoods(encoded)


def test_answers_that_are_not_greedy_are_refused():
    for decoding in ({"do_sample": True, "temperature": 0.7}, {"num_beams": 4}):
        with pytest.raises(ValueError, match="only 'until' and 'max_gen_toks' can be set"):
            questions.greedy({"until": ["\n"], **decoding})


@pytest.fixture(scope="module")
def words(shared, tmp_path_factory):
    """A tiny Llama with TinyLlama's tokenizer that now and then says a new line, and some of the
    real finance rows: the folder of both."""
    root, data = tmp_path_factory.mktemp("words"), shared / "data"
    tokenizer = load.tokenizer(data / "TinyLlama" / "TinyLlama-1.1B-intermediate-step-1431k-3T")
    save_llama(root / "model", tokenizer)
    model = steadied(load.checkpoint(root / "model"))
    model.lm_head.weight.data[tokenizer.convert_tokens_to_ids("<0x0A>")] *= 4
    model.config.max_position_embeddings = 512  # some prompts lose their beginning
    model.save_pretrained(root / "model")
    sujet = Path("sujet-ai/Sujet-Finance-Instruct-177k/sujet_finance_instruct_sample.csv")
    (root / sujet).parent.mkdir(parents=True)
    rows = pd.read_csv(data / sujet).groupby("task_type").head(100)
    rows.to_csv(root / sujet, index=False)
    return root


@pytest.fixture(scope="module")
def open_questions(words) -> dict:
    whole = {"finance_open": {"sample": None}}
    return Plan(read_study(CONFIG, mirror=str(words), tasks=whole)).params.task("finance_open")


def test_f1_and_exact_match_are_lm_evals(words, open_questions):
    model, tokenizer = load.checkpoint(words / "model"), load.tokenizer(words / "model")
    built = questions.build(open_questions, tokenizer)
    ours = evaluate.score(model, tokenizer, built, open_questions)
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=8, device="cpu")
    theirs = harness(lm, {"tasks": tasks.build(open_questions)}, bootstrap_iters=2)
    samples, result = theirs["samples"]["mofe_finance_open"], theirs["results"]["mofe_finance_open"]
    assert len(ours) == len(samples) == result["sample_len"] > 10
    for question, sample in zip(ours, samples, strict=True):
        assert question.generated == sample["filtered_resps"][0]
        assert question.prompt_sha256 == sample["prompt_hash"]
        assert (question.f1, question.exact) == (sample["f1"], sample["exact"])
        assert "\n" not in question.generated + question.reference
    assert len({len(question.generated.split()) for question in ours}) > 3, "new lines end some"
    summary = evaluate.summarise(ours)
    assert (summary.headline, summary.floor, summary.n) == ("f1", None, len(ours))
    for metric in ("f1", "exact"):
        value = summary.metrics[metric]
        assert value.value == pytest.approx(result[f"{metric},none"])
        assert value.stderr == pytest.approx(result[f"{metric}_stderr,none"])
    assert any(question.prompt_cut for question in ours)


def test_the_record_of_answers_in_words(words, open_questions, tmp_path):
    record, answered = tmp_path / "finance_open.json", tmp_path / "questions.jsonl.gz"
    line = evaluate.evaluate_variant(
        merge=str(words / "model"),
        trained=[],
        chain=[],
        asked=made(open_questions, words / "model", tmp_path),
        params=open_questions,
        names={"moe": "words", "stages": "none", "seed": 0},
        record=record,
        questions=answered,
    )
    result = records.read(record, EvalRecord)
    lines = records.read_lines(answered, WrittenAnswer)
    assert result.n == len(lines) and result.headline == "f1" and result.floor is None
    assert result.metrics["f1"].value == statistics.fmean(q.f1 for q in lines)
    assert "floor" not in line and f"{result.metrics['f1'].value:.4f}" in line
    for q in lines:
        assert q.f1 == answers.f1(q.reference, q.generated)


def test_the_record_and_its_questions(tiny, plan, tmp_path):
    record, answered = tmp_path / "medmcqa.json", tmp_path / "medmcqa.questions.jsonl.gz"
    arguments = {
        "merge": str(tiny / "moe2a"),
        "trained": [],
        "chain": [],
        "asked": made(plan.params.task("medmcqa"), tiny / "a", tmp_path),
        "params": plan.params.task("medmcqa"),
        "names": {"moe": "moe2a", "stages": "none", "seed": 0},
        "record": record,
        "questions": answered,
    }
    line = evaluate.evaluate_variant(**arguments)
    result = json.loads(record.read_text())
    asked = [json.loads(x) for x in gzip.decompress(answered.read_bytes()).splitlines()]
    assert result["n"] == len(asked) == 100
    named = [q["cluster"] for q in asked if q["cluster"] is not None]
    assert result["clusters"] == len(set(named)) + 100 - len(named) < 100
    assert result["held_out"] is None
    assert result["questions"] == answered.name
    accuracy = result["metrics"]["acc"]["value"]
    assert accuracy == sum(q["correct"] for q in asked) / 100
    assert f"{accuracy:.4f}" in line
    for q in asked:
        best = max(range(4), key=q["loglikelihoods"].__getitem__)
        assert q["choice"] == best and q["correct"] == (q["choice"] == q["target"])
        assert len(q["options"]) == 4
    first = answered.read_bytes()
    evaluate.evaluate_variant(**arguments)
    assert answered.read_bytes() == first, "the same scores twice"


def test_a_model_that_is_not_a_number_has_no_accuracy(tiny, plan):
    model = load.checkpoint(tiny / "moe2a")
    model.model.layers[0].mlp.experts.down_proj.data[:] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        tokenizer = load.tokenizer(tiny / "a")
        built = questions.build(plan.params.task("medmcqa"), tokenizer)
        evaluate.score(model, tokenizer, built, plan.params.task("medmcqa"))
    with pytest.raises(ValueError, match="not finite"):
        scorer = evaluate.AnswerScorer(model, load.tokenizer(tiny / "a"))
        generated(scorer, asked(["which river"], until=["\n"], max_gen_toks=4))


@pytest.mark.parametrize(
    "change", [{"metric_list": [{"metric": "f1"}]}, {"process_results": lambda doc, results: {}}]
)
def test_a_task_that_is_scored_in_another_way_is_refused(tiny, plan, monkeypatch, change):
    build = tasks.build

    def changed(params):
        (task,) = build(params).values()
        task = ConfigurableTask(config={**task.config.to_dict(keep_callable=True), **change})
        return {task.config.task: task}

    monkeypatch.setattr(tasks, "build", changed)
    with pytest.raises(
        ValueError, match=r"tasks.medmcqa.harness: medmcqa is scored by .* of its own"
    ):
        questions.build(plan.params.task("medmcqa"), load.tokenizer(tiny / "a"))


def question(options, target, correct=0, cluster=None) -> ChoiceAnswer:
    scored = {"choice": 0, "loglikelihoods": [-1.0], "correct": correct, "prompt_cut": 0}
    given = {"options": list(options), "target": target, "cluster": cluster}
    return ChoiceAnswer(**row("x", 0), **given, **scored)


def test_floors():
    letters = [question("ABCD", t) for t in [0] * 30 + [1] * 50 + [3] * 20]
    assert evaluate.floor(letters).value == 0.5
    two_sets = [question(["no", "yes"], t) for t in [0] * 30 + [1] * 20]
    two_sets += [question(["down", "flat", "up"], t) for t in [0] * 10 + [2] * 40]
    assert evaluate.floor(two_sets).value == 0.7
    own_options = [question([f"a{i}", f"b{i}"], int(i < 60)) for i in range(100)]
    assert evaluate.floor(own_options) == Floor(value=0.6, how="always the same position")


@given(st.lists(st.integers(0, 1), min_size=2, max_size=60))
def test_standard_error_is_that_of_a_mean(correct):
    scores = evaluate.summarise([question("AB", 0, c) for c in correct])
    assert scores.clusters == scores.n == len(correct)
    summary = scores.metrics["acc"]
    assert summary.value == pytest.approx(statistics.mean(correct))
    assert summary.stderr == pytest.approx(statistics.stdev(correct) / math.sqrt(len(correct)))


def test_questions_of_one_cluster_count_less():
    """Every question twice, under one name: the error is that of half as many questions."""
    correct = [1, 0, 0, 1, 1, 1, 0, 1]
    once = evaluate.summarise([question("AB", 0, c) for c in correct])
    pairs = [question("AB", 0, c, cluster=f"fact {n}") for n, c in enumerate(correct)]
    twice = evaluate.summarise(2 * pairs)
    assert (once.n, once.clusters) == (8, 8) and (twice.n, twice.clusters) == (16, 8)
    assert twice.metrics["acc"].stderr == pytest.approx(once.metrics["acc"].stderr)


def test_questions_that_are_all_alike_are_refused():
    with pytest.raises(ValueError, match=r"all 2 questions have the cluster 'x'.*leave it out"):
        evaluate.summarise([question("AB", 0, c, cluster="x") for c in (0, 1)])


def test_too_few_questions_are_refused():
    with pytest.raises(ValueError, match="too few"):
        evaluate.summarise([question("AB", 0)])
