"""The training loop: the loss, the batches, what stays and what moves, and the same bits twice."""

import itertools
import json
import math
import os
import re
import shutil
import signal
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
import torch
from conftest import TRAINING
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_models import METHODS, SETTINGS

from mofe import provenance
from mofe.estimate import memory
from mofe.layers import parameters, vocabulary
from mofe.models import devices, load, methods
from mofe.stages import train
from mofe.training import loop, tokens
from mofe.training.signals import Interrupted


def run(tiny, data, out: Path, method: str, seed: int = 0, merge="moe2a2b", **training) -> dict:
    train.train_variant(
        merge=str(tiny / merge),
        data=[data],
        parents=[],
        chain=[],
        params={"recipe": method, **SETTINGS[method], "training": {**TRAINING, **training}},
        names={"moe": merge, "stages": method},
        seed=seed,
        trained=out / "trained.safetensors",
        record=out / "train.json",
        log=out / "log.jsonl",
        checkpoint=out / "checkpoint",
    )
    return json.loads((out / "train.json").read_text())


@pytest.mark.parametrize("method", SETTINGS)
def test_what_is_frozen_stays_bit_for_bit_and_what_is_trained_moves(tiny, data, tmp_path, method):
    record = run(tiny, data, tmp_path, method)
    assert record["frozen_sha256"]["before"] == record["frozen_sha256"]["after"]
    assert (record["frozen_sha256"]["before"] is None) == (method == "full")

    start = methods.apply(load.checkpoint(tiny / "moe2a2b"), METHODS[method])
    end = load.variant(tiny / "moe2a2b", [METHODS[method]], [tmp_path / "trained.safetensors"])
    kept, before = parameters.frozen(end), parameters.frozen(start)
    assert all(torch.equal(kept[n], p) for n, p in before.items())
    stored = load_file(tmp_path / "trained.safetensors")
    assert sum(t.numel() for t in stored.values()) == record["trainable_parameters"]
    if "lora" not in method and method != "dora":
        before = parameters.trained(start)
        still = {n for n, t in stored.items() if torch.equal(t, before[n].detach())}
        assert not still, "weight decay and gradients reach all that is trained"


def test_frozen_experts_are_those_of_the_merge(tiny, data, tmp_path):
    """Not only unchanged by the loop: the very weights that were merged, weight decay included."""
    run(tiny, data, tmp_path, "freeze3", weight_decay=1.0)
    end = load.variant(tiny / "moe2a2b", [METHODS["freeze3"]], [tmp_path / "trained.safetensors"])
    end, merged = (
        methods.merge_and_unload(end).state_dict(),
        load.checkpoint(tiny / "moe2a2b").state_dict(),
    )
    for name in merged:
        if ".experts." in name:
            assert torch.equal(end[name][:3], merged[name][:3])
            assert not torch.equal(end[name][3], merged[name][3])


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tiny, data, tmp_path):
    for method in ("full", "mofe", "freeze1", "lora", "dora", "qlora"):
        digests = []
        for name, seed in (("one", 0), ("two", 0), ("other", 1)):
            run(tiny, data, tmp_path / method / name, method, seed)
            digests.append((tmp_path / method / name / "trained.safetensors").read_bytes())
        assert digests[0] == digests[1] != digests[2]


def test_the_record_says_what_was_done(tiny, data, tmp_path):
    record = run(tiny, data, tmp_path, "mofe")
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert record["rows"] == 20 and record["dropped_rows"] == 0
    assert record["steps"] == len(lines) == 2 * math.ceil(20 / 8)
    assert [line["step"] for line in lines] == list(range(1, 7))
    rates = [line["learning_rate"] for line in lines]
    assert rates == pytest.approx([1e-2 * (6 - n) / 6 for n in range(6)]), "linear, to zero"
    assert record["final_loss"] == lines[-1]["loss"] < lines[0]["loss"]
    assert record["tokens"] == lines[-1]["tokens"]
    assert 0 < lines[-1]["seconds"] <= record["seconds"] + 0.001
    for key in ("torch", "transformers", "peft", "accelerate", "python"):
        assert record["versions"][key]
    assert record["hardware"]["cores"] >= 1 and record["git_revision"]
    assert record["answer_tokens"] == 2 * 20
    assert record["learning_rate"] == 1e-2 and record["cpu_seconds"] > 0


def test_a_step_does_not_depend_on_the_micro_batch(tiny, data, tmp_path):
    """Rows a forward pass change speed, not the experiment: losses and weights agree."""
    for micro in (1, 8):
        run(tiny, data, tmp_path / str(micro), "full", micro_batch=micro, learning_rate=1e-3)
    one, eight = (
        [json.loads(x)["loss"] for x in (tmp_path / m / "log.jsonl").read_text().splitlines()]
        for m in "18"
    )
    assert one[0] == pytest.approx(eight[0], rel=1e-6)
    assert one == pytest.approx(eight, rel=1e-3)
    one, eight = (load_file(tmp_path / m / "trained.safetensors") for m in "18")
    start = load.checkpoint(tiny / "moe2a2b").state_dict()
    # where a gradient is nearly zero Adam turns its rounding into a step, so compare on average
    moved = sum((one[n] - start[n]).abs().mean().item() for n in one)
    apart = sum((one[n] - eight[n]).abs().mean().item() for n in one)
    assert apart < 0.02 * moved


@pytest.mark.parametrize("method", ["full", "mofe", "qlora"])
def test_auto_is_the_training_with_the_number_that_it_records(
    tiny, data, tmp_path, method, monkeypatch
):
    # fewer tokens than 1,024, so that a step has several micro-batches
    monkeypatch.setitem(memory.TRAINING_TOKENS, "cpu", (100,))
    logs, hashes = [], []
    for rows in ("auto", 3):
        out = tmp_path / str(rows)
        record = run(tiny, data, out, method, micro_batch=rows, max_length=32, global_batch=20)
        lines = (out / "log.jsonl").read_text().splitlines()
        logs.append([json.loads(line)["loss"] for line in lines])
        hashes.append(record["config_hash"])
        assert record["micro_batch"] == 3
    assert logs[0] == logs[1]
    assert hashes[0] != hashes[1], "of what is configured, whatever the hardware makes of it"


@pytest.mark.parametrize("method", ["full", "dora"])
def test_auto_follows_the_gpu_that_a_job_got(tiny, monkeypatch, method):
    model = methods.apply(load.checkpoint(tiny / "moe2a2b"), METHODS[method])
    training = {**TRAINING, "micro_batch": "auto"}
    monkeypatch.setattr(devices, "current", lambda: torch.device("cuda", 0))
    for gib, most in ((79.2, 16384 // 64), (0.9, 1024 // 64)):
        gpu = SimpleNamespace(total_memory=gib * 2**30)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _, gpu=gpu: gpu)
        rows = tokens.Rows(ids=[[1, 2]], prompt=[0], dropped=0, sets=[0])
        chosen = train._with_micro_batch(model, METHODS[method], training, rows, "none")
        assert chosen == training | {"micro_batch": most}


@pytest.mark.parametrize(
    "merge, method", [("moe4a", "mofe"), ("moe2a2b", "freeze3"), ("moe2a2b", "dora")]
)
def test_a_folded_training_is_the_unfolded_one(tiny, data, tmp_path, merge, method):
    """In the losses of every step, and in what is counted and stored."""
    losses, stored, counts, flops = [], [], [], []
    for fold in (False, True):
        out = tmp_path / str(fold)
        settings = {"merge": merge, "learning_rate": 1e-3, "fold_duplicates": fold}
        record = run(tiny, data, out, method, **settings)
        lines = (out / "log.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
        stored.append(load_file(out / "trained.safetensors"))
        counts.append((record["total_parameters"], record["trainable_parameters"]))
        flops.append(record["flops"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert stored[0].keys() == stored[1].keys() and counts[0] == counts[1]
    assert (flops[1] < 0.8 * flops[0]) == (merge == "moe4a"), "one expert in place of two"


@given(
    rows=st.lists(
        st.lists(st.integers(0, 9), min_size=1, max_size=8).flatmap(
            lambda ids: st.tuples(st.just(ids), st.integers(0, len(ids)))
        ),
        min_size=1,
        max_size=5,
    ),
    counts=st.booleans(),
)
def test_a_batch_is_padded_as_torch_pads(rows, counts):
    def padded(sequences: list[list[int]], value: int) -> torch.Tensor:
        tensors = [torch.tensor(sequence) for sequence in sequences]
        return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)

    ids, prompts = zip(*rows, strict=True)
    tokenised = tokens.Rows(list(ids), list(prompts), 0, [0] * len(ids))
    batch = tokens.collate(tokenised, range(len(ids)), pad=7, counts=counts)
    labels = [
        [token if counts and at >= start else tokens.IGNORED for at, token in enumerate(row)]
        for row, start in rows
    ]
    expected = {
        "input_ids": padded(list(ids), 7),
        "attention_mask": padded([[1] * len(row) for row in ids], 0),
        "labels": padded(labels, tokens.IGNORED),
    }
    assert batch.keys() == expected.keys()
    for name, tensor in expected.items():
        assert batch[name].dtype == torch.int64 and torch.equal(batch[name], tensor), name


def test_the_loss_is_transformers(tiny, data):
    model, tokenizer = load.checkpoint(tiny / "moe2a2b"), load.tokenizer(tiny / "a")
    rows = tokens.tokenize(tokens.read([data]), tokenizer, 64)
    batch = tokens.collate(rows, range(6), tokenizer.pad_token_id)
    ours = loop.AnswerLoss(model)(**batch) / sum(rows.answers[:6])
    ours.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    theirs = model(**batch).loss
    theirs.backward()
    assert torch.allclose(ours, theirs, atol=1e-6)
    for name, parameter in model.named_parameters():
        assert torch.allclose(gradients[name], parameter.grad, atol=1e-6), name


def test_the_last_ffn_is_computed_where_it_is_read(tiny, data):
    model, tokenizer = load.checkpoint(tiny / "moe2a2b"), load.tokenizer(tiny / "a")
    rows = tokens.tokenize(tokens.read([data]), tokenizer, 64)
    batch = tokens.collate(rows, range(6), tokenizer.pad_token_id)
    seen = []
    for layer in model.model.layers:
        layer.mlp.gate.register_forward_hook(lambda m, inputs, out: seen.append(len(inputs[0])))
    loop.AnswerLoss(model)(**batch).backward()
    loop.AnswerLoss(model, router_aux_loss=0.1)(**batch).backward()
    everywhere, answers = batch["input_ids"].numel(), sum(rows.answers[:6])
    assert seen == [everywhere, answers, everywhere, everywhere]


@pytest.mark.parametrize("padding", [None, 3])
def test_gradients_of_the_vocabulary_are_autograds(tiny, padding):
    """Of tokens that come twice, in several rows and in several micro-batches, and of padding."""
    model = load.checkpoint(tiny / "moe2a2b")
    embeddings = model.get_input_embeddings()
    embeddings.padding_idx = padding
    loss_of, generator = loop.AnswerLoss(model), torch.Generator().manual_seed(0)
    batches = torch.randint(0, 20, (2, 3, 6), generator=generator)

    def gradients():
        model.zero_grad()
        for ids in batches:
            loss_of(ids, ids, torch.ones_like(ids)).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters()}

    plain = gradients()
    with vocabulary.summed_in_place(model):
        ours = gradients()
    assert "forward" not in embeddings.__dict__, "and the model is as it was"
    assert plain["model.embed_tokens.weight"].count_nonzero()
    if padding is not None:
        assert not plain["model.embed_tokens.weight"][padding].count_nonzero()
    torch.testing.assert_close(ours, plain, rtol=1e-5, atol=1e-7)


def test_the_auxiliary_loss_is_transformers(tiny, data):
    model, tokenizer = load.checkpoint(tiny / "moe2a2b"), load.tokenizer(tiny / "a")
    rows = tokens.tokenize(tokens.read([data]), tokenizer, 64)
    assert len(set(rows.lengths[:6])) > 1, "there is padding"
    batch = tokens.collate(rows, range(6), tokenizer.pad_token_id)
    ours = loop.AnswerLoss(model, 0.02)(**batch) / sum(rows.answers[:6])
    model.router_aux_loss_coef = 0.02
    theirs = model(**batch, output_router_logits=True).loss
    assert torch.allclose(ours, theirs, atol=1e-6)
    dense = load.checkpoint(tiny / "a")
    assert torch.equal(loop.AnswerLoss(dense, 0.02)(**batch), loop.AnswerLoss(dense)(**batch))


def test_stages_follow_each_other(tiny, data, tmp_path):
    """A second stage starts where the first one ended: with no learning it is the first."""
    run(tiny, data, tmp_path / "first", "mofe")
    first = str(tmp_path / "first" / "trained.safetensors")
    chain = [{"recipe": "mofe", **SETTINGS["mofe"]}]
    for method in ("lora", "ia3", "mofe", "lora_also", "lora_experts", "attention", "router"):
        out = tmp_path / method
        train.train_variant(
            merge=str(tiny / "moe2a2b"),
            data=[data],
            parents=[first],
            chain=chain,
            params={
                "recipe": method,
                **SETTINGS[method],
                "training": {**TRAINING, "learning_rate": 1e-30, "weight_decay": 0.0},
            },
            names={"moe": "moe2a2b", "stages": f"mofe.{method}"},
            seed=0,
            trained=out / "trained.safetensors",
            record=out / "train.json",
            log=out / "log.jsonl",
            checkpoint=out / "checkpoint",
        )
        trained = [first, str(out / "trained.safetensors")]
        both = load.variant(tiny / "moe2a2b", [METHODS["mofe"], METHODS[method]], trained)
        one = load.variant(tiny / "moe2a2b", [METHODS["mofe"]], [first])
        ids = torch.arange(3, 23)[None]
        with torch.inference_mode():
            assert torch.allclose(
                both.eval()(input_ids=ids).logits, one.eval()(input_ids=ids).logits, atol=1e-5
            )


def test_a_loss_that_is_not_a_number_is_a_failure(tiny, data, tmp_path):
    with pytest.raises(FloatingPointError, match="learning_rate"):
        run(tiny, data, tmp_path, "full", learning_rate=1e30, max_grad_norm=1e30)
    assert not (tmp_path / "train.json").exists()
    assert not (tmp_path / "trained.safetensors").exists()


lengths = st.lists(st.integers(1, 50), min_size=1, max_size=40)


@given(
    *(lengths, st.integers(0, 9), st.integers(1, 3), st.integers(1, 16)),
    *(st.integers(1, 300), st.integers(1, 4), st.integers(0, 99)),
)
def test_every_epoch_visits_every_row_once(
    lengths, seed, epochs, global_batch, most, processes, starting
):
    steps = list(
        tokens.schedule(lengths, seed, epochs, global_batch, most, processes, starting=starting)
    )
    assert len(steps) == tokens.count_steps(len(lengths), epochs, global_batch)
    visited = [[i for batch in step for i in batch] for step in steps]
    per_epoch = len(steps) // epochs
    for epoch in range(epochs):
        rows = list(chain(*visited[epoch * per_epoch : (epoch + 1) * per_epoch]))
        assert sorted(rows) == list(range(len(lengths)))
    for step in steps:
        sizes = [len(b) * max(lengths[i] for i in b) for b in step]
        assert all(size <= most or len(b) == 1 for b, size in zip(step, sizes, strict=True))
    assert all(len(rows) <= global_batch for rows in visited)
    for step in tokens.schedule(lengths, seed, epochs, global_batch, most, processes):
        assert len(step) >= min(processes, sum(map(len, step)) // 2), "all processes have work"
    # the micro-batch decides how a step is cut, never which rows it has
    other = list(tokens.schedule(lengths, seed, epochs, global_batch, most + 50))
    assert [sorted(chain(*step)) for step in other] == [sorted(rows) for rows in visited]


@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=9).map(sorted),
    *(st.integers(1, 120), st.integers(0, 60)),
)
def test_micro_batches_are_the_cheapest_there_are(lengths, most, starting):
    def cost(batches):
        return sum(len(b) * max(lengths[i] for i in b) + starting for b in batches)

    rows = list(range(len(lengths)))
    possible = []
    for cuts in itertools.product([False, True], repeat=len(rows) - 1):
        ends = [0, *(i for i, cut in enumerate(cuts, 1) if cut), len(rows)]
        batches = [rows[a:b] for a, b in itertools.pairwise(ends)]
        if all(len(b) == 1 or len(b) * lengths[b[-1]] <= most for b in batches):
            possible.append(cost(batches))
    assert cost(tokens.micro_batches(rows, lengths, most, starting)) == min(possible)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=200).map(sorted), st.integers(2, 9))
def test_processes_that_share_a_step_wait_little_for_each_other(lengths, processes):
    """They compute in rounds, and none gets more than its even share of the step, with padding."""
    rows = range(len(lengths))
    batches = tokens.balanced_batches(rows, lengths, 600, processes)
    assert [row for batch in batches for row in batch] == list(rows)
    rounds = math.ceil(len(batches) / processes)
    even = 1.4 * sum(lengths) / (processes * rounds) + 1
    for batch in batches:
        longest = lengths[batch[-1]]
        assert len(batch) * longest <= min(600, max(longest, even))


def test_long_rows_are_dropped_and_text_is_cut(tiny):
    tokenizer = load.tokenizer(tiny / "a")
    words = [w for w in tokenizer.get_vocab() if w.isalpha()][:12]
    text = " ".join(words)
    pairs = [(text, " " + words[0]), (words[0], " " + words[1]), ("", text)]
    rows = tokens.tokenize(pairs, tokenizer, 5)
    assert rows.dropped == 1
    assert rows.lengths[0] == 3 and rows.answers[0] == 1
    assert rows.lengths[1:] == [5, 5, 3], "13 tokens with the first one that tokenizers add"
    assert rows.ids[1] + rows.ids[2] + rows.ids[3] == tokenizer(text)["input_ids"]
    with pytest.raises(ValueError, match="raise max_length"):
        tokens.tokenize(pairs[:1], tokenizer, 5)


def test_a_machine_without_git_has_no_revision_and_that_is_all(monkeypatch):
    provenance.git_revision.cache_clear()
    monkeypatch.setenv("PATH", "")
    assert provenance.git_revision() == "unknown"
    provenance.git_revision.cache_clear()


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def test_the_auxiliary_loss_is_recorded_apart(tiny, data, tmp_path):
    """`loss` is the language model's alone, whatever is added for the gradient."""
    settings = {"learning_rate": 1e-30, "weight_decay": 0.0, "global_batch": 20, "epochs": 1}
    record = run(tiny, data, tmp_path / "with", "mofe", router_aux_loss=0.5, **settings)
    without = run(tiny, data, tmp_path / "without", "mofe", **settings)
    (line,), (plain,) = lines(tmp_path / "with"), lines(tmp_path / "without")
    assert record["final_loss"] == line["loss"] == pytest.approx(without["final_loss"], rel=1e-6)
    assert (without["final_auxiliary_loss"], plain["auxiliary_loss"]) == (0.0, 0.0)
    # transformers' own, of each micro-batch, weighted by its answers
    model, tokenizer = load.checkpoint(tiny / "moe2a2b"), load.tokenizer(tiny / "a")
    rows = tokens.tokenize(tokens.read([data]), tokenizer, 64)
    (step,) = tokens.schedule(rows.lengths, 0, 1, 20, 3 * 64, starting=tokens.STARTING["cpu"])
    model.router_aux_loss_coef = 0.5
    theirs = 0.0
    for indices in step:
        batch = tokens.collate(rows, indices, tokenizer.pad_token_id)
        whole = model(**batch, output_router_logits=True).aux_loss.item()
        theirs += 0.5 * whole * sum(rows.answers[i] for i in indices) / sum(rows.answers)
    assert theirs > 0.1
    assert record["final_auxiliary_loss"] == line["auxiliary_loss"] == pytest.approx(theirs, 1e-5)


def interrupted(tiny, files: list[str], out: Path, monkeypatch, calls: int, **training) -> str:
    """A training that gets SIGTERM at its forward pass of this number, and what it then says."""
    forward, seen = loop.AnswerLoss.forward, itertools.count(1)

    def signalled(self, *args, **kwargs):
        if next(seen) == calls:
            os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(loop.AnswerLoss, "forward", signalled)
        with pytest.raises(Interrupted) as stopped:
            train_on(tiny, files, out, **training)
    return str(stopped.value)


def train_on(tiny, files: list[str], out: Path, **training) -> dict:
    train.train_variant(
        merge=str(tiny / "moe2a2b"),
        data=files,
        parents=[],
        chain=[],
        params={"recipe": "mofe", **SETTINGS["mofe"], "training": {**TRAINING, **training}},
        names={"moe": "moe2a2b", "stages": "mofe"},
        seed=0,
        trained=out / "trained.safetensors",
        record=out / "train.json",
        log=out / "log.jsonl",
        checkpoint=out / "checkpoint",
    )
    return json.loads((out / "train.json").read_text())


def test_a_record_lists_the_parts_of_its_training(tiny, data, tmp_path, monkeypatch):
    told = interrupted(tiny, [data], tmp_path, monkeypatch, 5, micro_batch=8)
    done = int(re.search(r"after step (\d) of 6", told)[1])
    monkeypatch.setattr(provenance, "git_revision", lambda: "of another day")
    record = train_on(tiny, [data], tmp_path, micro_batch=8)
    first, second = record["segments"]
    assert record["resumed"] == 1 and 0 < done < 6
    assert (first["first_step"], first["last_step"]) == (1, done)
    assert (second["first_step"], second["last_step"]) == (done + 1, 6)
    assert first["git_revision"] != second["git_revision"] == "of another day"
    assert record["git_revision"] == "of another day", "the record's own is the last"
    parts = [part["device_seconds"] for part in record["segments"]]
    assert all(parts) and sum(parts) == pytest.approx(record["device_seconds"])
    for key in ("versions", "hardware", "processes"):
        assert first[key] == second[key] == record[key]
    (whole,) = train_on(tiny, [data], tmp_path / "whole")["segments"]
    assert (whole["first_step"], whole["last_step"]) == (1, 6)


def test_a_training_does_not_go_on_over_rows_in_another_order(tiny, data, tmp_path, monkeypatch):
    other = shutil.copy(data, tmp_path / "other.parquet")
    table = pq.read_table(data)
    pq.write_table(table.take(list(range(len(table)))[::-1]), other)
    os.utime(other, ns=(os.stat(data).st_mtime_ns,) * 2)
    interrupted(tiny, [data, str(other)], tmp_path / "cut", monkeypatch, 9)
    assert train_on(tiny, [str(other), data], tmp_path / "cut")["resumed"] == 0
    one, two = lines(tmp_path / "cut"), (tmp_path / "whole")
    train_on(tiny, [str(other), data], two)
    assert [line["loss"] for line in one] == [line["loss"] for line in lines(two)]
