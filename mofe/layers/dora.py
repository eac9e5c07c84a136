"""DoRA with the norms of its weights computed once per optimiser step, and fewer passes over
outputs.

DoRA divides by the norms of the adapted weight's rows, which it treats as constants (section 4.3 of
its paper). That weight changes only when the optimiser steps, but peft computes the norms anew for
every micro-batch. peft also adds a second term of the output's size to the layer's output, where
one product is enough: (plain output + adapter's output) * magnitude / norm.
"""

import torch
from peft.tuners.lora.dora import DoraLinearLayer
from peft.tuners.lora.layer import LoraLayer
from peft.tuners.lora.variants import DoraLinearVariant
from peft.utils.integrations import dequantize_module_weight
from torch import nn


class OncePerStep(DoraLinearLayer):
    """peft's magnitudes (out,), with norms (out,) that are kept until `forget` is called."""

    def __init__(self, layer: DoraLinearLayer):
        super().__init__(layer.fan_in_fan_out)
        self.weight, self.norms = layer.weight, None

    def forget(self) -> None:
        """Drop the norms: the adapter has changed."""
        self.norms = None

    def scale(self, layer: LoraLayer, adapter: str) -> torch.Tensor:
        """Magnitudes divided by norms (out,), in the magnitudes' dtype."""
        if self.norms is None:
            self.norms = self._norms(layer, adapter)
        return self.weight / self.norms

    @torch.no_grad()
    def _norms(self, layer: LoraLayer, adapter: str) -> torch.Tensor:
        a, b = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
        with torch.autocast(a.device.type, enabled=False):
            weight = dequantize_module_weight(layer.get_base_layer()).to(a.dtype)
            return self.get_weight_norm(weight, b @ a, layer.scaling[adapter])


class Scaled(DoraLinearVariant):
    """The output of a layer with DoRA; it replaces peft's variant and is equal to it."""

    @staticmethod
    def put_in(model: nn.Module) -> None:
        """Use this variant in all layers of a model that have DoRA."""
        for layer in model.modules():
            for adapter, magnitude in getattr(layer, "lora_magnitude_vector", {}).items():
                layer.lora_magnitude_vector[adapter] = OncePerStep(magnitude)
                layer.lora_variant[adapter] = Scaled()

    @staticmethod
    def forward(
        layer: LoraLayer, active_adapter: str, x: torch.Tensor, result: torch.Tensor, **_
    ) -> torch.Tensor:
        """x (..., in); result (..., out): the layer's output without the adapter."""
        a, b = layer.lora_A[active_adapter], layer.lora_B[active_adapter].weight
        base, dropout = layer.get_base_layer(), layer.lora_dropout[active_adapter]
        scale = layer.lora_magnitude_vector[active_adapter].scale(layer, active_adapter)
        product = undropped = result if base.bias is None else result - base.bias
        if dropping := layer.training and not isinstance(dropout, nn.Identity):
            x = dropout(x)  # peft scales the base layer's output of the dropped input
            product = base(x) if base.bias is None else base(x) - base.bias
        low = a(x).flatten(0, -2)
        total = torch.addmm(product.flatten(0, -2), low, b.mT, alpha=layer.scaling[active_adapter])
        # the scale in the products' dtype, or autocast would compute all of this in float32
        out = total.view_as(result) * scale.to(total.dtype)
        if dropping:
            out = out + undropped - product
        return out if base.bias is None else out + base.bias
