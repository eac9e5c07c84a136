"""Several processes are one: the same rows, losses and weights, replicated or sharded; and a training
that was interrupted is the training that was not."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import HOLD, ROOT, TRAINING, hold, logged
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from test_models import METHODS, SETTINGS

from mofe.jobs.job import Job
from mofe.layers import experts, parameters
from mofe.models import load, methods
from mofe.stages import train
from mofe.training import loop, parallel, tokens
from mofe.training.checkpoint import Checkpoint
from mofe.training.signals import Interrupted

CASES = [
    ("full", "ddp"),
    ("full", "fsdp"),
    ("mofe", "ddp"),
    ("mofe", "fsdp"),
    ("freeze3", "ddp"),
    ("freeze3", "fsdp"),
    ("freeze_any", "ddp"),
    ("unfreeze", "ddp"),
    ("unfreeze", "fsdp"),
    ("lora", "ddp"),
    ("lora", "fsdp"),
    ("dora", "ddp"),
    ("qlora", "ddp"),
    ("ia3", "ddp"),
    ("ia3", "fsdp"),
    ("lora_also", "fsdp"),
    ("lora_experts", "ddp"),
    ("lora_experts", "fsdp"),
    ("qlora_all", "ddp"),
    ("norms_experts", "ddp"),
    ("attention", "fsdp"),
    ("router", "ddp"),
]
# Small enough a rate that rounding, of which Adam makes steps, does not decide. The router's auxiliary
# loss balances each micro-batch, and two processes cut a step into others than one does: so a little.
GENTLE = {"learning_rate": 1e-3, "micro_batch": 3, "router_aux_loss": 0.001, "record_router": 2}


def arguments(tiny: Path, data: str, out: Path, method: str, sharding: str, **training) -> dict:
    return {
        "merge": str(tiny / "moe2a2b"),
        "data": [data],
        "parents": [],
        "chain": [],
        "params": {"recipe": method, **SETTINGS[method], "training": {**TRAINING, **training}},
        "names": {"moe": "moe2a2b", "stages": method},
        "seed": 0,
        "trained": out / "trained.safetensors",
        "record": out / "train.json",
        "log": out / "log.jsonl",
        "checkpoint": out / "checkpoint",
        "sharding": sharding,
    }


def train_all(calls: list[dict], dense: dict) -> str:
    """What each process of the test's job does: one training after the other."""
    ranks = range(parallel.processes())
    assert parallel.summed(parallel.rank() + 0.5) == sum(rank + 0.5 for rank in ranks)
    for call in calls:
        train.train_variant(**call)
    return train.train_dense(**dense)


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]


def start(function: str, processes: int, printed: Path, **given) -> subprocess.Popen:
    """A job in several processes, started as a script does."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}:{HOLD}",
        "CUDA_VISIBLE_DEVICES": "",
    }
    code = (
        "import pickle, sys; from mofe.jobs import launch;"
        "sys.exit(launch.start(pickle.load(sys.stdin.buffer), int(sys.argv[1])))"
    )
    job = Job(function, given, "it", log=str(printed), environment=environment, folder=str(ROOT))
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(processes)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        cwd=ROOT,
    )
    child.stdin.write(pickle.dumps(job))
    child.stdin.close()
    return child


@pytest.fixture(scope="module")
def both(tiny, data, tmp_path_factory) -> Path:
    """Every case trained by one process (one/) and by two (two/)."""
    root = tmp_path_factory.mktemp("parallel")
    dense = {
        "origin": str(tiny / "a"),
        "data": [data],
        "params": {"recipe": "full", "method": "full", "training": {**TRAINING, **GENTLE}},
        "name": "dense",
        "seed": 0,
    }

    def calls(count: str) -> tuple[list[dict], dict]:
        out = root / count
        many = [
            arguments(tiny, data, out / f"{m}-{s}", m, s if count == "two" else "none", **GENTLE)
            for m, s in CASES
        ]
        sharding = "fsdp" if count == "two" else "none"
        one = {**dense, "out": out / "dense", "checkpoint": out / "c", "sharding": sharding}
        return many, one

    train_all(*calls("one"))
    many, one = calls("two")
    child = start("test_parallel:train_all", 2, root / "log", calls=many, dense=one)
    told = child.stderr.read().decode()
    assert child.wait() == 0, told + (root / "log").read_text()
    assert "parameters trained" in told and "by 2 processes" in told
    return root


@pytest.mark.parametrize("method, sharding", CASES)
def test_two_processes_compute_what_one_does(both, tiny, method, sharding):
    one, two = both / "one" / f"{method}-{sharding}", both / "two" / f"{method}-{sharding}"
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    records = [json.loads((out / "train.json").read_text()) for out in (one, two)]
    counts = ("steps", "rows", "tokens", "answer_tokens", "trainable_parameters", "flops")
    counts += ("unfrozen",) if method == "unfreeze" else ()
    assert records[0]["drift"] == pytest.approx(records[1]["drift"], rel=1e-2)
    for key in (*counts, "config_hash"):
        assert records[0][key] == records[1][key], key
    assert (records[1]["processes"], records[1]["sharding"]) == (2, sharding)
    assert records[0]["device_seconds"] == records[0]["seconds"]
    assert records[1]["device_seconds"] == pytest.approx(2 * records[1]["seconds"])
    assert records[0]["frozen_sha256"] == records[1]["frozen_sha256"]
    apart_little(one / "trained.safetensors", two / "trained.safetensors", tiny, method)


@pytest.mark.parametrize("method, sharding", CASES)
def test_two_processes_record_the_routers_of_both(both, method, sharding):
    first = [
        json.loads((both / count / f"{method}-{sharding}/log.jsonl").read_text().splitlines()[0])
        for count in ("one", "two")
    ]
    for one, two in zip(*(line["router"] for line in first), strict=True):
        assert one["tokens"] == two["tokens"]
        for key in one:
            assert one[key] == pytest.approx(two[key], abs=1e-4), key


def apart_little(one: Path, two: Path, tiny: Path, method: str) -> None:
    """The weights are apart by a small part of what they moved: where a gradient is nearly zero,
    Adam turns its rounding into a step."""
    torch.manual_seed(0)
    start = parameters.trained(methods.apply(load.checkpoint(tiny / "moe2a2b"), METHODS[method]))
    one, two = load_file(one), load_file(two)
    assert one.keys() == two.keys() == start.keys()
    moved = sum((one[n] - start[n].detach()).abs().sum().item() for n in one)
    apart = sum((one[n] - two[n]).abs().sum().item() for n in one)
    assert moved > 0 and apart < 0.02 * moved


def test_a_sharded_dense_expert_is_stored_whole(both):
    one, two = (load.checkpoint(both / count / "dense") for count in ("one", "two"))
    assert one.state_dict().keys() == two.state_dict().keys()
    ids = torch.arange(3, 23)[None]
    with torch.inference_mode():
        assert torch.allclose(one(ids).logits, two(ids).logits, atol=1e-3)


steps = st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=4), min_size=1, max_size=20)


@given(steps, st.integers(1, 9))
def test_a_step_is_dealt_out_evenly_and_whole(step, processes):
    shares = [parallel.assign(step, processes, rank) for rank in range(processes)]
    assert len({len(share) for share in shares}) == 1, "all take part in every round"
    counted = [batch for share in shares for batch, counts in share if counts]
    assert sorted(counted) == sorted(step)
    assert all(len(batch) == 1 for share in shares for batch, counts in share if not counts)
    rounds = list(zip(*shares, strict=True))
    in_order = [batch for places in rounds for batch, counts in places if counts]
    assert in_order == step, "rows of like length are computed at the same time"


def test_rows_that_do_not_count_have_no_loss_and_reach_every_parameter(tiny, data):
    """A process that idles computes a gradient of zero for all that is trained."""
    tokenizer = load.tokenizer(tiny / "a")
    rows = tokens.tokenize(tokens.read([data]), tokenizer, 64)
    for method in ("full", "mofe", "freeze3", "lora", "dora", "ia3", "lora_experts", "router"):
        model = methods.apply(load.checkpoint(tiny / "moe2a2b"), METHODS[method])
        loss = loop.AnswerLoss(model, 0.01)(**tokens.collate(rows, [0], 0, counts=False))
        loss.backward()
        assert loss.item() == 0
        assert all(
            p.grad is not None and not p.grad.any() for p in parameters.trained(model).values()
        ), method


def test_trained_experts_are_multiplied_in_the_precision_of_autocast(tiny):
    """Packed experts in float32 give gradients in float32, by products in bfloat16."""
    model = load.checkpoint(tiny / "moe2a2b")
    assert model.config._experts_implementation == experts.GROUPED
    layer = model.model.layers[0].mlp.experts
    torch.manual_seed(0)
    x, chosen = torch.randn(6, 64), torch.tensor([[0, 1], [2, 3]]).repeat(3, 1)
    weights = torch.full((6, 2), 0.5)
    plain = layer(x, chosen, weights)
    with torch.autocast("cpu", torch.bfloat16):
        low = layer(x.bfloat16(), chosen, weights)
        low.float().sum().backward()
    assert low.dtype == torch.bfloat16
    assert torch.allclose(low.float(), plain, atol=0.02) and not torch.equal(low.float(), plain)
    assert layer.gate_up_proj.grad.dtype == torch.float32 and layer.gate_up_proj.grad.any()


# ---------------------------------------------------------------------------- interruptions

EPOCHS = {"epochs": 6, "micro_batch": 2}  # 18 steps


def interrupt(call: dict, number: signal.Signals, after: int) -> None:
    """Train here until the signal comes, after so many steps."""
    due = Checkpoint.due

    def signalled(self):
        if logged(call["checkpoint"]) == after:
            signal.raise_signal(number)
        return due(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Checkpoint, "due", signalled)
        with pytest.raises(Interrupted, match=f"stopped by {number.name} after step {after} of 18"):
            train.train_variant(**call)
    assert not call["trained"].exists() and not call["record"].exists()


@pytest.mark.parametrize(
    "method",
    [
        "full",
        "freeze3",
        "unfreeze",
        "lora",
        "qlora",
        "ia3",
        "lora_also",
        "lora_experts",
        "attention",
    ],
)
def test_an_interrupted_training_is_the_uninterrupted_one(tiny, data, tmp_path, method):
    """Bit for bit, dropout included, through SIGTERM and then SIGUSR1."""
    settings = {**SETTINGS[method], **({"dropout": 0.2} if "lora" in method else {})}
    calls = {
        name: arguments(tiny, data, tmp_path / name, method, "none", **EPOCHS)
        for name in ("whole", "cut")
    }
    for call in calls.values():
        call["params"] = {**call["params"], **settings}
    train.train_variant(**calls["whole"])
    cut = calls["cut"]
    interrupt(cut, signal.SIGTERM, after=5)
    interrupt(cut, signal.SIGUSR1, after=11)
    progress = json.loads((cut["checkpoint"] / "step-11/progress.json").read_text())["progress"]
    train.train_variant(**cut)
    assert cut["trained"].read_bytes() == calls["whole"]["trained"].read_bytes()
    whole, record = (json.loads(calls[n]["record"].read_text()) for n in ("whole", "cut"))
    assert (whole["resumed"], record["resumed"]) == (0, 2)
    for clock in ("seconds", "cpu_seconds"):
        assert 0 < progress[clock] < record[clock], "what was computed before counts too"
    for key in ("steps", "tokens", "answer_tokens", "final_loss", "frozen_sha256", "config_hash"):
        assert whole[key] == record[key]
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_a_training_stopped_in_its_first_step_starts_anew(tiny, data, tmp_path, monkeypatch):
    """There is nothing to go on from yet: what is saved would be no checkpoint."""
    call = arguments(tiny, data, tmp_path, "mofe", "none", **EPOCHS)
    forward = loop.AnswerLoss.forward

    def signalled(self, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGTERM)
        return forward(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(loop.AnswerLoss, "forward", signalled)
        with pytest.raises(Interrupted, match="stopped by SIGTERM after step 0 of 18"):
            train.train_variant(**call)
    (call["checkpoint"] / "partial-1").mkdir()  # of a save that was cut off
    train.train_variant(**call)
    record = json.loads(call["record"].read_text())
    assert (record["steps"], record["resumed"]) == (18, 0)
    assert not (call["checkpoint"] / "partial-1").exists()


def test_a_process_that_fails_ends_them_all(tiny, data, tmp_path):
    call = arguments(tiny, data, tmp_path, "mofe", "ddp", **EPOCHS)
    child = start("test_parallel:fail_in_one", 2, tmp_path / "log", call=call)
    told = child.stderr.read().decode()
    assert child.wait() != 0
    assert "RuntimeError: out of memory" in told


def fail_in_one(call: dict) -> str:
    """Train, but for the second process, which fails at its third micro-batch."""
    forward, seen = loop.AnswerLoss.forward, iter(range(99))

    def failing(self, *args, **kwargs):
        if parallel.rank() and next(seen) == 2:
            raise RuntimeError("out of memory")
        return forward(self, *args, **kwargs)

    loop.AnswerLoss.forward = failing
    return train.train_variant(**call)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_several_processes_stop_together_and_another_number_goes_on(tiny, data, tmp_path, number):
    """Two processes with shards save on a signal; one process without shards goes on from there."""
    whole = arguments(tiny, data, tmp_path / "whole", "full", "none", **{**EPOCHS, **GENTLE})
    train.train_variant(**whole)
    cut = arguments(tiny, data, tmp_path / "cut", "full", "fsdp", **{**EPOCHS, **GENTLE})
    hold(cut["checkpoint"], 5)
    child = start("mofe.stages.train:train_variant", 2, tmp_path / "log", **cut)
    hangs = time.monotonic() + 3600
    while logged(cut["checkpoint"]) < 5:
        assert time.monotonic() < hangs
        assert child.poll() is None, child.stderr.read().decode()
        time.sleep(0.05)
    child.send_signal(number)
    told = child.stderr.read().decode()
    assert re.search(r"stopped by \w+ .*after step 5 of 18", told), told
    assert child.wait() != 0
    assert not cut["trained"].exists() and not cut["record"].exists()
    train.train_variant(**{**cut, "sharding": "none"})
    record = json.loads(cut["record"].read_text())
    assert record["resumed"] == 1
    assert losses(tmp_path / "cut") == pytest.approx(losses(tmp_path / "whole"), rel=0.02)


def test_a_checkpoint_of_another_training_is_not_continued(tiny, data, tmp_path):
    call = arguments(tiny, data, tmp_path, "mofe", "none", **EPOCHS)
    interrupt(call, signal.SIGTERM, after=3)
    assert list(call["checkpoint"].glob("step-*"))
    other = arguments(tiny, data, tmp_path, "mofe", "none", **{**EPOCHS, "weight_decay": 0.5})
    train.train_variant(**other)
    assert json.loads(other["record"].read_text())["resumed"] == 0

    call["trained"].unlink(), call["record"].unlink()
    interrupt(call, signal.SIGTERM, after=3)
    os.utime(data, (1, 1))  # times are no proof of anything
    train.train_variant(**call)
    assert json.loads(call["record"].read_text())["resumed"] == 1
