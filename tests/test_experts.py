"""The expert layer: equal to transformers' own in what it computes, and cheaper where it is frozen."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_models import METHODS, QKVO
from torch import nn
from transformers import MixtralConfig
from transformers.models.mixtral.modeling_mixtral import MixtralExperts

from mofe.layers import experts, nf4, parameters, products, swiglu
from mofe.models import load, methods
from mofe.stages import export
from mofe.study.methods import Full
from mofe.training import loop, tokens

HIDDEN, FFN = 16, 24


def layer(kinds: list[int], implementation: str = "eager") -> MixtralExperts:
    """A layer with one expert an entry; equal entries are equal experts."""
    config = MixtralConfig(
        hidden_size=HIDDEN,
        intermediate_size=FFN,
        num_local_experts=len(kinds),
        num_experts_per_tok=2,
    )
    config._experts_implementation = implementation
    made = MixtralExperts(config)
    for parameter in made.parameters():
        torch.manual_seed(parameter.shape[-1])
        drawn = 0.3 * torch.randn(max(kinds) + 1, *parameter.shape[1:])
        parameter.data = drawn[kinds].clone()
    return made


def routed(rows: int, number: int, seed: int, k: int = 2):
    """Tokens, the experts that each chooses (sometimes one that no token does), and the weights."""
    torch.manual_seed(seed)
    x = torch.randn(rows, HIDDEN, requires_grad=True)
    logits = torch.randn(rows, number)
    logits[:, seed % number] -= 100.0 * (seed % 3 == 0 and number > k)
    weights, index = logits.softmax(-1).topk(k)
    weights = (weights / weights.sum(-1, keepdim=True)).requires_grad_()
    return x, index, weights


def gradients(module, x, index, weights) -> tuple[torch.Tensor, ...]:
    """The output, and the gradients of the tokens and of the router's weights."""
    x, weights = x.detach().requires_grad_(), weights.detach().requires_grad_()
    torch.manual_seed(0)
    out = module(x, index, weights)
    (out * torch.randn_like(out)).sum().backward()
    return out.detach(), x.grad, weights.grad


def close(ours, theirs) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, atol=2e-5), (a - b).abs().max()


kinds = st.lists(st.integers(0, 3), min_size=2, max_size=6)


@settings(max_examples=30, deadline=None)
@given(kinds, st.integers(1, 40), st.integers(0, 99), st.data())
def test_every_split_computes_what_transformers_does(kinds, rows, seed, data):
    """Outputs, gradients of tokens and router, and of the trained experts."""
    plain = layer(kinds)
    inputs = routed(rows, len(kinds), seed)
    expected = gradients(plain, *inputs)
    packed = layer(kinds, experts.GROUPED)
    close(gradients(packed, *inputs), expected)
    close([p.grad for p in packed.parameters()], [p.grad for p in plain.parameters()])
    slots = st.sets(st.integers(0, len(kinds) - 1), min_size=1, max_size=len(kinds) - 1)
    frozen = sorted(data.draw(slots))
    trained = [slot for slot in range(len(kinds)) if slot not in frozen]
    apart = data.draw(st.sets(st.sampled_from(trained), max_size=len(trained) - 1).map(sorted))
    for fold in (False, True):
        split = experts.SplitExperts.partly(packed, frozen, [apart] if apart else [])
        if fold:
            split.fold_duplicates()
        close(gradients(split, *inputs), expected)
        still, *moved = split.stacks
        assert still.gate_up.grad is None and still.down.grad is None
        groups = [[slot for slot in trained if slot not in apart], apart]
        for stack, group in zip(moved, filter(None, groups), strict=True):
            close(
                [stack.gate_up.grad, stack.down.grad], [p.grad[group] for p in plain.parameters()]
            )
            assert split.holders(group) == [stack]
        assert len(still) == (len({kinds[slot] for slot in frozen}) if fold else len(frozen))
        like = split.packed(like=MixtralExperts(plain.config))
        assert all(map(torch.equal, like.parameters(), plain.parameters()))


@settings(max_examples=20, deadline=None)
@given(kinds, st.integers(1, 40), st.integers(0, 99))
def test_folding_frozen_experts_is_exact(kinds, rows, seed):
    plain = layer(kinds)
    inputs = routed(rows, len(kinds), seed)
    frozen = layer(kinds, experts.GROUPED).requires_grad_(False)
    folded = experts.fold_duplicates(Holder(frozen)).experts
    assert len(folded.stacks[0]) == len(set(kinds))
    close(gradients(folded, *inputs), gradients(plain, *inputs))


class Holder(nn.Module):
    """What holds a layer's experts."""

    def __init__(self, experts: nn.Module):
        super().__init__()
        self.experts = experts


@pytest.mark.parametrize("kinds", [[0, 0, 0, 0], [0, 0, 1, 1], [0, 1, 2, 3]])
def test_nf4_experts_fold_too(kinds):
    quantized = experts.SplitExperts.partly(layer(kinds), range(4), held_in="nf4")
    inputs = routed(20, 4, 1)
    expected = gradients(quantized, *inputs)
    assert isinstance(quantized.stacks[0], experts.QuantizedStack)
    quantized.fold_duplicates()
    assert len(quantized.stacks[0]) == len(set(kinds))
    close(gradients(quantized, *inputs), expected)


def test_nf4_weights_stay_when_their_scales_are_expanded():
    quantized = experts.SplitExperts.partly(layer([0, 1, 2, 3]), range(4), held_in="nf4")
    layers = [*quantized.stacks[0].gate_ups, *quantized.stacks[0].downs]
    before = [nf4.expanded(linear) for linear in layers]
    assert all(linear.weight.quant_state.nested for linear in layers)
    nf4.compute_4bit_in(quantized, torch.float32)
    assert not any(linear.weight.quant_state.nested for linear in layers)
    assert all(map(torch.equal, map(nf4.expanded, layers), before))
    nf4.compute_4bit_in(quantized, torch.bfloat16)
    assert nf4.expanded(layers[0]).dtype == torch.bfloat16


def test_equal_codes_with_other_scales_are_other_experts():
    equal = layer([0, 0])
    equal.gate_up_proj.data[1] *= 2
    quantized = experts.SplitExperts.partly(equal, range(2), held_in="nf4")
    quantized.fold_duplicates()
    assert len(quantized.stacks[0]) == 2


def kept(module, x, index, weights) -> int:
    """Bytes that a forward pass keeps for backward, the module's own weights aside."""
    own = {p.untyped_storage().data_ptr() for p in module.parameters()}
    seen = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = module(x, index, weights)
    assert out.requires_grad
    return sum(seen.values())


def test_what_is_frozen_keeps_no_activation_for_its_weights():
    x, index, weights = routed(400, 4, 1)
    pairs, small = 800, 24_000  # indices and the router's weights
    frozen = experts.SplitExperts.partly(layer([0, 1, 2, 3]), range(3))
    stack = frozen.stacks[0].requires_grad_(False)
    alone = experts.SplitExperts([stack], swiglu.SILU)
    index = index % 3
    gates = 4 * pairs * 2 * FFN
    assert gates <= kept(alone, x, index, weights) <= gates + small
    moved = experts.Stack(stack.gate_up.data, stack.down.data, True)
    trained = experts.SplitExperts([moved], swiglu.SILU)
    inputs = 4 * pairs * HIDDEN
    assert gates + inputs <= kept(trained, x, index, weights) <= gates + inputs + small
    assert kept(layer([0, 1, 2, 3]), x, index, weights) > 1.5 * (gates + inputs)


@pytest.mark.parametrize("frozen", [0, 1, 2, 3, 4])
def test_k_of_4_experts_cost_what_k_of_4_should(frozen):
    """Of a step's products a trained expert has three times, a frozen one twice those of forward."""
    x, index, weights = routed(400, 4, 2)
    share = torch.bincount(index.flatten(), minlength=4)
    packed = layer([0, 1, 2, 3], experts.GROUPED)
    module = packed if frozen == 0 else experts.SplitExperts.partly(packed, range(min(frozen, 3)))
    if frozen == 4:
        module = experts.fold_duplicates(Holder(packed.requires_grad_(False))).experts
    assert spent(module, x, index, weights) == pytest.approx(
        2 * 3 * HIDDEN * FFN * (2 * share.sum() + share[frozen:].sum()).item()
    )


def spent(module, x, index, weights) -> int:
    """FLOPs of forward and backward, counted as the products that they are made of."""
    total = 0

    def product(a, b, *, offs):
        nonlocal total
        rows = [e - s for s, e in itertools.pairwise([0, *offs.tolist()])]
        if b.ndim == 3:
            total += sum(2 * r * b.shape[1] * b.shape[2] for r in rows)
        else:
            total += sum(2 * r * a.shape[0] * b.shape[1] for r in rows)
        return grouped(a, b, offs=offs)

    grouped, experts.F.grouped_mm = experts.F.grouped_mm, product
    try:
        module(x, index, weights).sum().backward()
    finally:
        experts.F.grouped_mm = grouped
    return total


@pytest.fixture(scope="module")
def batch(tiny):
    tokenizer = load.tokenizer(tiny / "a")
    words = sorted(w for w in tokenizer.get_vocab() if w.isalpha())  # in another order each time
    pairs = [(" ".join(words[i : i + 3 + i % 5]), " " + words[i + 9]) for i in range(12)]
    rows = tokens.tokenize(pairs, tokenizer, 64)
    return tokens.collate(rows, range(12), tokenizer.pad_token_id)


@pytest.mark.parametrize("method", [m for m in METHODS if METHODS[m].held_in != "fp8"])
@pytest.mark.parametrize("merge", ["moe4a", "moe2a2b"])
def test_losses_and_gradients_are_the_plain_hugging_face_paths(tiny, batch, method, merge):
    """Of the whole model, with every method, folded and not."""
    plain = load.checkpoint(tiny / merge)
    if METHODS[method].is_quantized:  # the plain path has the values that NF4 stands for
        plain = export.with_held_values(plain, METHODS[method])
    plain = methods.apply(plain, Full())
    plain.set_experts_implementation("eager")
    expected = loss_and_gradients(plain, batch)
    for fold in (False, True):
        torch.manual_seed(0)
        ours = methods.apply(load.checkpoint(tiny / merge), METHODS[method])
        if fold:
            experts.fold_duplicates(ours)
        found = loss_and_gradients(ours, batch)
        assert found[0] == pytest.approx(expected[0], rel=1e-5)
        shared = expected[1].keys() & found[1].keys()
        assert shared or not METHODS[method].parts
        for name in shared:
            assert torch.allclose(found[1][name], expected[1][name], atol=1e-5), name


def loss_and_gradients(model, batch) -> tuple[float, dict[str, torch.Tensor]]:
    loss = loop.AnswerLoss(model)(**batch)
    loss.backward()
    trained = parameters.trained(model).items()  # under the plain model's names, also with peft
    return loss.item(), {n.removeprefix("base_model.model."): p.grad for n, p in trained}


def plain_peft(kind: str, model: nn.Module) -> nn.Module:
    """The model by peft alone, as its documentation says."""
    from peft import IA3Config, LoraConfig, get_peft_model

    config = {
        "lora": LoraConfig(r=8, lora_alpha=16, target_modules=QKVO),
        "rslora": LoraConfig(r=8, lora_alpha=16, target_modules=QKVO, use_rslora=True),
        "ia3": IA3Config(
            target_modules=["k_proj", "v_proj", "o_proj"], feedforward_modules=["o_proj"]
        ),
    }[kind]
    return get_peft_model(model, config)


def some_steps(model: nn.Module, batch, loss) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The losses of six steps of AdamW, and the trained parameters after them by name."""
    trained = parameters.trained(model)
    optimizer = torch.optim.AdamW(trained.values(), lr=1e-2)
    losses = []
    for _ in range(6):
        value = loss(model, batch)
        value.backward()
        losses.append(value.item())
        optimizer.step()
        parameters.stepped(model)
        optimizer.zero_grad()
    return losses, {name.split("model.", 1)[1]: p for name, p in trained.items()}


@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("method", ["lora", "rslora", "ia3"])
def test_a_training_by_adapters_is_plain_pefts(tiny, batch, method, fold):
    """On transformers' own model and loss: every step's loss, and what was trained after six."""
    theirs = load.checkpoint(tiny / "moe2a2b")
    theirs.set_experts_implementation("eager")
    torch.manual_seed(0)
    theirs = plain_peft(method, theirs)
    ours = load.checkpoint(tiny / "moe2a2b")
    torch.manual_seed(0)
    ours = methods.apply(ours, METHODS[method])
    if fold:
        experts.fold_duplicates(ours)
    answers = (batch["labels"] != tokens.IGNORED).sum()
    losses, trained = some_steps(ours, batch, lambda m, b: loop.AnswerLoss(m)(**b) / answers)
    expected, them = some_steps(theirs, batch, lambda m, b: m(**b).loss)
    assert losses == pytest.approx(expected, rel=1e-4)
    assert losses[-1] < losses[0]
    assert trained.keys() == them.keys()
    for name, parameter in trained.items():
        assert torch.allclose(parameter, them[name], atol=1e-3), name


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("bias", [False, True])
def test_dora_is_pefts(tiny, batch, monkeypatch, dropout, bias):
    from mofe.layers.dora import Scaled

    def found() -> tuple[float, dict[str, torch.Tensor]]:
        model = load.checkpoint(tiny / "moe2a2b")
        torch.manual_seed(0)
        for layer in model.model.layers if bias else []:
            bias_of = nn.Parameter(torch.randn(layer.self_attn.q_proj.out_features))
            layer.self_attn.q_proj.bias = bias_of
        method = METHODS["dora"].model_copy(update={"dropout": dropout})
        model = methods.apply(model, method).train()
        for parameter in parameters.trained(model).values():
            parameter.data += 0.05 * torch.randn_like(parameter)
        torch.manual_seed(1)  # what is dropped
        return loss_and_gradients(model, batch)

    loss, gradients = found()
    monkeypatch.setattr(Scaled, "put_in", lambda model: None)
    theirs, expected = found()
    assert loss == pytest.approx(theirs, rel=1e-6)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, expected[name], atol=1e-6), name


def test_doras_norms_are_computed_once_a_step(tiny, batch, monkeypatch):
    from mofe.layers.dora import OncePerStep

    model = methods.apply(load.checkpoint(tiny / "moe2a2b"), METHODS["dora"])
    counted = []
    norms = OncePerStep.get_weight_norm
    monkeypatch.setattr(
        OncePerStep, "get_weight_norm", lambda *a, **k: counted.append(1) or norms(*a, **k)
    )
    loss_and_gradients(model, batch)
    layers = len(counted)
    assert layers
    loss_and_gradients(model, batch)
    assert len(counted) == layers, "nothing has changed"
    for parameter in parameters.trained(model).values():
        parameter.data += 0.05
    parameters.stepped(model)
    loss_and_gradients(model, batch)
    assert len(counted) == 2 * layers


@pytest.mark.parametrize("as_in_2_10", [False, True])
def test_products_with_weights_that_begin_anywhere_are_those_of_aligned_ones(
    monkeypatch, as_in_2_10
):
    """As weights do that are mapped from a file, which torch 2.10 refuses."""
    if as_in_2_10:
        monkeypatch.setattr(products, "BEGINS_ANYWHERE", False)
    torch.manual_seed(0)
    x, weight = torch.randn(6, 8), torch.randn(3, 12, 8)
    moved = torch.empty(weight.numel() + 1)[1:].view(weight.shape).copy_(weight)
    assert moved.data_ptr() % 16 and torch.equal(moved, weight)
    ends = torch.tensor([2, 2, 6], dtype=torch.int32)
    found = [experts.Packed(w).times(x, ends) for w in (weight, moved)]
    assert torch.allclose(*found, atol=1e-6)
    assert torch.allclose(found[0][:2], x[:2] @ weight[0].T, atol=1e-6)
