"""A decoder layer's norms as one kernel forward and one backward, for GPUs.

Transformers' RMS norm takes half a dozen passes over the hidden states, and twice as many backward.
torch has a fused one (torch.nn.functional.rms_norm).
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.mistral.modeling_mistral import MistralRMSNorm
from transformers.models.mixtral.modeling_mixtral import MixtralRMSNorm

PLAIN = (LlamaRMSNorm, MistralRMSNorm, MixtralRMSNorm)


class FusedNorm(nn.Module):
    """An RMS norm in front of matrix products.

    Under autocast its output has autocast's dtype, to which each of these products would cast it.
    """

    def __init__(self, weight: nn.Parameter, eps: float):
        super().__init__()
        self.weight, self.eps = weight, eps

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """(..., hidden) -> the same shape."""
        weight, kind = self.weight.to(hidden.dtype), hidden.device.type
        # autocast would first make a float32 copy, but the kernel computes in float32 anyway
        with torch.autocast(kind, enabled=False):
            out = F.rms_norm(hidden, weight.shape, weight, self.eps)
        return out.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else out


def fuse(model: nn.Module) -> None:
    """Replace the norms of a model's decoder layers, in place; parameters keep their names. The
    norm after the last layer stays: evaluation needs its float32 output for the logits."""
    for layer in model.modules():
        if not hasattr(layer, "self_attn"):
            continue
        for name, child in list(layer.named_children()):
            if isinstance(child, PLAIN):
                setattr(layer, name, FusedNorm(child.weight, child.variance_epsilon))
