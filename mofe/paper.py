"""The values published in Tables 1-7 of the paper, cell by cell.

They are in one data file, mofe/paper.csv, with the text exactly as printed; a test compares it with
the paper. A cell is found by (table, label, column). The label joins the row's labels with " | ",
and repeats a parent label that the paper prints only once: "Small | Full".
"""

from __future__ import annotations

import csv
import hashlib
import re
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

FILE = Path(__file__).with_name("paper.csv")
LABEL_SEPARATOR = " | "  # joins a row's labels to its name


@dataclass(frozen=True)
class Benchmark:
    """What a heading of the paper's tables scores. questions: how many the paper asked; MMLU's test
    split, MedMCQA's validation split and the authors' half of PQA-L, whose multiples the printed
    values are (config.yaml's `assumptions`); of Sujet's tenth those with closed answers."""

    name: str
    questions: int


# By the heading of a column.
BENCHMARKS = {
    "MMLU": Benchmark("MMLU", 14_042),
    "MedMCQA": Benchmark("MedMCQA", 4_183),
    "Medicine": Benchmark("MedMCQA", 4_183),
    "PubMedQA": Benchmark("PubMedQA", 500),
    "Finance": Benchmark("Finance", 8_175),
}

_POWER_OF_TEN = {"": 0, "K": 3, "M": 6, "B": 9}


@dataclass(frozen=True)
class Published:
    """A cell of the paper: its table, row (from 1), labels, heading, and the text that it
    prints."""

    table: int
    row: int
    label: str
    column: str
    printed: str

    @property
    def value(self) -> float:
        """Its number: parameters as a count, time in hours, scores as fractions of 1."""
        return number(self.printed)


def digest() -> str:
    """SHA-256 of the printed values. Jobs that show them have it as a parameter, because the file's
    path would differ between checkouts."""
    return hashlib.sha256(FILE.read_bytes()).hexdigest()


def number(printed: str) -> float:
    """The number that a cell prints: "1.86B" is 1.86e9, "2.3M" is 2.3e6, "0.6" is 0.6. Raises
    ValueError where the text is not a number with an optional K, M or B."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMB]?)", printed)
    if match is None:
        raise ValueError(f"{printed!r} is not a published number such as 0.3331, 14 or 1.86B")
    digits, suffix = match.groups()
    # Decimal, so that 2.3M is exactly 2300000.0.
    return float(Decimal(digits).scaleb(_POWER_OF_TEN[suffix]))


@cache
def cells() -> dict[tuple[int, str, str], Published]:
    """Every published cell by (table, label, column), in the paper's order."""
    with FILE.open(encoding="utf-8", newline="") as lines:
        found = [
            Published(int(r["table"]), int(r["row"]), r["label"], r["column"], r["printed"])
            for r in csv.DictReader(lines)
        ]
    return {(cell.table, cell.label, cell.column): cell for cell in found}


def published() -> pd.DataFrame:
    """Every published cell as a frame: table, row, label, column, printed and its numeric value."""
    import pandas as pd

    names = ("table", "row", "label", "column", "printed", "value")
    rows = [[getattr(cell, name) for name in names] for cell in cells().values()]
    return pd.DataFrame(rows, columns=list(names))


def printed(table: int | str, label: str, column: str) -> str | None:
    """What the paper prints in a cell; None where it prints nothing, as in a row of the user."""
    cell = cells().get((table, label, column))
    return cell.printed if cell else None
