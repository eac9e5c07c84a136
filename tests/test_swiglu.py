"""The expert layer's kernels compute what torch does: on any machine, by Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mofe.layers import swiglu


def compare(rows: int, ffn: int, dtype: torch.dtype, device: str) -> None:
    """The kernels on a device, and torch's formula, against float64."""
    from mofe.layers import kernels

    torch.manual_seed(rows + ffn)
    gate_up, grad_act = (torch.randn(rows, n * ffn, dtype=dtype, device=device) for n in (2, 1))
    weight = torch.rand(rows, device=device)
    wide, exact_weight = gate_up.double().requires_grad_(), weight.double().requires_grad_()
    gate, up = wide.chunk(2, dim=-1)
    act = torch.nn.functional.silu(gate) * up
    (act * exact_weight[:, None] * grad_act.double()).sum().backward()
    exact = (act, wide.grad, exact_weight.grad, act)
    within = 1e-5 if dtype == torch.float32 else 1e-2
    plain = (
        swiglu.forward(gate_up.cpu()),
        *swiglu.backward(gate_up.cpu(), grad_act.clone().cpu(), weight.cpu(), True),
    )
    fused = (
        kernels.swiglu(gate_up),
        *kernels.swiglu_backward(gate_up, grad_act, weight, True),
    )
    for found in (plain, fused):
        for ours, theirs in zip(found, exact, strict=True):
            assert torch.allclose(
                ours.double().cpu(), theirs.cpu(), rtol=within, atol=within * ffn**0.5
            )
    assert kernels.swiglu_backward(gate_up, grad_act, weight, False)[2] is None
    pairs = torch.randperm(rows * 3, device=device).view(rows, 3)
    computed = torch.randn(rows * 3, ffn, dtype=dtype, device=device)
    sums = kernels.combine(computed, pairs)
    assert sums.dtype == dtype
    assert torch.allclose(sums.double(), computed.double()[pairs].sum(1), rtol=within, atol=within)


SHAPES = [(1, 24), (7, 1024), (3, 1500)]


@pytest.mark.parametrize("rows, ffn", SHAPES)
def test_the_kernels_compute_what_torch_does(rows, ffn):
    pytest.importorskip("triton", reason="Triton is for Linux")
    root = Path(__file__).parent
    call = f"import torch, test_swiglu; test_swiglu.compare({rows}, {ffn}, torch.float32, 'cpu')"
    paths = os.pathsep.join([str(root), str(root.parent)])
    subprocess.run(
        [sys.executable, "-c", call],
        env=os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": paths},
        check=True,
    )
