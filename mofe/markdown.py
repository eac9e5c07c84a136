"""Tables in Markdown, for pages, model cards and generated documentation.

A cell holds Markdown: `code`, **bold**. `plain` escapes text that shall appear as it is.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

# An escaped character stays, so that escaping twice changes nothing.
_BAR = re.compile(r"(\\.)|\|")
_CELL = re.compile(r"((?:\\.|[^|\\]|\\$)*)\|")
_RULES = {"": "---", "l": ":--", "r": "--:"}


def plain(text: Any) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_|<\[\]])", r"\\\1", str(text))


def escape(cell: Any) -> str:
    """A cell's Markdown on one line and without bars, either of which would end the cell."""
    return _BAR.sub(lambda found: found[1] or r"\|", re.sub(r"\s*[\r\n]\s*", " ", str(cell)))


def row(cells: Iterable[Any]) -> str:
    """A line of a table."""
    return f"| {' | '.join(map(escape, cells))} |"


def table(
    headings: Sequence[str], rows: Iterable[Sequence[Any]], align: str = "", padded: bool = True
) -> str:
    """A table, without a line's end after its last line.

    headings: one per column. rows: their cells, in the headings' order. align: "l" or "r" per
    column; columns beyond its end have no alignment, which shows them at the left. padded: whether
    columns are padded with spaces, so that the table can be read as text.
    """
    rule = [_RULES[align[column : column + 1]] for column in range(len(headings))]
    lines = "\n".join(map(row, (headings, rule, *rows)))
    return aligned(lines) if padded else lines


def aligned(text: str) -> str:
    """Markdown with the columns of its tables padded, to the side that their second lines give.
    Other text stays as it is."""
    return re.sub(r"(?m)^\|.*\|\n\|[-:| ]+\|(\n\|.*\|)*$", lambda found: _padded(found[0]), text)


def _padded(lines: str) -> str:
    """A table with padded columns. The last column is padded only if it is aligned right."""
    head, rule, *rows = (_cells(line) for line in lines.split("\n"))
    widths = [max(3, *map(len, column)) for column in zip(head, *rows, strict=True)]
    right = [cell.endswith(":") for cell in rule]
    rule = [
        cell[0] + "-" * (width - 2) + cell[-1] for cell, width in zip(rule, widths, strict=True)
    ]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if to_right else cell.ljust(width)
            for cell, width, to_right in zip(cells, widths, right, strict=True)
        )
        return f"| {' | '.join(padded).rstrip()} |"

    return "\n".join([line(head), f"| {' | '.join(rule)} |", *map(line, rows)])


def _cells(line: str) -> list[str]:
    """The cells of a table's line, without the spaces around them."""
    return [cell.strip() for cell in _CELL.findall(line[1:])]
