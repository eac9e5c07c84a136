"""GPU kernels of the expert layer, in Triton, which torch brings along on machines with GPUs.

In torch the gate and its gradients are a dozen passes over tensors of (tokens, ffn), which together
take as long as the experts' products.
"""

import torch
import triton
import triton.language as tl

BLOCK = 1024


def gate(both: torch.Tensor) -> torch.Tensor:
    """As mofe.layers.swiglu.forward."""
    both, ffn = both.contiguous(), both.shape[1] // 2
    out = both.new_empty(len(both), ffn)
    _gate[(len(both), triton.cdiv(ffn, BLOCK))](both, out, ffn, BLOCK)
    return out


def gate_back(
    both: torch.Tensor, dinner: torch.Tensor, weight: torch.Tensor, keep: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """As mofe.layers.swiglu.backward; dinner stays as it is."""
    both, dinner, weight = both.contiguous(), dinner.contiguous(), weight.contiguous()
    dboth, dweight = torch.empty_like(both), torch.empty_like(weight)
    inner = torch.empty_like(dinner) if keep else None
    ffn = dinner.shape[1]
    given = both, dinner, weight, dboth, dweight, dinner if inner is None else inner
    _gate_back[(len(both),)](*given, ffn, keep, BLOCK)
    return dboth, dweight, inner


def add_up(rows: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """rows (all pairs, hidden), pairs (number, k) int64 -> (number, hidden): the sums over k of
    rows[pairs], added up in float32."""
    rows, (number, k) = rows.contiguous(), pairs.shape
    out = rows.new_empty(number, rows.shape[1])
    _add_up[(number,)](rows, pairs.contiguous(), out, rows.shape[1], k, BLOCK)
    return out


@triton.jit
def _add_up(rows, pairs, out, hidden, K: tl.constexpr, BLOCK: tl.constexpr):
    token = tl.program_id(0).to(tl.int64)
    for start in range(0, hidden, BLOCK):
        at = start + tl.arange(0, BLOCK)
        there = at < hidden
        total = tl.zeros((BLOCK,), tl.float32)
        for j in range(K):
            pair = tl.load(pairs + token * K + j)
            total += tl.load(rows + pair * hidden + at, there, 0.0).to(tl.float32)
        tl.store(out + token * hidden + at, total, there)


@triton.jit
def _gate(both, out, ffn, BLOCK: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    there = at < ffn
    begin = both + row * 2 * ffn
    g = tl.load(begin + at, there).to(tl.float32)
    u = tl.load(begin + ffn + at, there).to(tl.float32)
    tl.store(out + row * ffn + at, g * tl.sigmoid(g) * u, there)


@triton.jit
def _gate_back(
    both, dinner, weight, dboth, dweight, inner, ffn, KEEP: tl.constexpr, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    begin = row * 2 * ffn
    w = tl.load(weight + row).to(tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, ffn, BLOCK):
        at = start + tl.arange(0, BLOCK)
        there = at < ffn
        g = tl.load(both + begin + at, there, 0.0).to(tl.float32)
        u = tl.load(both + begin + ffn + at, there, 0.0).to(tl.float32)
        d = tl.load(dinner + row * ffn + at, there, 0.0).to(tl.float32)
        opened = tl.sigmoid(g)
        active = opened * g
        total += d * active * u
        d = d * w
        tl.store(dboth + begin + ffn + at, d * active, there)
        # silu' = sigmoid + silu * (1 - sigmoid)
        tl.store(dboth + begin + at, d * u * (opened + active * (1 - opened)), there)
        if KEEP:
            tl.store(inner + row * ffn + at, active * u, there)
    tl.store(dweight + row, tl.sum(total))
