"""A mixture's experts, computed so that each costs only what its training needs.

A layer's experts are held in stacks, frozen and trained ones apart: a packed tensor cannot be
frozen in part, because masking its gradient still computes it, and weight decay still moves the
masked slice. `GatedFfn` computes all stacks. Its backward pass computes no gradient of a frozen
weight, and keeps no activation that only such a gradient would need. Equal frozen experts can be
held, and computed, once (`fold_duplicates`). That is exact: the router's weights of a token's
experts are added up. Frozen experts may have adapters, one per expert (`AdaptedStack`).

Shapes. Where a shape helps the reader, the capitals at the end of a tensor's name are its axes:

    T   tokens                          D   hidden size
    K   experts per token               F   size of an expert's FFN, half of what gate_up gives
    P   pairs of a token and an expert that computes it, sorted by expert
    E   experts that are stored: fewer than the router's where equal ones are held once
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import Self

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS
from transformers.models.mixtral.modeling_mixtral import MixtralExperts

from mofe.layers import swiglu
from mofe.layers.fp8 import Fp8Matrices
from mofe.layers.nf4 import Nf4Matrices
from mofe.layers.products import (
    ALIGNED,
    FrozenProduct,
    Matrices,
    Packed,
    TrainedProduct,
    grouped_mm,
)
from mofe.study.formats import Format

GROUPED = "mofe"  # transformers' name for Mixtral's packed experts as this project computes them
HELD_IN = {"nf4": Nf4Matrices, "fp8": Fp8Matrices}  # frozen matrices, by the format of their values


# ------------------------------------------------------------------------------- one stack's FFNs


class GatedFfn(torch.autograd.Function):
    """down(act_fn(gate(x)) * up(x)) * weight, for tokens that are sorted by expert.

    For the backward pass frozen experts keep what gate and up gave, and nothing else; trained ones
    also keep the tokens. The gradient of `weight`, the router's, comes from products that are
    computed anyway, so the experts' outputs need not be kept either.
    """

    @staticmethod
    def forward(
        ctx,
        x_PD: torch.Tensor,
        weight_P: torch.Tensor,
        ends_E: torch.Tensor,
        w_gate_up: Matrices,
        w_down: Matrices,
        act_fn: nn.Module,
        *trained: torch.Tensor,
    ) -> torch.Tensor:
        """weight_P: the router's weight of each pair. trained: empty, or the tensors of w_gate_up
        (E, 2F, D) and w_down (E, D, F), which then get a gradient. Returns (P, D)."""
        gate_up = w_gate_up.times(x_PD, ends_E)  # (P, 2F)
        out_PD = w_down.times(swiglu.forward(gate_up, act_fn), ends_E)
        ctx.save_for_backward(gate_up, weight_P, ends_E, x_PD if trained else None)
        ctx.w_gate_up, ctx.w_down, ctx.act_fn = w_gate_up, w_down, act_fn
        return out_PD.mul_(weight_P[:, None])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_PD: torch.Tensor):
        gate_up, weight_P, ends_E, x_PD = ctx.saved_tensors
        grad_PD = grad_PD.contiguous()
        grad_act = ctx.w_down.back(grad_PD, ends_E)  # (P, F), still without the router's weight
        if ctx.w_down.rounds:  # the output, and so the router's gradient, comes from rounded values
            read = ctx.w_down.rounded(swiglu.forward(gate_up, ctx.act_fn))
            of_rounded_P = (grad_act * read).sum(-1, dtype=torch.float32).to(weight_P.dtype)
        grad_gate_up, grad_weight_P, act = swiglu.backward(
            gate_up, grad_act, weight_P, keep_act=x_PD is not None, act_fn=ctx.act_fn
        )
        if ctx.w_down.rounds:
            grad_weight_P = of_rounded_P
        grad_x_PD = ctx.w_gate_up.back(grad_gate_up, ends_E)
        if x_PD is None:
            return grad_x_PD, grad_weight_P, None, None, None, None
        grad_PD = grad_PD * weight_P[:, None].to(grad_PD.dtype)
        grad_w_gate_up = grouped_mm(grad_gate_up.mT, x_PD, ends_E)
        grad_w_down = grouped_mm(grad_PD.mT, act, ends_E)
        return grad_x_PD, grad_weight_P, None, None, None, None, grad_w_gate_up, grad_w_down


class WeightedGate(torch.autograd.Function):
    """act_fn(gate) * up * weight. For backward it keeps its inputs only."""

    @staticmethod
    def forward(
        ctx, gate_up: torch.Tensor, weight_P: torch.Tensor, act_fn: nn.Module
    ) -> torch.Tensor:
        """gate_up (P, 2F), weight_P: the router's weight of each pair -> (P, F)."""
        ctx.save_for_backward(gate_up, weight_P)
        ctx.act_fn = act_fn
        return swiglu.forward(gate_up, act_fn).mul_(weight_P[:, None])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: torch.Tensor):
        gate_up, weight_P = ctx.saved_tensors
        grad = grad.clone(memory_format=torch.contiguous_format)  # it is overwritten
        grad_gate_up, grad_weight_P, _ = swiglu.backward(
            gate_up, grad, weight_P, keep_act=False, act_fn=ctx.act_fn
        )
        return grad_gate_up, grad_weight_P, None


# ---------------------------------------------------------------------------- dispatch and combine


@dataclass(frozen=True)
class Dispatch:
    """Which tokens each expert computes, as pairs of a token and an expert, sorted by expert.

    tokens_P (P,) int64: the token of each pair; None where the pairs are the tokens as they are.
    pairs_TK (T, K) int64: the pairs of each token; None where tokens differ in their number of
    pairs. weights_P (P,): the router's weight of each pair. ends_E (E,) int32: where each expert's
    pairs end.
    """

    tokens_P: torch.Tensor | None
    pairs_TK: torch.Tensor | None
    weights_P: torch.Tensor
    ends_E: torch.Tensor

    @classmethod
    def choose(
        cls, index_TK: torch.Tensor, weights_TK: torch.Tensor, expert_map: Sequence[int]
    ) -> Self:
        """By the cheapest of the ways below. index_TK: the router's experts of each token; they are
        stored as `expert_map` says (SplitExperts)."""
        stored = max(expert_map) + 1
        if stored == 1:
            return cls.to_one(weights_TK)
        if list(expert_map) != list(range(stored)):
            index_TK = torch.tensor(expert_map, device=index_TK.device)[index_TK]
        if stored < len(expert_map):
            return cls.to_distinct(index_TK, weights_TK, stored)
        return cls.to_top_k(index_TK, weights_TK, stored)

    @classmethod
    def to_one(cls, weights_TK: torch.Tensor) -> Self:
        """All experts are equal: an ordinary FFN."""
        ends_E = torch.full((1,), len(weights_TK), dtype=torch.int32, device=weights_TK.device)
        return cls(None, None, weights_TK.sum(-1), ends_E)

    @classmethod
    def to_distinct(cls, index_TK: torch.Tensor, weights_TK: torch.Tensor, stored: int) -> Self:
        """Some experts are equal: a token goes once to each stored expert that it has among its K,
        with the sum of their weights."""
        zeros_TE = weights_TK.new_zeros(len(index_TK), stored)
        weights_TE = zeros_TE.scatter_add(1, index_TK, weights_TK)
        chosen_TE = torch.zeros_like(zeros_TE, dtype=torch.bool).scatter_(1, index_TK, True)
        experts_P, tokens_P = chosen_TE.T.nonzero(as_tuple=True)
        ends_E = chosen_TE.sum(0).cumsum(0, dtype=torch.int32)
        return cls(tokens_P, None, weights_TE[tokens_P, experts_P], ends_E)

    @classmethod
    def to_top_k(cls, index_TK: torch.Tensor, weights_TK: torch.Tensor, stored: int) -> Self:
        """All experts differ: a token goes to each of its K."""
        order_P = index_TK.flatten().argsort(stable=True)
        pairs_P = torch.arange(len(order_P), device=order_P.device)
        pairs_TK = torch.empty_like(order_P).scatter_(0, order_P, pairs_P).view(index_TK.shape)
        ends_E = F.one_hot(index_TK.flatten(), stored).sum(0).cumsum(0, dtype=torch.int32)
        k = index_TK.shape[-1]
        return cls(order_P // k, pairs_TK, weights_TK.flatten()[order_P], ends_E)

    def dispatch(self, x_TD: torch.Tensor) -> torch.Tensor:
        """(T, D) -> (P, D): each pair's token."""
        if self.tokens_P is None:
            return x_TD
        return DispatchTokens.apply(x_TD, self.tokens_P, self.pairs_TK)

    def combine(self, y_PD: torch.Tensor, tokens: int) -> torch.Tensor:
        """(P, D) -> (T, D): the sum of each token's pairs. tokens: T."""
        if self.tokens_P is None:
            return y_PD
        return CombineTokens.apply(y_PD, self.tokens_P, self.pairs_TK, tokens)


class DispatchTokens(torch.autograd.Function):
    """Dispatch.dispatch, whose gradient is a combine."""

    @staticmethod
    def forward(
        ctx, x_TD: torch.Tensor, tokens_P: torch.Tensor, pairs_TK: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(tokens_P, pairs_TK)
        ctx.tokens = len(x_TD)
        return x_TD.index_select(0, tokens_P)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_PD: torch.Tensor):
        return _combine(grad_PD, *ctx.saved_tensors, ctx.tokens), None, None


class CombineTokens(torch.autograd.Function):
    """Dispatch.combine, whose gradient is a dispatch. torch's index_add would keep the rows for its
    backward pass, only for their shape."""

    @staticmethod
    def forward(
        ctx,
        y_PD: torch.Tensor,
        tokens_P: torch.Tensor,
        pairs_TK: torch.Tensor | None,
        tokens: int,
    ) -> torch.Tensor:
        ctx.save_for_backward(tokens_P)
        return _combine(y_PD, tokens_P, pairs_TK, tokens)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_TD: torch.Tensor):
        (tokens_P,) = ctx.saved_tensors
        return grad_TD.index_select(0, tokens_P), None, None, None


def _combine(
    y_PD: torch.Tensor, tokens_P: torch.Tensor, pairs_TK: torch.Tensor | None, tokens: int
) -> torch.Tensor:
    if pairs_TK is None:
        return y_PD.new_zeros(tokens, y_PD.shape[1]).index_add_(0, tokens_P, y_PD)
    if swiglu.fused(y_PD):
        from mofe.layers import kernels

        return kernels.combine(y_PD, pairs_TK)
    # the fastest of torch's ways to add up a fixed number of rows
    return F.embedding_bag(pairs_TK, y_PD.contiguous(), mode="sum")


# --------------------------------------------------------------------------------- stacks of
# experts


class Stack(nn.Module):
    """Some experts of a layer: `gate_up` (E, 2F, D) and `down` (E, D, F)."""

    def __init__(self, gate_up: torch.Tensor, down: torch.Tensor, trained: bool):
        super().__init__()
        self.gate_up = nn.Parameter(gate_up, requires_grad=trained)
        self.down = nn.Parameter(down, requires_grad=trained)

    def __len__(self) -> int:
        return len(self.gate_up)

    def same(self, a: int, b: int) -> bool:
        """Whether two of the experts are equal bit by bit, and stay so."""
        weights = (self.gate_up, self.down)
        return a == b or not any(w.requires_grad or not torch.equal(w[a], w[b]) for w in weights)

    def only(self, kept: Sequence[int]) -> "Stack":
        """A frozen stack of these experts."""
        return Stack(self.gate_up.detach()[kept], self.down.detach()[kept], trained=False)


class QuantizedStack(nn.Module):
    """Frozen experts whose matrices are held in a format of fewer bits (HELD_IN).

    Without this, 4-bit loading leaves Mixtral's packed experts, most of the model, as they are
    (bitsandbytes #1849).
    """

    def __init__(self, gate_up: torch.Tensor, down: torch.Tensor, held_in: Format):
        super().__init__()
        self.gate_ups, self.downs = HELD_IN[held_in](gate_up), HELD_IN[held_in](down)

    def __len__(self) -> int:
        return len(self.gate_ups)

    @property
    def gate_up(self) -> torch.Tensor:
        """The values of the experts' matrices (E, 2F, D), expanded at each access; as `down`."""
        return self.gate_ups.weight

    @property
    def down(self) -> torch.Tensor:
        """(E, D, F)."""
        return self.downs.weight

    def same(self, a: int, b: int) -> bool:
        """As in Stack."""
        return self.gate_ups.same(a, b) and self.downs.same(a, b)

    def only(self, kept: Sequence[int]) -> "QuantizedStack":
        """The stack, reduced to these experts in place."""
        self.gate_ups, self.downs = self.gate_ups.only(kept), self.downs.only(kept)
        return self


class LowRank(nn.Module):
    """LoRA's product for one matrix of every expert: `a` (E, rank, in) and `b` (E, out, rank)."""

    def __init__(self, experts: int, rank: int, inputs: int, outputs: int, device: torch.device):
        super().__init__()
        self.a = nn.Parameter(torch.empty(experts, rank, inputs, device=device))
        self.b = nn.Parameter(torch.zeros(experts, outputs, rank, device=device))
        for matrix in self.a.data:  # as peft begins each of its adapters
            nn.init.kaiming_uniform_(matrix, a=math.sqrt(5))

    def forward(self, x: torch.Tensor, ends_E: torch.Tensor, scaling: float) -> torch.Tensor:
        """(P, in), sorted by expert -> (P, out)."""
        a, b = self.a.to(x.dtype), self.b.to(x.dtype)
        if short := -a.shape[1] % (ALIGNED // x.element_size()):
            a, b = F.pad(a, (0, 0, 0, short)), F.pad(b, (0, short))
        return TrainedProduct.apply(TrainedProduct.apply(x, a, ends_E) * scaling, b, ends_E)

    @property
    def product(self) -> torch.Tensor:
        """What is added to the experts' matrices (E, out, in), but for the scale."""
        return self.b.detach() @ self.a.detach()


class AdaptedStack(nn.Module):
    """Frozen experts, in NF4 or not, with LoRA's adapters on their matrices, one per expert.

    sizes: (inputs, outputs) of the adapted matrices, which are some of gate_proj, up_proj and
    down_proj. scaling: what the adapters' products are multiplied by.
    """

    def __init__(
        self,
        stack: "Stack | QuantizedStack",
        sizes: Mapping[str, tuple[int, int]],
        rank: int,
        scaling: float,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.stack, self.scaling, self.dropout = stack, scaling, dropout
        device = next(stack.parameters()).device
        self.adapters = nn.ModuleDict(
            {name: LowRank(len(stack), rank, *of, device) for name, of in sizes.items()}
        )

    def __len__(self) -> int:
        return len(self.stack)

    def same(self, a: int, b: int) -> bool:
        """As in Stack. Adapters are trained, so no two experts stay equal."""
        return a == b

    def forward(
        self,
        x_PD: torch.Tensor,
        weight_P: torch.Tensor,
        ends_E: torch.Tensor,
        act_fn: nn.Module,
    ) -> torch.Tensor:
        """Tokens that are sorted by expert, and the router's weight of each -> (P, D). The weight
        multiplies what down_proj gets, which is the same and keeps no outputs for backward."""
        if not len(x_PD):  # gradients of zero, as in _ffn
            nothing = sum(w.flatten()[:0].sum() for w in self.adapters.parameters())
            return x_PD * weight_P[:, None].to(x_PD.dtype) + nothing
        w_gate_up, w_down = _matrices(self.stack, x_PD.dtype)
        gate_up = FrozenProduct.apply(x_PD, ends_E, w_gate_up)
        ffn = gate_up.shape[1] // 2
        for name, room in (("gate_proj", (0, ffn)), ("up_proj", (ffn, 0))):
            if name in self.adapters:
                gate_up = gate_up + F.pad(self._adapter(name, x_PD, ends_E), room)
        act = WeightedGate.apply(gate_up, weight_P, act_fn)
        out_PD = FrozenProduct.apply(act, ends_E, w_down)
        if "down_proj" in self.adapters:
            out_PD = out_PD + self._adapter("down_proj", act, ends_E)
        return out_PD

    def _adapter(self, name: str, x: torch.Tensor, ends_E: torch.Tensor) -> torch.Tensor:
        dropped = F.dropout(x, self.dropout, self.training) if self.dropout else x
        return self.adapters[name](dropped, ends_E, self.scaling)

    @property
    def gate_up(self) -> torch.Tensor:
        """The experts' matrices with their adapters (E, 2F, D). Not for NF4, as `down`."""
        merged = self.stack.gate_up.detach().clone()
        for name, part in zip(("gate_proj", "up_proj"), merged.chunk(2, dim=1), strict=True):
            if name in self.adapters:
                part += self.scaling * self.adapters[name].product
        return merged

    @property
    def down(self) -> torch.Tensor:
        """(E, D, F)."""
        down = self.stack.down.detach()
        if "down_proj" not in self.adapters:
            return down
        return down + self.scaling * self.adapters["down_proj"].product


class SplitExperts(nn.Module):
    """A layer's experts in stacks.

    expert_map[e]: which stored expert, counted through all stacks, computes the router's expert e.
    Equal experts may share one. act_fn: the activation of every expert.
    """

    def __init__(self, stacks: Sequence[nn.Module], act_fn: nn.Module):
        super().__init__()
        self.stacks, self.act_fn = nn.ModuleList(stacks), act_fn
        self.expert_map = list(range(sum(map(len, stacks))))

    @classmethod
    def partly(
        cls,
        packed: MixtralExperts,
        frozen: Sequence[int],
        apart: Sequence[Sequence[int]] = (),
        held_in: Format | None = None,
    ) -> "SplitExperts":
        """The experts of a layer in stacks: those in the slots `frozen` in a frozen one (in the
        format `held_in`, if any), then all others in a trained one, but for those that each of
        `apart` names, which are in trained stacks of their own. No stack is empty."""
        weights = packed.gate_up_proj.detach(), packed.down_proj.detach()
        own = {*frozen, *chain.from_iterable(apart)}
        trained = [slot for slot in range(packed.num_experts) if slot not in own]
        groups = [list(slots) for slots in (trained, *apart) if len(slots)]
        stacks = [Stack(*(w[slots] for w in weights), trained=True) for slots in groups]
        if len(frozen):
            groups.insert(0, list(frozen))
            still = [w[groups[0]] for w in weights]
            own_stack = QuantizedStack(*still, held_in) if held_in else Stack(*still, trained=False)
            stacks.insert(0, own_stack)
        split = cls(stacks, packed.act_fn)
        order = list(chain.from_iterable(groups))
        split.expert_map = [order.index(slot) for slot in range(packed.num_experts)]
        return split

    @classmethod
    def adapted(
        cls, experts: "MixtralExperts | SplitExperts", sizes: Mapping[str, tuple[int, int]], **lora
    ) -> "SplitExperts":
        """All experts of a layer frozen, with adapters. experts: packed, or in one stack of NF4.
        sizes, lora: as in AdaptedStack."""
        if isinstance(experts, MixtralExperts):
            weights = experts.gate_up_proj.detach(), experts.down_proj.detach()
            stack = Stack(*weights, trained=False)
        else:
            (stack,) = experts.stacks
        return cls([AdaptedStack(stack, sizes, **lora)], experts.act_fn)

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """(T, D), (T, K) int64 and (T, K) -> (T, D)."""
        chosen = top_k_index, top_k_weights
        return mixture(hidden_states, *chosen, self.stacks, self.expert_map, self.act_fn)

    def holders(self, slots: Sequence[int]) -> list[nn.Module]:
        """The stacks that hold the experts in these slots, each once."""
        of = [stack for stack in self.stacks for _ in range(len(stack))]
        return list(dict.fromkeys(of[self.expert_map[slot]] for slot in slots))

    def fold_duplicates(self) -> None:
        """Hold equal frozen experts, those of the first stack, once. Trained ones stay apart."""
        frozen = self.stacks[0]
        kept: list[int] = []  # experts that differ from all before them
        moved: list[int] = []  # by stored expert: where it is found afterwards
        for expert in range(len(frozen)):
            equal = [new for new, old in enumerate(kept) if frozen.same(old, expert)]
            moved.append(equal[0] if equal else len(kept))
            if not equal:
                kept.append(expert)
        gone = len(frozen) - len(kept)
        moved += [expert - gone for expert in range(len(frozen), sum(map(len, self.stacks)))]
        self.expert_map = [moved[expert] for expert in self.expert_map]
        if gone:
            self.stacks[0] = frozen.only(kept)

    def packed(self, like: MixtralExperts) -> MixtralExperts:
        """The same experts as Mixtral packs them: `like`, with these weights."""
        for part, target in (("gate_up", like.gate_up_proj), ("down", like.down_proj)):
            stacked = torch.cat([getattr(stack, part) for stack in self.stacks])
            target.data.copy_(stacked[self.expert_map])
        return like


def mixture(
    hidden_TD: torch.Tensor,
    index_TK: torch.Tensor,
    weights_TK: torch.Tensor,
    stacks: Sequence[nn.Module],
    expert_map: Sequence[int],
    act_fn: nn.Module,
) -> torch.Tensor:
    """A layer's experts on its tokens: the sum of each token's K experts, weighted by the router.

    index_TK (int64) and weights_TK: the router's choice. stacks, expert_map, act_fn: as in
    SplitExperts. An expert that no token chose still gets a gradient, of zero: replicated processes
    wait for it. Under autocast products are computed in its dtype. Returns (T, D) of hidden_TD's
    dtype.
    """
    route = Dispatch.choose(index_TK, weights_TK, expert_map)
    kind = hidden_TD.device.type
    low = torch.is_autocast_enabled(kind)
    x_TD = hidden_TD.to(torch.get_autocast_dtype(kind)) if low else hidden_TD
    x_PD = route.dispatch(x_TD)
    experts = [0, *accumulate(map(len, stacks))]  # where stacks begin and end among the experts
    pairs = [0, len(x_PD)]  # and among the pairs; with several stacks, a GPU must be waited for
    if len(stacks) > 1:
        pairs = [0, *route.ends_E[[end - 1 for end in experts[1:]]].tolist()]
    parts = [
        _ffn(
            *(stack, x_PD[start:end], route.weights_P[start:end]),
            *(route.ends_E[first:last] - start, act_fn),
        )
        for stack, (first, last), (start, end) in zip(
            stacks, pairwise(experts), pairwise(pairs), strict=True
        )
    ]
    y_PD = torch.cat(parts) if len(parts) > 1 else parts[0]
    return route.combine(y_PD.to(hidden_TD.dtype), len(hidden_TD))


def _ffn(
    stack: nn.Module,
    x_PD: torch.Tensor,
    weight_P: torch.Tensor,
    ends_E: torch.Tensor,
    act_fn: nn.Module,
) -> torch.Tensor:
    if isinstance(stack, AdaptedStack):
        return stack(x_PD, weight_P, ends_E, act_fn)
    if isinstance(stack, QuantizedStack):
        return GatedFfn.apply(x_PD, weight_P, ends_E, *_matrices(stack, x_PD.dtype), act_fn)
    weights = stack.gate_up.to(x_PD.dtype), stack.down.to(x_PD.dtype)
    trained = weights if weights[0].requires_grad else ()
    if not len(x_PD):  # gradients of zero, the router's too, without products of nothing
        return x_PD * weight_P[:, None].to(x_PD.dtype) + sum(w.flatten()[:0].sum() for w in trained)
    w_gate_up, w_down = (Packed(w.detach()) for w in weights)
    return GatedFfn.apply(x_PD, weight_P, ends_E, w_gate_up, w_down, act_fn, *trained)


def _matrices(stack: "Stack | QuantizedStack", dtype: torch.dtype) -> tuple[Matrices, Matrices]:
    """gate_up and down of frozen experts, for products in this dtype."""
    if isinstance(stack, QuantizedStack):
        return stack.gate_ups, stack.downs
    return Packed(stack.gate_up.to(dtype)), Packed(stack.down.to(dtype))


def packed_experts(
    experts: MixtralExperts,
    hidden_states: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
) -> torch.Tensor:
    """Mixtral's packed experts, all trained or all frozen. Shapes as in SplitExperts.forward."""
    stack = _PackedStack(experts.gate_up_proj, experts.down_proj)
    chosen, stored = (top_k_index, top_k_weights), range(experts.num_experts)
    return mixture(hidden_states, *chosen, [stack], stored, experts.act_fn)


class _PackedStack:
    """A stack that uses a packed layer's own parameters."""

    def __init__(self, gate_up: torch.Tensor, down: torch.Tensor):
        self.gate_up, self.down = gate_up, down

    def __len__(self) -> int:
        return len(self.gate_up)


ALL_EXPERTS_FUNCTIONS.register(GROUPED, packed_experts)


def holds_one(model: nn.Module) -> bool:
    """Whether the model is a mixture whose layers hold one expert each, which computes every token
    once whatever the router chooses."""
    layers = [module for module in model.modules() if isinstance(module, SplitExperts)]
    return bool(layers) and all(sum(map(len, layer.stacks)) == 1 for layer in layers)


def waits_for_gpu(model: nn.Module) -> bool:
    """Whether a forward pass needs to know on the CPU what a router chose on the GPU: how many
    pairs an expert, or a stack of them, computes."""
    layers = [module for module in model.modules() if isinstance(module, SplitExperts)]
    return any(
        len(layer.stacks) > 1 or 1 < max(layer.expert_map) + 1 < len(layer.expert_map)
        for layer in layers
    )


def fold_duplicates(model: nn.Module) -> nn.Module:
    """The model with equal frozen experts of a layer held, and computed, once; in place.

    It computes the same up to rounding: a token whose experts are equal goes through one of them,
    with the sum of their weights. Trained experts become different, so they stay as they are.
    """
    for parent in list(model.modules()):
        experts = getattr(parent, "experts", None)
        if isinstance(experts, MixtralExperts) and not experts.gate_up_proj.requires_grad:
            weights = experts.gate_up_proj.detach(), experts.down_proj.detach()
            stack = Stack(*weights, trained=False)
            experts = parent.experts = SplitExperts([stack], experts.act_fn)
        if isinstance(experts, SplitExperts):
            experts.fold_duplicates()
    return model
