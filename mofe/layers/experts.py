"""A mixture's experts as this project computes them: each pays only for what it trains.

A layer's experts lie in stacks, frozen and trained ones apart: a packed tensor cannot be frozen in
part, because masking its gradient still computes it, and weight decay still moves the masked slice.
All stacks are computed by `GatedFfn`, whose backward pass computes no gradient of a frozen weight
and keeps nothing that only such a gradient would need. Equal frozen experts can be folded into one
(`fold_duplicates`), exactly: Mixtral's weights of a token's experts are added up.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
from transformers.models.mixtral.modeling_mixtral import MixtralExperts

from mofe.layers import swiglu
from mofe.layers.nf4 import expanded, nf4

GROUPED = "mofe"  # transformers' name for Mixtral's packed experts as this project computes them


class Weights(Protocol):
    """The weights of a stack of experts, for products with tokens that are sorted by expert.

    `ends` (experts,) int32: where in the tokens each expert's end.
    """

    def times(self, x: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """(tokens, in) -> (tokens, out), each token by its expert's (out, in) matrix."""

    def back(self, dy: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """(tokens, out) -> (tokens, in), by the transposed matrices."""


class Packed:
    """Matrices in one tensor (experts, out, in)."""

    def __init__(self, weight: torch.Tensor):
        self.weight = weight

    def times(self, x: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        return F.grouped_mm(x, self.weight.mT, offs=ends)

    def back(self, dy: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        return F.grouped_mm(dy, self.weight, offs=ends)


class Quantized(Packed):
    """Matrices as bitsandbytes' NF4 layers, expanded for each product, in both directions: keeping
    them for the backward pass would take the memory that they save."""

    def __init__(self, layers: Sequence[nn.Module]):
        self.layers = layers

    @property
    def weight(self) -> torch.Tensor:
        """(experts, out, in), new each time."""
        if not self.layers[0].weight.is_cuda:  # where bitsandbytes cannot write into it
            return torch.stack([expanded(layer) for layer in self.layers])
        state = self.layers[0].weight.quant_state
        device = self.layers[0].weight.device
        all_of_them = torch.empty(len(self.layers), *state.shape, dtype=state.dtype, device=device)
        for layer, out in zip(self.layers, all_of_them, strict=True):
            expanded(layer, out)
        return all_of_them


class GatedFfn(torch.autograd.Function):
    """down(silu(gate(x)) * up(x)) * weight, for tokens that are sorted by expert.

    Of frozen experts backward needs what gate and up gave, and nothing else; of trained ones also
    the tokens. The gradient of `weight`, the router's, comes from products that are there anyway,
    so that the experts' outputs need not be kept either.
    """

    @staticmethod
    def forward(
        ctx,
        x: torch.Tensor,
        weight: torch.Tensor,
        ends: torch.Tensor,
        gate_up: Weights,
        down: Weights,
        *trained: torch.Tensor,
    ) -> torch.Tensor:
        """x (tokens, hidden); weight (tokens,); ends: as in Weights; trained: the tensors of gate_up
        (experts, 2 * ffn, hidden) and down (experts, hidden, ffn) where they get a gradient.
        Returns (tokens, hidden)."""
        both = gate_up.times(x, ends)
        out = down.times(swiglu.forward(both), ends)
        ctx.save_for_backward(both, weight, ends, x if trained else None)
        ctx.gate_up, ctx.down = gate_up, down
        return out.mul_(weight[:, None])

    @staticmethod
    @once_differentiable
    def backward(ctx, dout: torch.Tensor):
        both, weight, ends, x = ctx.saved_tensors
        dout = dout.contiguous()
        dinner = ctx.down.back(dout, ends)
        dboth, dweight, inner = swiglu.backward(both, dinner, weight, keep=x is not None)
        dx = ctx.gate_up.back(dboth, ends)
        if x is None:
            return dx, dweight, None, None, None
        dout = dout * weight[:, None].to(dout.dtype)
        dtrained = (F.grouped_mm(d.mT, i, offs=ends) for d, i in ((dboth, x), (dout, inner)))
        return dx, dweight, None, None, None, *dtrained


class Deal(torch.autograd.Function):
    """Rows of tokens, dealt out to the pairs of a token and an expert of it."""

    @staticmethod
    def forward(
        ctx, rows: torch.Tensor, tokens: torch.Tensor, pairs: torch.Tensor | None
    ) -> torch.Tensor:
        """rows (number, hidden); tokens (all pairs,) int64: each pair's; pairs (number, k) int64: each
        token's pairs, or None where tokens differ in their number. Returns (all pairs, hidden)."""
        ctx.save_for_backward(tokens, pairs)
        ctx.number = len(rows)
        return rows.index_select(0, tokens)

    @staticmethod
    @once_differentiable
    def backward(ctx, dout: torch.Tensor):
        return _add_up(dout, *ctx.saved_tensors, ctx.number), None, None


class AddUp(torch.autograd.Function):
    """The way back: sums of the pairs' rows by token. torch's index_add would keep the rows for
    backward, for their shape."""

    @staticmethod
    def forward(
        ctx, rows: torch.Tensor, tokens: torch.Tensor, pairs: torch.Tensor | None, number: int
    ) -> torch.Tensor:
        """rows (all pairs, hidden); tokens and pairs as in Deal -> (number, hidden)."""
        ctx.save_for_backward(tokens)
        return _add_up(rows, tokens, pairs, number)

    @staticmethod
    @once_differentiable
    def backward(ctx, dout: torch.Tensor):
        (tokens,) = ctx.saved_tensors
        return dout.index_select(0, tokens), None, None, None


def _add_up(
    rows: torch.Tensor, tokens: torch.Tensor, pairs: torch.Tensor | None, number: int
) -> torch.Tensor:
    if pairs is not None and swiglu.fused(rows):
        from mofe.layers import kernels

        return kernels.add_up(rows, pairs)
    if pairs is not None:  # the fastest of torch's ways to add up a fixed number of rows
        return F.embedding_bag(pairs, rows.contiguous(), mode="sum")
    return rows.new_zeros(number, rows.shape[1]).index_add_(0, tokens, rows)


class Stack(nn.Module):
    """Some experts of a layer: `gate_up` (experts, 2 * ffn, hidden), `down` (experts, hidden, ffn)."""

    def __init__(self, gate_up: torch.Tensor, down: torch.Tensor, trained: bool):
        super().__init__()
        self.gate_up = nn.Parameter(gate_up, requires_grad=trained)
        self.down = nn.Parameter(down, requires_grad=trained)

    def __len__(self) -> int:
        return len(self.gate_up)

    def same(self, a: int, b: int) -> bool:
        """Whether two of the experts are, and stay, equal bit by bit."""
        weights = (self.gate_up, self.down)
        return a == b or not any(w.requires_grad or not torch.equal(w[a], w[b]) for w in weights)

    def only(self, kept: Sequence[int]) -> "Stack":
        return Stack(self.gate_up.detach()[kept], self.down.detach()[kept], trained=False)


class QuantizedStack(nn.Module):
    """Experts as two NF4 layers of bitsandbytes each, frozen.

    Without this, 4-bit loading leaves Mixtral's packed experts, most of the model, as they are
    (bitsandbytes #1849).
    """

    def __init__(self, gate_up: torch.Tensor, down: torch.Tensor):
        super().__init__()
        self.gate_ups = nn.ModuleList(map(nf4, gate_up))
        self.downs = nn.ModuleList(map(nf4, down))

    def __len__(self) -> int:
        return len(self.gate_ups)

    def same(self, a: int, b: int) -> bool:
        """As in Stack."""
        pairs = ((layers[a], layers[b]) for layers in (self.gate_ups, self.downs))
        return all(torch.equal(expanded(one), expanded(two)) for one, two in pairs)

    def only(self, kept: Sequence[int]) -> "QuantizedStack":
        for name in ("gate_ups", "downs"):
            setattr(self, name, nn.ModuleList(getattr(self, name)[i] for i in kept))
        return self


class SplitExperts(nn.Module):
    """A layer's experts in stacks. `place[e]` is where expert e lies, counted through all stacks:
    equal experts may lie in one place."""

    def __init__(self, stacks: Sequence[nn.Module]):
        super().__init__()
        self.stacks = nn.ModuleList(stacks)
        self.place = list(range(sum(map(len, stacks))))

    @classmethod
    def partly(cls, packed: MixtralExperts, frozen: int, quantized: bool = False) -> "SplitExperts":
        """The first `frozen` experts of a layer in a frozen stack (in NF4 if `quantized`), the
        others, if there are any, in a trained one."""
        weights = packed.gate_up_proj.detach(), packed.down_proj.detach()
        still, moved = ([w[part].clone() for w in weights] for part in _cut(frozen))
        stacks = [QuantizedStack(*still) if quantized else Stack(*still, trained=False)]
        return cls([*stacks, Stack(*moved, trained=True)] if len(moved[0]) else stacks)

    @property
    def is_quantized(self) -> bool:
        return any(isinstance(stack, QuantizedStack) for stack in self.stacks)

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """(tokens, hidden), (tokens, k) int64 and (tokens, k) -> (tokens, hidden)."""
        return mixture(hidden_states, top_k_index, top_k_weights, self.stacks, self.place)

    def fold(self) -> None:
        """Hold equal frozen experts once (fold_duplicates)."""
        frozen = self.stacks[0]
        first = [next(i for i in range(e + 1) if frozen.same(i, e)) for e in range(len(frozen))]
        kept = sorted(set(first))
        gone = len(frozen) - len(kept)
        self.place = [kept.index(first[e]) if e < len(frozen) else e - gone for e in self.place]
        self.stacks[0] = frozen.only(kept) if gone else frozen

    def packed(self, like: MixtralExperts) -> MixtralExperts:
        """The same experts as Mixtral packs them: `like` with these weights."""
        for part, target in (("gate_up", like.gate_up_proj), ("down", like.down_proj)):
            stacked = torch.cat([getattr(stack, part) for stack in self.stacks])
            target.data.copy_(stacked[self.place])
        return like


def _cut(number: int) -> tuple[slice, slice]:
    return slice(None, number), slice(number, None)


def mixture(
    hidden: torch.Tensor,
    index: torch.Tensor,
    weights: torch.Tensor,
    stacks: Sequence[nn.Module],
    place: Sequence[int],
) -> torch.Tensor:
    """What a layer's experts make of its tokens, each by the experts that the router chose.

    hidden (tokens, hidden); index (tokens, k) int64 and weights (tokens, k): a token's experts. An
    expert that no token chose still gets a gradient, of zero: replicated processes wait for it.
    Under autocast products are computed in its dtype. Returns (tokens, hidden) of hidden's dtype.
    """
    tokens, pairs, weight, ends = _route(index, weights, place)
    kind = hidden.device.type
    low = torch.is_autocast_enabled(kind)
    x = hidden.to(torch.get_autocast_dtype(kind)) if low else hidden
    x = x if tokens is None else Deal.apply(x, tokens, pairs)
    parts, first = [], 0
    bounds = [0, *(ends[_through(stacks)].tolist() if len(stacks) > 1 else [len(x)])]
    for stack, (start, end) in zip(stacks, pairwise(bounds), strict=True):
        mine = ends[first : first + len(stack)] - start
        first += len(stack)
        parts.append(_ffn(stack, x[start:end], weight[start:end], mine))
    out = torch.cat(parts) if len(parts) > 1 else parts[0]
    out = out.to(hidden.dtype)
    return out if tokens is None else AddUp.apply(out, tokens, pairs, len(hidden))


def _through(stacks: Sequence[nn.Module]) -> list[int]:
    """The number of each stack's last place."""
    sizes = torch.tensor([len(stack) for stack in stacks])
    return (sizes.cumsum(0) - 1).tolist()


def _ffn(
    stack: nn.Module, x: torch.Tensor, weight: torch.Tensor, ends: torch.Tensor
) -> torch.Tensor:
    if isinstance(stack, QuantizedStack):
        return GatedFfn.apply(x, weight, ends, Quantized(stack.gate_ups), Quantized(stack.downs))
    gate_up, down = stack.gate_up.to(x.dtype), stack.down.to(x.dtype)
    trained = (gate_up, down) if gate_up.requires_grad else ()
    if not len(x):  # gradients of zero, the router's too, without products of nothing
        return x * weight[:, None].to(x.dtype) + sum(w.flatten()[:0].sum() for w in trained)
    packed = (Packed(w.detach()) for w in (gate_up, down))
    return GatedFfn.apply(x, weight, ends, *packed, *trained)


def _route(
    index: torch.Tensor, weights: torch.Tensor, place: Sequence[int]
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor, torch.Tensor]:
    """Who goes where: tokens and pairs (as in Deal), the pairs sorted by the place that computes them,
    the weight of each, and where each place's end (places,). Tokens are None where one place takes them
    all.
    """
    k, number = index.shape[-1], max(place) + 1
    if number == 1:  # all experts are one: an ordinary FFN
        ends = torch.tensor([len(index)], dtype=torch.int32).to(index.device)
        return None, None, weights.sum(-1), ends
    if number < len(place):  # a token whose experts lie in one place goes there once
        index = torch.tensor(place, device=index.device)[index]
        empty = weights.new_zeros(len(index), number)
        weights = empty.scatter_add(1, index, weights)
        chosen = torch.zeros_like(empty, dtype=torch.bool).scatter_(1, index, True)
        at, tokens = chosen.T.nonzero(as_tuple=True)
        return tokens, None, weights[tokens, at], chosen.sum(0).cumsum(0, dtype=torch.int32)
    order = index.flatten().argsort(stable=True)
    pairs = torch.empty_like(order).scatter_(
        0, order, torch.arange(len(order), device=order.device)
    )
    counts = F.one_hot(index.flatten(), number).sum(0)
    ends = counts.cumsum(0, dtype=torch.int32)
    return order // k, pairs.view(-1, k), weights.flatten()[order], ends


def packed_experts(
    experts: MixtralExperts,
    hidden_states: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
) -> torch.Tensor:
    """Mixtral's packed experts, all trained or all frozen. Shapes as in SplitExperts.forward."""
    stack = _View(experts.gate_up_proj, experts.down_proj)
    return mixture(hidden_states, top_k_index, top_k_weights, [stack], range(experts.num_experts))


class _View:
    """A packed layer's own weights as a stack."""

    def __init__(self, gate_up: torch.Tensor, down: torch.Tensor):
        self.gate_up, self.down = gate_up, down

    def __len__(self) -> int:
        return len(self.gate_up)


ALL_EXPERTS_FUNCTIONS.register(GROUPED, packed_experts)


# ------------------------------------------------------------------------------------- folding


def fold_duplicates(model: nn.Module) -> nn.Module:
    """The model with equal frozen experts of a layer held, and computed, once; in place.

    What it computes is the same up to rounding: a token whose experts are equal goes through one of
    them, with the sum of their weights. Trained experts part ways, so they stay as they are.
    """
    for parent in list(model.modules()):
        experts = getattr(parent, "experts", None)
        if isinstance(experts, MixtralExperts) and not experts.gate_up_proj.requires_grad:
            weights = experts.gate_up_proj.detach(), experts.down_proj.detach()
            experts = parent.experts = SplitExperts([Stack(*weights, trained=False)])
        if isinstance(experts, SplitExperts):
            experts.fold()
    return model
