"""Layers with NF4 weights, by bitsandbytes: making one, expanding it, and its dtype for
products."""

from collections.abc import Sequence

import torch
from torch import nn

from mofe.layers.products import Packed


def nf4(weight: torch.Tensor, bias: torch.Tensor | None = None) -> nn.Module:
    """A frozen bitsandbytes NF4 layer with `weight` (out, in), and with `bias` (out) unquantised.

    The weight is quantised when the layer is moved to its device. Products are computed in the
    weight's dtype.
    """
    import bitsandbytes as bnb  # costs seconds to import, and only QLoRA needs it

    out_features, in_features = weight.shape
    # On the meta device, so that no random numbers are drawn for weights that are replaced at once:
    # otherwise the adapters, which peft draws next, would depend on the number of experts.
    with torch.device("meta"):
        layer = bnb.nn.Linear4bit(
            in_features, out_features, bias=False, compute_dtype=weight.dtype, quant_type="nf4"
        )
    # On some CPUs bitsandbytes switches to a bfloat16 kernel when a model is in eval mode: the
    # model evaluated would not be the model trained.
    layer.support_avx512bf16_for_cpu = False
    layer.weight = bnb.nn.Params4bit(
        weight.clone(), requires_grad=False, quant_type="nf4", module=layer
    )
    if bias is not None:
        layer.bias = nn.Parameter(bias.clone(), requires_grad=False)
    return layer.to(weight.device)


def expanded(layer: nn.Module, out: torch.Tensor | None = None) -> torch.Tensor:
    """An NF4 layer's weight (out, in), in the dtype of its products; written to `out` if it is
    given, which works on GPUs only."""
    import bitsandbytes as bnb

    return bnb.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state, out=out)


class Nf4Matrices(nn.ModuleList, Packed):
    """Matrices (E, out, in) as bitsandbytes' NF4 layers. They are expanded anew for each product,
    forward and backward: keeping them for the backward pass would take the memory that they
    save."""

    def __init__(self, weight: Sequence[torch.Tensor]):
        super().__init__(map(nf4, weight))

    @property
    def weight(self) -> torch.Tensor:
        """(E, out, in), expanded at each access."""
        if not self[0].weight.is_cuda:  # bitsandbytes can write into a tensor only on GPUs
            return torch.stack([expanded(layer) for layer in self])
        state, device = self[0].weight.quant_state, self[0].weight.device
        weights = torch.empty(len(self), *state.shape, dtype=state.dtype, device=device)
        for layer, out in zip(self, weights, strict=True):
            expanded(layer, out)
        return weights

    def same(self, a: int, b: int) -> bool:
        """Whether two of the matrices are equal."""
        return torch.equal(expanded(self[a]), expanded(self[b]))

    def only(self, kept: Sequence[int]) -> "Nf4Matrices":
        """The matrices, reduced to these in place."""
        for i in sorted(set(range(len(self))) - set(kept), reverse=True):
            del self[i]
        return self


def compute_4bit_in(model: nn.Module, dtype: torch.dtype) -> None:
    """Let NF4 layers expand their weights to `dtype` and multiply in it; the weights' values stay.

    Their scales, which are quantised too, are expanded once and for all: to 4 bytes per 64 weights
    instead of 1. Otherwise two of the three kernels that expand a weight would be spent on scales.
    """
    for module in model.modules():
        if (state := getattr(getattr(module, "weight", None), "quant_state", None)) is not None:
            module.compute_dtype = state.dtype = dtype
            _expand_scales(state)


def _expand_scales(state) -> None:
    """Expand the scales of one weight. state: bitsandbytes' QuantState."""
    from bitsandbytes.functional import dequantize_blockwise

    if state.nested:
        state.absmax = dequantize_blockwise(state.absmax, state.state2) + state.offset
        state.offset = state.state2 = None
        state.nested = False
