"""The gate's kernels compute what torch does: on any machine, by Triton's interpreter."""

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
    both, dinner = (torch.randn(rows, n * ffn, dtype=dtype, device=device) for n in (2, 1))
    weight = torch.rand(rows, device=device)
    wide, exact_weight = both.double().requires_grad_(), weight.double().requires_grad_()
    opened, up = wide.chunk(2, dim=-1)
    inner = torch.nn.functional.silu(opened) * up
    (inner * exact_weight[:, None] * dinner.double()).sum().backward()
    exact = (inner, wide.grad, exact_weight.grad, inner)
    within = 1e-5 if dtype == torch.float32 else 1e-2
    plain = (
        swiglu.forward(both.cpu()),
        *swiglu.backward(both.cpu(), dinner.clone().cpu(), weight.cpu(), True),
    )
    fused = (kernels.gate(both), *kernels.gate_back(both, dinner, weight, True))
    for found in (plain, fused):
        for ours, theirs in zip(found, exact, strict=True):
            assert torch.allclose(
                ours.double().cpu(), theirs.cpu(), rtol=within, atol=within * ffn**0.5
            )
    assert kernels.gate_back(both, dinner, weight, False)[2] is None
    pairs = torch.randperm(rows * 3, device=device).view(rows, 3)
    dealt = torch.randn(rows * 3, ffn, dtype=dtype, device=device)
    sums = kernels.add_up(dealt, pairs)
    assert sums.dtype == dtype
    assert torch.allclose(sums.double(), dealt.double()[pairs].sum(1), rtol=within, atol=within)


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
