"""The values published in Tables 1-7 of the paper, cell by cell.

They are in one data file, mofe/report/paper.csv, with the text exactly as printed; a test compares
it with the paper. A cell is found by (table, label, column). The label joins the row's labels with
" | ", and repeats a parent label that the paper prints only once: "Small | Full".
"""

from __future__ import annotations

import re
from decimal import Decimal
from functools import cache
from pathlib import Path

import pandas as pd

FILE = Path(__file__).with_name("paper.csv")
LABEL_SEPARATOR = " | "

_POWER_OF_TEN = {"": 0, "K": 3, "M": 6, "B": 9}


def number(printed: str) -> float:
    """The number that a cell prints: "1.86B" is 1.86e9, "2.3M" is 2.3e6, "0.6" is 0.6. Raises
    ValueError where the text is not a number with an optional K, M or B."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMB]?)", printed)
    if match is None:
        raise ValueError(f"{printed!r} is not a published number such as 0.3331, 14 or 1.86B")
    digits, suffix = match.groups()
    # Decimal, so that 2.3M is exactly 2300000.0.
    return float(Decimal(digits).scaleb(_POWER_OF_TEN[suffix]))


def published() -> pd.DataFrame:
    """Every published cell: table, row (from 1), label, column, printed and its numeric value.

    Parameters are counts, training time is in hours, and scores are fractions of 1.
    """
    cells = pd.read_csv(FILE, dtype={"table": int, "row": int}, converters={"printed": str})
    return cells.assign(value=[number(printed) for printed in cells["printed"]])


@cache
def _printed_by_cell() -> dict[tuple[int, str, str], str]:
    cells = published()
    keys = zip(cells["table"], cells["label"], cells["column"], strict=True)
    return dict(zip(keys, cells["printed"], strict=True))


def printed(table: int | str, label: str, column: str) -> str | None:
    """What the paper prints in a cell; None where it prints nothing, as in a row of the user."""
    return _printed_by_cell().get((table, label, column))
