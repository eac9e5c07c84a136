"""Formats of fewer bits in which frozen weights can be held."""

from dataclasses import dataclass
from typing import Literal

Format = Literal["nf4", "fp8"]


@dataclass(frozen=True)
class Bits:
    """What a format takes: bits per weight, without its scales, and bytes per weight and per row of
    a matrix, which is one output, with them."""

    bits: int
    per_weight: float
    per_row: float = 0

    def bytes(self, weights: int, rows: int) -> float:
        """Bytes of matrices with so many weights and rows."""
        return self.per_weight * weights + self.per_row * rows


FORMATS: dict[Format, Bits] = {
    "nf4": Bits(4, 0.5 + 4 / 64),  # a float32 scale per 64 weights
    "fp8": Bits(8, 1, per_row=1),  # the exponent of a scale per row
}
