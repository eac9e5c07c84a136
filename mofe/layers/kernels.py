"""GPU kernels of the expert layer, in Triton, which torch brings along on machines with GPUs.

In torch SwiGLU and its gradients are a dozen passes over tensors of (tokens, ffn), which together
take as long as the experts' products.
"""

import torch
import triton
import triton.language as tl

BLOCK = 1024


def swiglu(gate_up: torch.Tensor) -> torch.Tensor:
    """As mofe.layers.swiglu.forward."""
    gate_up, ffn = gate_up.contiguous(), gate_up.shape[1] // 2
    out = gate_up.new_empty(len(gate_up), ffn)
    _swiglu[(len(gate_up), triton.cdiv(ffn, BLOCK))](gate_up, out, ffn, BLOCK)
    return out


def swiglu_backward(
    gate_up: torch.Tensor, grad_act: torch.Tensor, weight: torch.Tensor, keep_act: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """As mofe.layers.swiglu.backward, but grad_act is not overwritten."""
    gate_up, grad_act, weight = gate_up.contiguous(), grad_act.contiguous(), weight.contiguous()
    grad_gate_up, grad_weight = torch.empty_like(gate_up), torch.empty_like(weight)
    act = torch.empty_like(grad_act) if keep_act else None
    inputs = gate_up, grad_act, weight
    outputs = grad_gate_up, grad_weight, grad_act if act is None else act
    _swiglu_backward[(len(gate_up),)](*inputs, *outputs, grad_act.shape[1], keep_act, BLOCK)
    return grad_gate_up, grad_weight, act


def combine(rows: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """rows (all pairs, hidden), pairs (tokens, k) int64 -> (tokens, hidden): the sums over k of
    rows[pairs], added up in float32."""
    rows, (tokens, k) = rows.contiguous(), pairs.shape
    out = rows.new_empty(tokens, rows.shape[1])
    _combine[(tokens,)](rows, pairs.contiguous(), out, rows.shape[1], k, BLOCK)
    return out


# Sizes of loops are constants, because the interpreter of Triton 3.6, by which these are tested
# without a GPU, makes no range of others with NumPy 2.4.
@triton.jit
def _combine(rows, pairs, out, hidden: tl.constexpr, K: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    for start in range(0, hidden, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < hidden
        total = tl.zeros((BLOCK,), tl.float32)
        for j in range(K):
            pair = tl.load(pairs + token * K + j)
            total += tl.load(rows + pair * hidden + at, inside, 0.0).to(tl.float32)
        tl.store(out + token * hidden + at, total, inside)


@triton.jit
def _swiglu(gate_up, out, ffn, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < ffn
    begin = gate_up + row * 2 * ffn
    gate = tl.load(begin + at, inside).to(tl.float32)
    up = tl.load(begin + ffn + at, inside).to(tl.float32)
    tl.store(out + row * ffn + at, gate * tl.sigmoid(gate) * up, inside)


@triton.jit
def _swiglu_backward(
    gate_up,
    grad_act,
    weight,
    grad_gate_up,
    grad_weight,
    act,
    ffn: tl.constexpr,
    KEEP: tl.constexpr,
    BLOCK: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    begin = row * 2 * ffn
    w = tl.load(weight + row).to(tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, ffn, BLOCK):
        at = start + tl.arange(0, BLOCK)
        inside = at < ffn
        gate = tl.load(gate_up + begin + at, inside, 0.0).to(tl.float32)
        up = tl.load(gate_up + begin + ffn + at, inside, 0.0).to(tl.float32)
        grad = tl.load(grad_act + row * ffn + at, inside, 0.0).to(tl.float32)
        sigmoid = tl.sigmoid(gate)
        silu = sigmoid * gate
        total += grad * silu * up
        grad = grad * w
        tl.store(grad_gate_up + begin + ffn + at, grad * silu, inside)
        # silu' = sigmoid + silu * (1 - sigmoid)
        tl.store(grad_gate_up + begin + at, grad * up * (sigmoid + silu * (1 - sigmoid)), inside)
        if KEEP:
            tl.store(act + row * ffn + at, silu * up, inside)
    tl.store(grad_weight + row, tl.sum(total))
