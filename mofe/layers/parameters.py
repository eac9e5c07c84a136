"""What of a model is trained, what stays, and how much there is of both."""

import torch
from torch import nn


def stepped(model: nn.Module) -> None:
    """Tell the model that what it trains has changed: forget what was computed from it."""
    for module in model.modules():
        if hasattr(module, "forget"):
            module.forget()


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that the method trains, by name, tied ones once."""
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


def frozen(model: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters that the method keeps, by name."""
    return {n: p for n, p in model.named_parameters() if not p.requires_grad}


def total(model: nn.Module) -> int:
    """All parameters, a 4-bit one counted by the weights it stands for."""
    return sum(
        p.quant_state.shape.numel() if getattr(p, "quant_state", None) is not None else p.numel()
        for p in model.parameters()
    )
