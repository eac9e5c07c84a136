"""What only a GPU shows: products in bfloat16, frozen weights in it, 4 bits there, memory there.

Without a GPU all of this is skipped. "No further from float32" is the measure: in bfloat16 nothing is
equal, so this project's losses and gradients are held against how far transformers' own go astray.
"""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_models import METHODS
from test_swiglu import SHAPES, compare
from test_train import run

from mofe.layers import experts, fp8, parameters, swiglu
from mofe.models import devices, load, methods
from mofe.stages import evaluate, export
from mofe.study.methods import Full
from mofe.training import loop, tokens

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


@pytest.fixture
def batch(tiny, data):
    tokenizer = load.tokenizer(tiny / "a")
    rows = tokens.tokenize(tokens.read([data]), tokenizer, 64)
    return tokens.collate(rows, range(12), tokenizer.pad_token_id)


def gradients(model, batch, mixed: bool) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradients on the GPU, in bfloat16 as `fit` computes them, or in float32."""
    model = model.to("cuda")
    with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
        loss = loop.AnswerLoss(model)(**{k: v.to("cuda") for k, v in batch.items()})
    loss.backward()
    return loss.item(), {n: p.grad for n, p in parameters.trained(model).items()}


def apart(found: dict[str, torch.Tensor], exact: dict[str, torch.Tensor], names) -> float:
    """The relative distance of gradients."""
    distance = sum((found[n] - exact[n]).float().square().sum().item() for n in names)
    return (distance / sum(exact[n].float().square().sum().item() for n in names)) ** 0.5


@pytest.mark.parametrize("method", [m for m in METHODS if METHODS[m].held_in != "fp8"])
@pytest.mark.parametrize("merge", ["moe4a", "moe2a2b"])
def test_losses_and_gradients_are_no_further_from_float32_than_transformers(
    tiny, batch, method, merge
):
    def plain():
        model = load.checkpoint(tiny / merge)
        if METHODS[method].is_quantized:
            model = export.with_held_values(model, METHODS[method])
        model = methods.apply(model, Full())
        model.set_experts_implementation("eager")
        return model

    exact, theirs = gradients(plain(), batch, False), gradients(plain(), batch, True)
    for fold in (False, True):
        torch.manual_seed(0)
        ours = methods.apply(load.checkpoint(tiny / merge), METHODS[method])
        if fold:
            experts.fold_duplicates(ours)
        found = gradients(devices.to_device(ours), batch, True)
        assert found[0] == pytest.approx(exact[0], rel=5e-3)
        if names := exact[1].keys() & found[1].keys():
            # frozen weights, and 4-bit ones expanded, are rounded to bfloat16 there as well
            limit = 2 * apart(theirs[1], exact[1], names) + 0.01
            assert apart(found[1], exact[1], names) < limit


@pytest.mark.parametrize("ends", [[20, 50], [0, 50], [50, 50], [1, 2]])
def test_products_in_fp8_are_those_of_the_cpu(ends):
    """The same FP8 values on both; bfloat16 rounds the sums."""
    torch.manual_seed(0)
    matrices = fp8.Fp8Matrices(torch.randn(2, 48, 64))
    x = torch.randn(ends[-1], 64).bfloat16()
    grad = torch.randn(ends[-1], 48).bfloat16()
    ends_E = torch.tensor(ends, dtype=torch.int32)
    expected = matrices.times(x.float(), ends_E), matrices.back(grad.float(), ends_E)
    rounded = matrices.rounded(x.float())
    on_gpu = copy.deepcopy(matrices).to("cuda")
    assert isinstance(on_gpu.scales, fp8.Scales)
    assert torch.equal(on_gpu.weight.cpu(), matrices.weight)
    assert torch.equal(on_gpu.rounded(x.cuda()).cpu().float(), rounded)
    capable = torch.cuda.get_device_capability() in fp8.SCALED_PRODUCTS
    assert fp8.has_scaled_products(x.cuda(), on_gpu.values) == capable
    found = on_gpu.times(x.cuda(), ends_E.cuda()), on_gpu.back(grad.cuda(), ends_E.cuda())
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours.cpu().float(), theirs, rtol=2**-7, atol=1e-3)


@pytest.mark.parametrize("method", ["mofe_fp8", "freeze2_fp8"])
def test_a_model_in_fp8_is_the_cpus(tiny, batch, method):
    """Its loss and gradients in bfloat16 are about as far from those in float32 on the CPU as the
    same method's without FP8 are."""
    found = []
    for chosen in (METHODS[method], METHODS[method].unquantized()):
        cpu = methods.apply(load.checkpoint(tiny / "moe2a2b"), chosen)
        loss = loop.AnswerLoss(cpu)(**batch)
        loss.backward()
        exact = {n: p.grad.cuda() for n, p in parameters.trained(cpu).items()}
        ours = methods.apply(load.checkpoint(tiny / "moe2a2b"), chosen)
        other, low = gradients(devices.to_device(ours), batch, True)
        assert other == pytest.approx(loss.item(), rel=0.02)
        found.append(apart(low, exact, exact.keys()))
    assert found[0] < 2 * found[1] + 0.1


@pytest.mark.parametrize("method", METHODS)
def test_trainings_run_and_what_is_frozen_stays(tiny, data, tmp_path, method):
    record = train_one(tiny, data, tmp_path, method)
    losses = [json.loads(x)["loss"] for x in (tmp_path / "log.jsonl").read_text().splitlines()]
    an_epoch = len(losses) // 4  # steps have other rows, epochs the same
    assert sum(losses[-an_epoch:]) < sum(losses[:an_epoch])
    # train_variant raises where a frozen weight changed
    assert record["peak_memory_bytes"] == pytest.approx(torch.cuda.max_memory_allocated(), rel=0.5)


def test_a_training_is_the_cpus(tiny, data, tmp_path):
    """Up to bfloat16: the losses of every step of the same training there."""
    train_one(tiny, data, tmp_path / "gpu", "freeze1", learning_rate=1e-3)
    call = f"import test_gpu as t; t.train_one(*map(t.Path, {[str(tiny), data, str(tmp_path / 'cpu')]}), "
    subprocess.run(
        [sys.executable, "-c", call + "'freeze1', learning_rate=1e-3)"],
        cwd=Path(__file__).parent,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": path()},
        check=True,
    )
    gpu, cpu = (
        [json.loads(x)["loss"] for x in (tmp_path / d / "log.jsonl").read_text().splitlines()]
        for d in ("gpu", "cpu")
    )
    assert gpu == pytest.approx(cpu, rel=0.02)


def path() -> str:
    return os.pathsep.join(p for p in (str(Path(__file__).parents[1]), *sys.path) if p)


@pytest.mark.parametrize("rows, ffn", [(0, 24), *SHAPES])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_kernels_compute_what_torch_does(rows, ffn, dtype):
    compare(rows, ffn, dtype, "cuda")


def test_the_kernels_are_used():
    assert swiglu.fused(torch.ones(1, 2, device="cuda"))


@pytest.mark.parametrize("method", ["mofe", "lora", "qlora"])
def test_a_trained_model_is_evaluated_as_it_was_trained(tiny, data, tmp_path, batch, method):
    """Its loss by what is read back from disk, in evaluation's form, folded."""
    train_one(tiny, data, tmp_path, method)
    tokenizer = load.tokenizer(tiny / "a")
    model = evaluate.ready(tiny / "moe2a2b", [METHODS[method]], [tmp_path / "trained.safetensors"])
    scorer = evaluate.AnswerScorer(model, tokenizer)
    rows = tokens.tokenize(tokens.read([data]), tokenizer, 64)
    whole = -sum(scorer.loglikelihoods([(ids, len(ids) - 1) for ids in rows.ids[:12]]))
    last = {**batch, "labels": torch.full_like(batch["labels"], tokens.IGNORED)}
    for row, ids in enumerate(rows.ids[:12]):
        last["labels"][row, len(ids) - 1] = ids[-1]
    with torch.no_grad():
        loss = gradientless(model, last)
    assert whole == pytest.approx(loss, rel=0.02)


def test_options_of_one_context_are_read_as_each_alone(tiny):
    scorer = evaluate.AnswerScorer(evaluate.ready(tiny / "moe4a", [], []))
    asked = [([5, 9, 7, *range(12, 12 + i), 20 + i], 3) for i in range(6)]
    alone = [scorer.loglikelihoods([pair])[0] for pair in asked]
    assert scorer.loglikelihoods(asked) == pytest.approx(alone, rel=0.02)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("merge, fold", [("moe4a", True), ("moe2a2b", False), ("moe2a2b", True)])
def test_texts_of_a_recorded_step_are_those_of_its_steps_one_by_one(
    tiny, monkeypatch, method, merge, fold
):
    model = methods.apply(load.checkpoint(tiny / merge), METHODS[method])
    model = devices.to_device(experts.fold_duplicates(model) if fold else model)
    scorer = evaluate.AnswerScorer(model, load.tokenizer(tiny / "a"))
    prompts = [list(range(5, 5 + length)) for length in (3, 9, 4, 17)]
    recorded = []
    graph = torch.cuda.graph
    monkeypatch.setattr(torch.cuda, "graph", lambda g: recorded.append(g) or graph(g))
    texts = scorer.generate(prompts, ["zz"], 40)
    if method == "mofe":
        assert len(recorded) == (merge == "moe4a" or not fold)
    monkeypatch.setattr(experts, "waits_for_gpu", lambda model: True)
    assert scorer.generate(prompts, ["zz"], 40) == texts


def gradientless(model, batch) -> float:
    with torch.autocast("cuda", torch.bfloat16):
        return loop.AnswerLoss(model)(**{k: v.to("cuda") for k, v in batch.items()}).item()


def train_one(tiny, data, out: Path, method: str, **training) -> dict:
    return run(tiny, data, out, method, **{"epochs": 4, **training})
