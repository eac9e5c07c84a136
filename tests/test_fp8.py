"""Frozen experts in FP8: the values of plain torch's casts, and its function's gradients."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_experts import HIDDEN, close, gradients, layer, loss_and_gradients, routed
from test_models import IDS, METHODS, logits
from torch import nn

from mofe import provenance
from mofe.layers import experts, fp8, parameters
from mofe.models import load, methods
from mofe.stages import export
from mofe.study.methods import Full, parse
from mofe.training import loop, parallel, tokens

LARGEST = torch.finfo(torch.float8_e4m3fn).max
DENSE = parse({"method": "freeze", "frozen": "all", "quantize": "fp8"})


def held(x: torch.Tensor) -> torch.Tensor:
    """x after FP8 with a power of two per row, by a cast and Python's own numbers."""
    rows = x.detach().reshape(-1, x.shape[-1])
    scales = []
    for row in rows.double():
        scale = 1.0
        while (largest := row.abs().max().item()) > LARGEST * scale:
            scale *= 2
        while largest and largest <= LARGEST * scale / 2:
            scale /= 2
        scales.append([scale])
    scales = torch.tensor(scales, dtype=torch.float64)
    values = (rows.double() / scales).float().to(torch.float8_e4m3fn)
    return (values.double() * scales).to(x.dtype).view(x.shape)


def read(x: torch.Tensor) -> torch.Tensor:
    """x as a product reads it; gradients pass straight through."""
    return x + (held(x) - x).detach()


class Plain(nn.Module):
    """A layer's experts, the first `frozen` in FP8, token by token, differentiated by autograd."""

    def __init__(self, packed, frozen: int):
        super().__init__()
        self.gate_up, self.down = packed.gate_up_proj, packed.down_proj
        self.frozen, self.act_fn = frozen, packed.act_fn

    def forward(self, x, index, weights):
        rows = []
        for token, chosen, by in zip(x, index, weights, strict=True):
            rows.append(sum(w * self.expert(e, token) for e, w in zip(chosen, by, strict=True)))
        return torch.stack(rows)

    def expert(self, e: int, token: torch.Tensor) -> torch.Tensor:
        still = e < self.frozen
        gate_up, down = self.gate_up[e], self.down[e]
        if still:
            gate_up, down, token = held(gate_up), held(down), read(token)
        gate, up = (gate_up @ token).chunk(2)
        act = self.act_fn(gate) * up
        return down @ (read(act) if still else act)


floats = st.floats(-1e6, 1e6, width=32).filter(lambda x: x == 0 or abs(x) > 1e-20)


@given(st.lists(floats, min_size=1, max_size=20))
def test_values_are_those_of_a_cast(numbers):
    x = torch.tensor([numbers])
    values, exponents = fp8.rounded(x)
    found = fp8.expanded(values, exponents, torch.float32)
    assert torch.equal(found, held(x))
    assert torch.equal(fp8.expanded(values, exponents, torch.bfloat16).float(), found), "exact"
    assert (found - x).abs().max() <= x.abs().max() / 16
    again = fp8.expanded(*fp8.rounded(found), torch.float32)
    assert torch.equal(again, found), "what is rounded stays"


@pytest.mark.parametrize("power", [-149, -126, -101, -92, -91, 0, 8, 9, 127])
@pytest.mark.parametrize("largest", [1.0, 1.75, 1.7500001, 1.9999999])
def test_the_least_scale_that_holds_a_row_is_taken(power, largest):
    x = torch.tensor([[largest, -0.3]]) * 2.0**power
    if not x[0, 0]:
        return
    values, exponents = fp8.rounded(x)
    scale = fp8.power(exponents).item()
    assert math.log2(scale).is_integer()
    assert x[0, 0] / scale <= LARGEST and x[0, 0].isfinite()
    assert scale == 2.0**-100 or x[0, 0] / (scale / 2) > LARGEST
    assert values.float().isfinite().all()


@pytest.mark.parametrize("damage", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_not_finite_stays_so(damage):
    x = torch.ones(2, 16)
    x[0, 3] = damage
    found = fp8.expanded(*fp8.rounded(x), torch.float32)
    assert found[0].isnan().any() and torch.equal(found[1], x[1])
    out = fp8.Fp8Linear(torch.ones(16, 16))(x)
    assert out[0].isnan().all() and torch.equal(out[1], torch.full((16,), 16.0))


def whole(x: torch.Tensor) -> torch.Tensor:
    """Numbers from -31 to 31, of which FP8 has every one up to 16 and then every second."""
    return (x * 40).round().clamp(-31, 31) / 32


kinds = st.lists(st.integers(0, 2), min_size=2, max_size=4)


@settings(max_examples=15, deadline=None)
@given(kinds, st.integers(1, 12), st.integers(0, 99), st.data())
def test_experts_compute_what_plain_torch_does(kinds, rows, seed, data):
    """Outputs, gradients of tokens, router and trained experts; equal experts held once or not.

    Tokens and the first matrices are whole numbers of which FP8 rounds half: their products have
    no rounding, by which the order of a sum could decide between two FP8 values.
    """
    packed = layer(kinds)
    packed.gate_up_proj.data = whole(packed.gate_up_proj.data)
    frozen = data.draw(st.integers(1, len(kinds)))
    x, index, weights = routed(rows, len(kinds), seed)
    inputs = whole(x.detach()), index, weights
    plain = Plain(copy.deepcopy(packed), frozen)
    expected = gradients(plain, *inputs)
    for fold in (False, True):
        ours = experts.SplitExperts.partly(packed, range(frozen), held_in="fp8")
        if fold:
            ours.fold_duplicates()
            assert len(ours.stacks[0]) == len(set(kinds[:frozen]))
        close(gradients(ours, *inputs), expected)
        still, *moved = ours.stacks
        assert torch.equal(still.gate_up[0], held(packed.gate_up_proj[0]))
        assert torch.equal(still.down[0], held(packed.down_proj[0]))
        if moved and plain.down.grad is not None:  # some token chose them
            close([moved[0].gate_up.grad], [plain.gate_up.grad[frozen:]])
            close([moved[0].down.grad], [plain.down.grad[frozen:]])


def test_the_routers_gradient_is_that_of_what_was_computed():
    """Not of the activations before they are rounded."""
    packed, inputs = layer([0, 1]), routed(30, 2, 1)
    expected = gradients(Plain(packed, 2), *inputs)[2]
    ours = experts.SplitExperts.partly(packed, range(2), held_in="fp8")
    assert torch.allclose(gradients(ours, *inputs)[2], expected, atol=1e-5)
    ours.stacks[0].downs.rounds = False
    assert not torch.allclose(gradients(ours, *inputs)[2], expected, atol=1e-3)


@pytest.fixture(scope="module")
def batch(tiny):
    tokenizer = load.tokenizer(tiny / "a")
    words = sorted(w for w in tokenizer.get_vocab() if w.isalpha())
    pairs = [(" ".join(words[i : i + 3 + i % 5]), " " + words[i + 9]) for i in range(6)]
    rows = tokens.tokenize(pairs, tokenizer, 64)
    return tokens.collate(rows, range(6), tokenizer.pad_token_id)


@pytest.mark.parametrize("method", ["mofe_fp8", "freeze2_fp8"])
def test_a_mixtures_loss_and_gradients_are_plain_torchs(tiny, batch, method):
    plain = methods.apply(load.checkpoint(tiny / "moe2a2b"), Full())
    frozen = len(METHODS[method].frozen_slots(4))
    for block in plain.model.layers:
        block.mlp.experts = Plain(block.mlp.experts, frozen)
    expected = loss_and_gradients(plain, batch)
    ours = methods.apply(load.checkpoint(tiny / "moe2a2b"), METHODS[method])
    found = loss_and_gradients(ours, batch)
    assert found[0] == pytest.approx(expected[0], rel=1e-4)
    shared = [n for n in found[1] if ".experts." not in n]
    assert any("gate.weight" in n for n in shared) and len(shared) > 10
    for name in shared:
        assert apart(found[1][name], expected[1][name]) < 0.01, name


class PlainLinear(nn.Linear):
    def forward(self, x):
        return read(x) @ held(self.weight).T


def test_a_dense_models_loss_and_gradients_are_plain_torchs(tiny, batch):
    plain = methods.apply(load.checkpoint(tiny / "a"), Full())
    for block in plain.model.layers:
        for name in ("gate_proj", "up_proj", "down_proj"):
            getattr(block.mlp, name).__class__ = PlainLinear
    expected = loss_and_gradients(plain, batch)
    ours = methods.apply(load.checkpoint(tiny / "a"), DENSE)
    assert sum(isinstance(m, fp8.Fp8Linear) for m in ours.modules()) == 2 * 3
    found = loss_and_gradients(ours, batch)
    assert found[0] == pytest.approx(expected[0], rel=1e-4)
    for name, gradient in found[1].items():
        assert apart(gradient, expected[1][name]) < 0.01, name


class Unrounded(fp8.Fp8Matrices):
    """The same matrices, by products that read their inputs as they are."""

    rounds = False

    def rounded(self, x: torch.Tensor) -> torch.Tensor:
        return x


def unrounded(model: nn.Module) -> nn.Module:
    """The model, whose products with matrices in FP8, if it has any, read their inputs as an
    export's do."""
    for module in model.modules():
        if isinstance(module, fp8.Fp8Matrices):
            module.__class__ = Unrounded
    return model


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """Their relative distance. A value next to the middle of two of FP8's can be rounded to either,
    after sums in another order."""
    return ((a - b).norm() / b.norm().clamp(min=1e-6)).item()


@pytest.mark.parametrize("method", ["mofe_fp8", "freeze2_fp8"])
def test_a_quantised_tensor_counts_as_its_weights_and_its_hash_has_its_scales(tiny, method):
    plain = load.checkpoint(tiny / "moe2a2b")
    ours = methods.apply(load.checkpoint(tiny / "moe2a2b"), METHODS[method])
    assert parameters.total(ours) == parameters.total(plain)
    assert parameters.is_quantized(ours) and not parameters.is_quantized(plain)
    before = provenance.hash_tensors(parameters.frozen(ours))
    scales = next(p for p in ours.parameters() if isinstance(p, fp8.Scales))
    scales.data[0, 0] += 1
    assert provenance.hash_tensors(parameters.frozen(ours)) != before
    scales.data[0, 0] = fp8.NOT_FINITE
    with pytest.raises(loop.DamagedModel, match=r"gate_ups\.scales"):
        loop._refuse_damaged(ours)
    with pytest.raises(ValueError, match="a stage cannot follow a quantised one"):
        methods.merge_and_unload(ours)
    with pytest.raises(ValueError, match="cannot be shared out among GPUs"):
        parallel.prepare(ours, None, "fsdp")


def test_equal_values_with_other_scales_are_other_experts():
    equal = layer([0, 0])
    equal.gate_up_proj.data[1] *= 2
    ours = experts.SplitExperts.partly(equal, range(2), held_in="fp8")
    assert torch.equal(*ours.stacks[0].gate_ups.values)
    ours.fold_duplicates()
    assert len(ours.stacks[0]) == 2


def test_an_export_has_the_values_and_reads_its_inputs_unrounded(tiny):
    plain = load.checkpoint(tiny / "moe2a2b")
    found = export.with_held_values(load.checkpoint(tiny / "moe2a2b"), METHODS["mofe_fp8"])
    for a, b in zip(found.model.layers, plain.model.layers, strict=True):
        assert torch.equal(a.mlp.experts.down_proj, held(b.mlp.experts.down_proj))
    ours = methods.apply(load.checkpoint(tiny / "moe2a2b"), METHODS["mofe_fp8"])
    off = (logits(ours, IDS) - logits(found, IDS)).abs().max()
    assert 0 < off < 0.2 * logits(found, IDS).abs().max()
    assert torch.allclose(logits(unrounded(ours), IDS), logits(found, IDS), atol=1e-4)


def test_torch_takes_the_layout_of_the_scaled_product():
    """Checked by torch itself, on the meta device: no value is computed."""
    matrices = fp8.Fp8Matrices(layer([0, 1]).down_proj.detach()[:, :, :16]).to("meta")
    values = torch.empty(10, 16, dtype=torch.float8_e4m3fn, device="meta")
    exponents = torch.empty(10, dtype=torch.int32, device="meta")
    ends = torch.empty(2, dtype=torch.int32, device="meta")
    out = fp8.scaled_product(values, exponents, matrices, ends)
    assert out.shape == (10, HIDDEN) and out.dtype == torch.bfloat16
    wrong = torch.empty(9, dtype=torch.int32, device="meta")
    with pytest.raises(RuntimeError, match="scale_a"):
        fp8.scaled_product(values, wrong, matrices, ends)
