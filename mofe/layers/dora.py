"""DoRA in the passes over a layer's output that its formula takes, its weights' norms once a step.

DoRA divides by the norms of the adapted weight's rows, as a constant (section 4.3 of its paper), and
that weight changes only when the optimiser steps. peft computes them anew for every micro-batch, and
adds to the layer's output a second term of its size for what is a product: magnitude / norm of the
plain and the adapter's outputs together.
"""

import torch
from peft.tuners.lora.dora import DoraLinearLayer
from peft.tuners.lora.layer import LoraLayer
from peft.tuners.lora.variants import DoraLinearVariant
from peft.utils.integrations import dequantize_module_weight
from torch import nn


class OncePerStep(DoraLinearLayer):
    """peft's magnitudes (out,), with the norms (out,) kept from one `forget` to the next."""

    def __init__(self, layer: DoraLinearLayer):
        super().__init__(layer.fan_in_fan_out)
        self.weight, self.norms = layer.weight, None

    def forget(self) -> None:
        """The adapter has changed."""
        self.norms = None

    def scale(self, layer: LoraLayer, adapter: str) -> torch.Tensor:
        """Magnitudes over norms (out,), of the magnitudes' dtype."""
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
    """What a layer with DoRA answers, as peft's variant of it does."""

    @staticmethod
    def put_in(model: nn.Module) -> None:
        """For all layers of a model that have DoRA."""
        for layer in model.modules():
            for adapter, it in getattr(layer, "lora_magnitude_vector", {}).items():
                layer.lora_magnitude_vector[adapter] = OncePerStep(it)
                layer.lora_variant[adapter] = Scaled()

    @staticmethod
    def forward(
        layer: LoraLayer, active_adapter: str, x: torch.Tensor, result: torch.Tensor, **_
    ) -> torch.Tensor:
        """x (..., in), result (..., out): what the layer answers without the adapter."""
        a, b = layer.lora_A[active_adapter], layer.lora_B[active_adapter].weight
        base, dropout = layer.get_base_layer(), layer.lora_dropout[active_adapter]
        scale = layer.lora_magnitude_vector[active_adapter].scale(layer, active_adapter)
        product = plain = result if base.bias is None else result - base.bias
        if dropping := layer.training and not isinstance(dropout, nn.Identity):
            x = dropout(x)  # of which peft takes the base layer's part anew
            product = base(x) if base.bias is None else base(x) - base.bias
        low = a(x).flatten(0, -2)
        both = torch.addmm(product.flatten(0, -2), low, b.mT, alpha=layer.scaling[active_adapter])
        # the scale in the products' dtype, or autocast would make all of this float32
        out = both.view_as(result) * scale.to(both.dtype)
        if dropping:
            out = out + plain - product
        return out if base.bias is None else out + base.bias
