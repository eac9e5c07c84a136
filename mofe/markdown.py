"""Tables in Markdown: the one helper for pages, model cards and generated documentation."""

import re
from collections.abc import Sequence
from typing import Any


def escape(text: Any) -> str:
    """A cell's text: a bar or a line's end would end the cell."""
    return re.sub(r"\s*\n\s*", " ", str(text)).replace("|", "\\|")


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]], align: str = "") -> str:
    """A table, its columns padded so that it reads as text too.

    headings: one for each column. rows: cells, in the headings' order. align: "l" or "r" for each
    column; columns beyond its end are aligned left. Returns lines without a line's end at the last.
    """
    cells = [[escape(cell) for cell in row] for row in (headings, *rows)]
    widths = [max(3, *(len(row[column]) for row in cells)) for column in range(len(headings))]
    right = [align[column : column + 1] == "r" for column in range(len(headings))]

    def line(row: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(row, widths, right, strict=True)
        )
        return f"| {' | '.join(padded).rstrip()} |"

    rule = [
        "-" * (width - 1) + (":" if to_right else "-")
        for width, to_right in zip(widths, right, strict=True)
    ]
    return "\n".join(
        [line(cells[0]), f"|{'|'.join(f' {r} ' for r in rule)}|", *map(line, cells[1:])]
    )
