"""DoRA's weight norms, computed once an optimiser step.

DoRA divides by the norms of the adapted weight's rows, as a constant (section 4.3 of its paper), and
that weight changes only when the optimiser steps. peft computes it anew for every micro-batch, by
applying the adapter to an identity matrix.
"""

import torch
from peft.tuners.lora.dora import DoraLinearLayer
from peft.utils.integrations import dequantize_module_weight
from torch import nn


class OncePerStep(DoraLinearLayer):
    """peft's DoRA layer with its norms (out,) kept from one `forget` to the next."""

    def __init__(self, layer: DoraLinearLayer):
        super().__init__(layer.fan_in_fan_out)
        self.weight, self.norms = layer.weight, None

    @classmethod
    def put_in(cls, model: nn.Module) -> None:
        """Replace all of a model's DoRA layers."""
        for parent in list(model.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is DoraLinearLayer:
                    setattr(parent, name, cls(child))

    def forget(self) -> None:
        """The adapter has changed."""
        self.norms = None

    def forward(
        self, x, *, lora_A, lora_B, scaling, base_layer, base_result=None, adapter_name="default"
    ):
        """What the adapter adds to the base layer's result, as in DoraLinearLayer.forward."""
        if self.norms is None:
            self.norms = self._norms(lora_A.weight, lora_B.weight, scaling, base_layer)
        if base_result is None:
            base_result = base_layer(x)
        if base_layer.bias is not None:
            base_result = base_result - base_layer.bias
        # in the products' dtype, or autocast would make all of this float32
        scale = (self.weight / self.norms).view(1, -1)
        lora, kind = lora_B(lora_A(x)), base_result.dtype
        return torch.addcmul((scale - 1).to(kind) * base_result, (scale * scaling).to(kind), lora)

    @torch.no_grad()
    def _norms(self, a: torch.Tensor, b: torch.Tensor, scaling: float, base_layer: nn.Module):
        with torch.autocast(a.device.type, enabled=False):
            weight = dequantize_module_weight(base_layer).to(a.dtype)
            return self.get_weight_norm(weight, b @ a, scaling)
