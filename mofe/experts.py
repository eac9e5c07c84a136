"""Experts that are held one by one, where Mixtral packs all of a layer's experts in one tensor.

A packed tensor cannot be frozen in part: masking its gradient still computes it, and weight decay
still moves the masked slice. `SplitExperts` keeps the frozen experts in one stack and the trained
ones in another, so the frozen ones are untouched by construction; `QuantizedExperts` holds every
expert as bitsandbytes' NF4 layers.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import nn
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, grouped_mm_experts_forward
from transformers.models.mixtral.modeling_mixtral import MixtralExperts

GROUPED = "grouped_mm_autocast"  # Mixtral's packed experts as this project computes them


def grouped_experts(
    experts: MixtralExperts,
    hidden_states: torch.Tensor,
    top_k_index: torch.Tensor,
    top_k_weights: torch.Tensor,
) -> torch.Tensor:
    """transformers' grouped matrix products, which under autocast use the autocast's dtype.

    Shapes as in LoopExperts.forward. Grouped products ignore autocast: trained experts, held in
    float32, would be multiplied in float32.
    """
    kind = hidden_states.device.type
    if torch.is_autocast_enabled(kind) and experts.gate_up_proj.dtype == torch.float32:
        experts = _Cast(experts, torch.get_autocast_dtype(kind))
    return grouped_mm_experts_forward(experts, hidden_states, top_k_index, top_k_weights)


class _Cast:
    """Packed experts with their weights in another dtype."""

    def __init__(self, experts: MixtralExperts, dtype: torch.dtype):
        self._experts = experts
        self.gate_up_proj = experts.gate_up_proj.to(dtype)
        self.down_proj = experts.down_proj.to(dtype)

    def __getattr__(self, name: str):
        return getattr(self._experts, name)


ALL_EXPERTS_FUNCTIONS.register(GROUPED, grouped_experts)


class LoopExperts(nn.Module, ABC):
    """Mixtral's experts, called one after the other on the tokens that chose them."""

    def __init__(self, num_experts: int, act_fn: nn.Module):
        super().__init__()
        self.num_experts, self.act_fn = num_experts, act_fn

    @abstractmethod
    def gate_up(self, expert: int, x: torch.Tensor) -> torch.Tensor:
        """(tokens, hidden) -> (tokens, 2 * ffn): the gate's half first."""

    @abstractmethod
    def down(self, expert: int, x: torch.Tensor) -> torch.Tensor:
        """(tokens, ffn) -> (tokens, hidden)."""

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """(tokens, hidden), (tokens, k) int64 and (tokens, k) -> (tokens, hidden)."""
        out = torch.zeros_like(hidden_states)
        k = top_k_index.shape[-1]
        # The places of each expert's tokens: sorted by expert, then cut where the expert changes.
        order = top_k_index.flatten().argsort(stable=True)
        counts = torch.bincount(top_k_index.flatten(), minlength=self.num_experts).tolist()
        # An expert that no token chose takes part with none, so that its weights get a gradient (of
        # zero) in every backward pass: replicated processes wait for it.
        for expert, places in enumerate(order.split(counts)):
            tokens = places // k
            gate, up = self.gate_up(expert, hidden_states[tokens]).chunk(2, dim=-1)
            y = self.down(expert, self.act_fn(gate) * up)
            y = y * top_k_weights.flatten()[places, None]
            out.index_add_(0, tokens, y.to(out.dtype))
        return out


class SplitExperts(LoopExperts):
    """The first `frozen` experts in one stack, the others, trained, in another (Table 7).

    Parameters: `{frozen,trained}_gate_up` (experts, 2 * ffn, hidden) and `{frozen,trained}_down`
    (experts, hidden, ffn), in the packed layer's dtype.
    """

    def __init__(self, packed: MixtralExperts, frozen: int):
        super().__init__(packed.num_experts, packed.act_fn)
        self.frozen = frozen
        for name, rows, grad in (
            ("frozen", slice(None, frozen), False),
            ("trained", slice(frozen, None), True),
        ):
            for part, weight in (("gate_up", packed.gate_up_proj), ("down", packed.down_proj)):
                stack = nn.Parameter(weight.detach()[rows].clone(), requires_grad=grad)
                self.register_parameter(f"{name}_{part}", stack)

    def _weight(self, part: str, expert: int) -> torch.Tensor:
        if expert < self.frozen:
            return getattr(self, f"frozen_{part}")[expert]
        return getattr(self, f"trained_{part}")[expert - self.frozen]

    def gate_up(self, expert: int, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self._weight("gate_up", expert))

    def down(self, expert: int, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self._weight("down", expert))

    def packed(self, like: MixtralExperts) -> MixtralExperts:
        """The same experts as Mixtral packs them: `like` with these weights."""
        for part, target in (("gate_up", like.gate_up_proj), ("down", like.down_proj)):
            stacks = [getattr(self, f"{name}_{part}") for name in ("frozen", "trained")]
            target.data.copy_(torch.cat(stacks))
        return like


class QuantizedExperts(LoopExperts):
    """Every expert as two NF4 layers of bitsandbytes, frozen.

    Without this, 4-bit loading leaves Mixtral's packed experts, most of the model, as they are
    (bitsandbytes #1849).
    """

    def __init__(self, packed: MixtralExperts):
        super().__init__(packed.num_experts, packed.act_fn)
        self.gate_ups = nn.ModuleList(nf4(w) for w in packed.gate_up_proj.detach())
        self.downs = nn.ModuleList(nf4(w) for w in packed.down_proj.detach())

    def gate_up(self, expert: int, x: torch.Tensor) -> torch.Tensor:
        return self.gate_ups[expert](x)

    def down(self, expert: int, x: torch.Tensor) -> torch.Tensor:
        return self.downs[expert](x)


def nf4(weight: torch.Tensor, bias: torch.Tensor | None = None) -> nn.Module:
    """A frozen bitsandbytes NF4 layer that holds `weight` (out, in) and, as it is, `bias` (out).

    It quantises when it is moved to its device; products are computed in the weight's dtype.
    """
    import bitsandbytes as bnb  # costs seconds to import, and only QLoRA needs it

    out_features, in_features = weight.shape
    # On the meta device, so that no random numbers are drawn for weights that are replaced: what
    # peft draws next, the adapters, would depend on the number of experts.
    with torch.device("meta"):
        layer = bnb.nn.Linear4bit(
            in_features, out_features, bias=False, compute_dtype=weight.dtype, quant_type="nf4"
        )
    # On some CPUs bitsandbytes answers with a bfloat16 kernel as soon as a model is in eval mode: the
    # model evaluated would not be the model trained.
    layer.support_avx512bf16_for_cpu = False
    layer.weight = bnb.nn.Params4bit(
        weight.clone(), requires_grad=False, quant_type="nf4", module=layer
    )
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone(), requires_grad=False)
    return layer.to(weight.device)


def compute_4bit_in(model: nn.Module, dtype: torch.dtype) -> None:
    """Let NF4 layers expand their weights to `dtype` and multiply in it; what is stored stays."""
    for module in model.modules():
        if (state := getattr(getattr(module, "weight", None), "quant_state", None)) is not None:
            module.compute_dtype = state.dtype = dtype
