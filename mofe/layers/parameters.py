"""A model's trained parameters, its frozen ones, and how many there are."""

import torch
from torch import nn

from mofe.layers import fp8


def stepped(model: nn.Module) -> None:
    """Drop what modules have computed from trained parameters: the optimiser has changed these."""
    for module in model.modules():
        if hasattr(type(module), "forget"):  # of a module itself, torch would ask all its dicts
            module.forget()


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that the method trains, by name. Tied ones occur once."""
    return {n: p for n, p in model.named_parameters() if p.requires_grad}


def frozen(model: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters that the method leaves as they are, by name."""
    return {n: p for n, p in model.named_parameters() if not p.requires_grad}


def total(model: nn.Module) -> int:
    """The number of all parameters; a quantised tensor counts as many as the weights it stands for,
    and its scales as none."""
    return sum(map(_weights, model.parameters()))


def _weights(parameter: nn.Parameter) -> int:
    """The number of weights that a parameter stands for."""
    if (state := getattr(parameter, "quant_state", None)) is not None:
        return state.shape.numel()
    return 0 if isinstance(parameter, fp8.Scales) else parameter.numel()


def is_quantized(model: nn.Module) -> bool:
    """Whether any of the model's weights are held in a format of fewer bits."""
    return any(
        isinstance(parameter, fp8.Scales) or getattr(parameter, "quant_state", None) is not None
        for parameter in model.parameters()
    )


def floats(parameter: torch.Tensor) -> torch.Tensor:
    """The parameter's floating-point numbers: of a quantised one, its scales."""
    if isinstance(parameter, fp8.Scales):
        return fp8.power(parameter)
    state = getattr(parameter, "quant_state", None)
    return parameter if state is None else state.absmax
