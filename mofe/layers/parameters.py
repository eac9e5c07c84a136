"""A model's trained parameters, its frozen ones, and how many there are."""

import torch
from torch import nn


def stepped(model: nn.Module) -> None:
    """Drop what modules have computed from trained parameters: the optimiser has changed these."""
    for module in model.modules():
        if hasattr(module, "forget"):
            module.forget()


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that the method trains, by name. Tied ones occur once."""
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


def frozen(model: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters that the method leaves as they are, by name."""
    return {n: p for n, p in model.named_parameters() if not p.requires_grad}


def total(model: nn.Module) -> int:
    """The number of all parameters; a 4-bit tensor counts as many as the weights it stands for."""
    return sum(
        p.quant_state.shape.numel() if getattr(p, "quant_state", None) is not None else p.numel()
        for p in model.parameters()
    )
