"""Products of tokens with one matrix per expert, and their gradients.

Tokens are sorted by expert. `ends_E` (E,) int32 says where each expert's tokens end.
"""

from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

ALIGNED = 16  # bytes that rows must be a multiple of in grouped products
# The torch of envs/cuda12.lock wants both factors to begin at such a multiple too, and weights that
# are mapped from a file may begin anywhere.
BEGINS_ANYWHERE = torch.__version__ >= "2.11"  # a TorchVersion, which compares by parts


class Matrices(Protocol):
    """One matrix (out, in) per expert of a stack.

    rounds: whether a product reads its inputs as `rounded` gives them, and not as they are.
    Gradients of inputs do not know of this rounding: they are passed straight through it.
    """

    rounds: bool

    def times(self, x: torch.Tensor, ends_E: torch.Tensor) -> torch.Tensor:
        """(P, in) -> (P, out): each row by its expert's matrix."""

    def back(self, grad: torch.Tensor, ends_E: torch.Tensor) -> torch.Tensor:
        """(P, out) -> (P, in): each row by its expert's transposed matrix."""

    def rounded(self, x: torch.Tensor) -> torch.Tensor:
        """What `times` reads of x (P, in), in the dtype of x."""


def grouped_mm(a: torch.Tensor, b: torch.Tensor, ends_E: torch.Tensor) -> torch.Tensor:
    """torch's grouped product, (P, in) with (E, in, out) or (out, P) with (P, in), expert by expert
    where rows, or in older versions of torch the factors, are not aligned, which torch refuses."""
    size = a.element_size()
    inner = () if b.ndim == 2 else (a.shape[1],)
    outer = (a.shape[0], b.shape[-1]) if b.ndim == 2 else (b.shape[-1],)
    begin = () if BEGINS_ANYWHERE else (a.data_ptr(), b.data_ptr())
    aligned = all(length * size % ALIGNED == 0 for length in (*inner, *outer))
    if aligned and all(address % ALIGNED == 0 for address in begin):
        return F.grouped_mm(a, b, offs=ends_E)
    groups = list(pairwise([0, *ends_E.tolist()]))
    if b.ndim == 2:
        return torch.stack([a[:, start:end] @ b[start:end] for start, end in groups])
    products = [a[start:end] @ b[e] for e, (start, end) in enumerate(groups)]
    return torch.cat(products)


class Packed:
    """Matrices in one tensor (E, out, in)."""

    rounds = False

    def __init__(self, weight: torch.Tensor):
        self.weight = weight

    def times(self, x: torch.Tensor, ends_E: torch.Tensor) -> torch.Tensor:
        return grouped_mm(x, self.weight.mT, ends_E)

    def back(self, grad: torch.Tensor, ends_E: torch.Tensor) -> torch.Tensor:
        return grouped_mm(grad, self.weight, ends_E)

    def rounded(self, x: torch.Tensor) -> torch.Tensor:
        return x


class FrozenProduct(torch.autograd.Function):
    """A product with matrices that are not trained; nothing is kept for backward."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, ends_E: torch.Tensor, matrices: Matrices) -> torch.Tensor:
        """(P, in) -> (P, out)."""
        ctx.save_for_backward(ends_E)
        ctx.matrices = matrices
        return matrices.times(x, ends_E)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: torch.Tensor):
        (ends_E,) = ctx.saved_tensors
        return ctx.matrices.back(grad.contiguous(), ends_E), None, None


class TrainedProduct(torch.autograd.Function):
    """A product with matrices that are trained."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, weight: torch.Tensor, ends_E: torch.Tensor) -> torch.Tensor:
        """x (P, in), weight (E, out, in) -> (P, out)."""
        ctx.save_for_backward(x, weight, ends_E)
        return grouped_mm(x, weight.mT, ends_E)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: torch.Tensor):
        x, weight, ends_E = ctx.saved_tensors
        grad = grad.contiguous()
        grad_weight = grouped_mm(grad.mT, x, ends_E)
        return grouped_mm(grad, weight, ends_E), grad_weight, None
