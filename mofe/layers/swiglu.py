"""The gate of a gated FFN, silu(gate) * up, and its gradients, in as few passes over memory as a device
allows: on GPUs one kernel each way (mofe/layers/kernels.py), elsewhere torch, in place where that can be."""

import warnings
from functools import cache

import torch
import torch.nn.functional as F


def forward(both: torch.Tensor) -> torch.Tensor:
    """(tokens, 2 * ffn), gate and up side by side -> silu(gate) * up, (tokens, ffn)."""
    if fused(both):
        from mofe.layers import kernels

        return kernels.gate(both)
    gate, up = both.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


def backward(
    both: torch.Tensor, dinner: torch.Tensor, weight: torch.Tensor, keep: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """The gradients behind `weight` (tokens,) times what `forward` gave.

    dinner (tokens, ffn): the gradient of that product, which is overwritten. Returns the gradients of
    `both` and of `weight`, and, if `keep`, what `forward` gave.
    """
    if fused(both):
        from mofe.layers import kernels

        return kernels.gate_back(both, dinner, weight, keep)
    gate, up = both.chunk(2, dim=-1)
    opened = torch.sigmoid(gate)
    active = opened * gate
    inner = active * up
    dweight = (dinner * inner).sum(-1, dtype=torch.float32).to(weight.dtype)
    if not keep:
        inner = None
    dinner *= weight[:, None].to(dinner.dtype)
    dboth = torch.empty_like(both)
    dgate, dup = dboth.chunk(2, dim=-1)
    torch.mul(dinner, active, out=dup)
    # silu' = sigmoid + silu * (1 - sigmoid)
    torch.mul(dinner.mul_(up), active.addcmul_(active, opened, value=-1).add_(opened), out=dgate)
    return dboth, dweight, inner


def fused(it: torch.Tensor) -> bool:
    """Whether a tensor is one for the kernels."""
    return it.is_cuda and _compiles()


@cache
def _compiles() -> bool:
    """Whether this machine can build the kernels: Triton needs a C compiler. Without them results are
    the same but for rounding, and training takes longer."""
    try:
        from mofe.layers import kernels

        kernels.gate(torch.ones(1, 2, device="cuda"))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a broken toolchain raises
        warnings.warn(
            f"Triton's kernels cannot be built here, training is slower without them: {error}",
            stacklevel=2,
        )
        return False
    return True
