"""Gated activations, act(gate) * up, and their gradients.

SwiGLU, whose activation is SiLU, takes as few passes over memory as a device allows: on GPUs one
kernel each way (mofe/layers/kernels.py), elsewhere torch, in place where possible. Any other
activation of transformers is computed by its own module, and differentiated by autograd.
"""

import warnings
from functools import cache

import torch
import torch.nn.functional as F
from torch import nn
from transformers.activations import SiLUActivation

SILU = nn.SiLU()


def forward(gate_up: torch.Tensor, act_fn: nn.Module = SILU) -> torch.Tensor:
    """(tokens, 2 * ffn), gate and up side by side -> act_fn(gate) * up, (tokens, ffn).

    act_fn: works element by element and has no parameters (mofe/models/preflight.py).
    """
    if not _is_silu(act_fn):
        gate, up = gate_up.chunk(2, dim=-1)
        return act_fn(gate) * up
    if fused(gate_up):
        from mofe.layers import kernels

        return kernels.swiglu(gate_up)
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


def backward(
    gate_up: torch.Tensor,
    grad_act: torch.Tensor,
    weight: torch.Tensor,
    keep_act: bool,
    act_fn: nn.Module = SILU,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The gradients of act * weight, where act (tokens, ffn) = forward(gate_up, act_fn), weight
    (tokens,).

    grad_act (tokens, ffn): the gradient of act * weight; it is overwritten. Returns the gradients
    of `gate_up` and of `weight`, and act if `keep_act`, else None.
    """
    if not _is_silu(act_fn):
        return _backward_by_autograd(gate_up, grad_act, weight, keep_act, act_fn)
    if fused(gate_up):
        from mofe.layers import kernels

        return kernels.swiglu_backward(gate_up, grad_act, weight, keep_act)
    gate, up = gate_up.chunk(2, dim=-1)
    sigmoid = torch.sigmoid(gate)
    silu = sigmoid * gate
    act = silu * up
    grad_weight = (grad_act * act).sum(-1, dtype=torch.float32).to(weight.dtype)
    if not keep_act:
        act = None
    grad_act *= weight[:, None].to(grad_act.dtype)
    grad_gate_up = torch.empty_like(gate_up)
    grad_gate, grad_up = grad_gate_up.chunk(2, dim=-1)
    torch.mul(grad_act, silu, out=grad_up)
    # silu' = sigmoid + silu * (1 - sigmoid)
    slope = silu.addcmul_(silu, sigmoid, value=-1).add_(sigmoid)
    torch.mul(grad_act.mul_(up), slope, out=grad_gate)
    return grad_gate_up, grad_weight, act


def _backward_by_autograd(
    gate_up: torch.Tensor,
    grad_act: torch.Tensor,
    weight: torch.Tensor,
    keep_act: bool,
    act_fn: nn.Module,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    gate, up = gate_up.chunk(2, dim=-1)
    with torch.enable_grad():
        leaf = gate.detach().requires_grad_()
        activated = act_fn(leaf)
    act = activated.detach() * up
    grad_weight = (grad_act * act).sum(-1, dtype=torch.float32).to(weight.dtype)
    grad_act *= weight[:, None].to(grad_act.dtype)
    grad_up = grad_act * activated.detach()
    (grad_gate,) = torch.autograd.grad(activated, leaf, grad_act * up)
    return torch.cat([grad_gate, grad_up], dim=-1), grad_weight, act if keep_act else None


def _is_silu(act_fn: nn.Module) -> bool:
    return isinstance(act_fn, nn.SiLU | SiLUActivation)


def fused(tensor: torch.Tensor) -> bool:
    """Whether the kernels can compute this tensor."""
    return tensor.is_cuda and _compiles()


@cache
def _compiles() -> bool:
    """Whether this machine can build the kernels: Triton needs a C compiler. Without them results
    are the same up to rounding, and training takes longer."""
    try:
        from mofe.layers import kernels

        kernels.swiglu(torch.ones(1, 2, device="cuda"))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a broken toolchain raises
        warnings.warn(
            f"Triton's kernels cannot be built here, training is slower without them: {error}",
            stacklevel=2,
        )
        return False
    return True
