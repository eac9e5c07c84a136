"""Frozen matrices in FP8 (e4m3), with a scale per row, by torch.

A product reads the weights as they are held, and its inputs rounded to FP8 in the same way: each
row is divided by its scale and rounded to the nearest FP8 value. Scales are powers of two, so a
value times its scale is exact in bfloat16 as in float32. GPUs with scaled grouped products multiply
the FP8 values; all other devices multiply the same values expanded to the dtype of the inputs. The
two differ only in the order of their sums.

Backward multiplies gradients, which are not rounded, with the expanded weights, and passes them
straight through the rounding of the inputs.
"""

import torch
from torch import nn

from mofe.layers.products import ALIGNED, FrozenProduct, Packed, grouped_mm

FP8 = torch.float8_e4m3fn
BIAS = 127  # what float32 adds to its exponents
LOWEST = BIAS - 100  # the least exponent of a scale: a row of zeros needs one too
NOT_FINITE = 255  # float32's exponent of infinity
SCALED_PRODUCTS = ((9, 0), (10, 0))  # compute capabilities that have them


def exponents(x: torch.Tensor) -> torch.Tensor:
    """The exponent of each row's scale, as float32 writes it; x (..., in) -> (...) int32.

    The scale is the least power of two by which the row's largest value, divided, is at most 448,
    which is FP8's largest value. The scale of a row with a value that is not finite is infinite, so
    all that is computed from it is NaN.
    """
    largest = x.abs().amax(-1).float()
    mantissa, exponent = torch.frexp(largest)  # mantissa in [0.5, 1); 448 is 0.875 * 2^9
    found = (exponent - 9 + (mantissa > 0.875) + BIAS).clamp(LOWEST, NOT_FINITE - 1)
    return torch.where(largest.isfinite(), found, NOT_FINITE)


def power(exponent: torch.Tensor) -> torch.Tensor:
    """The float32 power of two whose exponent float32 writes so."""
    return (exponent.int() << 23).view(torch.float32)


def rounded(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x (..., in) as FP8 values, and the exponents of its rows' scales (...)."""
    found = exponents(x)
    inverse = power((2 * BIAS - found).clamp(min=0))
    return (x.float() * inverse[..., None]).to(FP8), found


def expanded(values: torch.Tensor, exponent: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """FP8 values (..., in) times the scales of their rows, in float32 or bfloat16: exactly."""
    return (values.float() * power(exponent)[..., None]).to(dtype)


class Scales(nn.Parameter):
    """The exponents of a quantised tensor's scales: a parameter that stands for no weight."""


class Fp8Matrices(nn.Module, Packed):
    """Matrices (E, out, in) in FP8: `values`, whose bytes are those of e4m3, and `scales`, the
    exponents of their rows' (E, out); both uint8."""

    rounds = True

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        values, found = rounded(weight)
        self.values = nn.Parameter(values.view(torch.uint8), requires_grad=False)
        self.scales = Scales(found.to(torch.uint8), requires_grad=False)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def weight(self) -> torch.Tensor:
        """(E, out, in) in float32, expanded at each access."""
        return self.expanded(torch.float32)

    def expanded(self, dtype: torch.dtype) -> torch.Tensor:
        return expanded(self.values.view(FP8), self.scales, dtype)

    def times(self, x: torch.Tensor, ends_E: torch.Tensor) -> torch.Tensor:
        if not has_scaled_products(x, self.values):
            return grouped_mm(self.rounded(x), self.expanded(x.dtype).mT, ends_E)
        return scaled_product(*rounded(x), self, ends_E)

    def back(self, grad: torch.Tensor, ends_E: torch.Tensor) -> torch.Tensor:
        return grouped_mm(grad, self.expanded(grad.dtype), ends_E)

    def rounded(self, x: torch.Tensor) -> torch.Tensor:
        return expanded(*rounded(x), x.dtype)

    def same(self, a: int, b: int) -> bool:
        """Whether two of the matrices are equal."""
        return all(torch.equal(part[a], part[b]) for part in (self.values, self.scales))

    def only(self, kept: list[int]) -> "Fp8Matrices":
        """The matrices, reduced to these in place."""
        self.values.data, self.scales.data = self.values.data[kept], self.scales.data[kept]
        return self


def has_scaled_products(x: torch.Tensor, values: torch.Tensor) -> bool:
    """Whether torch has the product of such inputs and matrices on their device."""
    aligned = all(length % ALIGNED == 0 for length in values.shape[1:])
    if not (aligned and x.is_cuda and x.dtype == torch.bfloat16):
        return False
    return torch.cuda.get_device_capability(x.device) in SCALED_PRODUCTS


def scaled_product(
    x: torch.Tensor, exponent: torch.Tensor, matrices: Fp8Matrices, ends_E: torch.Tensor
) -> torch.Tensor:
    """x (P, in) FP8, with the exponents of its rows' scales (P,) -> (P, out) bfloat16. Sums are
    float32."""
    return torch._scaled_grouped_mm(  # torch.nn.functional's has no checks without a GPU
        *(x, matrices.values.view(FP8).mT, power(exponent), power(matrices.scales)),
        offs=ends_E,
        out_dtype=torch.bfloat16,
    )


class Fp8Linear(nn.Module):
    """A frozen linear layer with FP8 weights (out, in), and with `bias` (out) as it is."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None):
        super().__init__()
        self.matrices = Fp8Matrices(weight[None])
        self.bias = None if bias is None else nn.Parameter(bias.clone(), requires_grad=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) -> (..., out); under autocast in its dtype."""
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))
        rows = x.reshape(-1, x.shape[-1])
        ends_E = torch.full((1,), len(rows), dtype=torch.int32, device=x.device)
        out = FrozenProduct.apply(rows, ends_E, self.matrices).view(*x.shape[:-1], -1)
        return out if self.bias is None else out + self.bias.to(out.dtype)
