"""A paper's table with our values in it, as LaTeX, markdown and tidy CSV.

A cell shows our mean over seeds, its standard deviation, and the paper's value in parentheses,
digit for digit as the paper prints it. Training time in seconds shows no published value: the
paper's is in hours, and the two are never mixed. Columns that the paper's table lacks stand at its
right in markdown, under BESIDE, and in the CSV; LaTeX is the paper's table, without them.
"""

from __future__ import annotations

import itertools
import math
import os
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mofe import records
from mofe.files import write_atomic
from mofe.markdown import plain
from mofe.markdown import table as markdown_table
from mofe.records import TrainRecord
from mofe.report import frames, paper
from mofe.templates import render
from mofe.units import parameters

BESIDE = "Not in the paper"  # heads the columns that only we have

# What a page 345 pt wide (article, 10 pt) can take: longer texts are broken into lines.
_TEMPLATE = Path(__file__).with_name("table.tex.jinja")
_HEADING_WIDTH = 10
_LABEL_WIDTH, _LABEL_WIDTH_BESIDE_MANY, _MANY = 20, 10, 3


def write(
    table,
    unit: frames.Unit,
    tex: str | os.PathLike,
    md: str | os.PathLike,
    csv: str | os.PathLike,
) -> None:
    """Write the three files of a table; none is touched if a result cannot be read.

    Raises:
        ValueError: see frames.tidy.
    """
    frame = frames.tidy(table, unit)
    texts = {tex: latex(table, frame, unit), md: markdown(table, frame, unit), csv: to_csv(frame)}
    for path, text in texts.items():
        write_atomic(path, text)


def to_csv(frame: pd.DataFrame) -> str:
    """The tidy frame as CSV; 12 digits hold a parameter count of any model here exactly."""
    return frame.to_csv(index=False, float_format="%.12g", lineterminator="\n")


# --- what a cell says, in any format ----------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A cell's texts; empty where there is nothing to say."""

    ours: str = ""
    sd: str = ""
    paper: str = ""


def columns(table, unit: frames.Unit) -> list[str]:
    """The value columns as shown, left to right: time is headed by the unit it is in."""
    kinds = kind_by_column(table)
    return [
        frames.time_column(column, unit) if kinds[column] == "time" else column
        for column in table.columns
    ]


def kind_by_column(table) -> dict[str, str]:
    """Every heading, ours beside the paper's included -> trainable, time or task."""
    return {cell.column: cell.kind for row in table.rows for cell in (*row.cells, *row.beside)}


def entries(table, frame: pd.DataFrame, unit: frames.Unit) -> list[list[Entry]]:
    """The cells of the paper's columns row by row, in the order of ``columns``."""
    return _entries(table, frame, list(zip(table.columns, columns(table, unit), strict=True)))


def entries_beside(table, frame: pd.DataFrame) -> list[list[Entry]]:
    """The cells of the columns that only we have, row by row."""
    return _entries(table, frame, list(zip(table.beside, table.beside, strict=True)))


def _entries(table, frame: pd.DataFrame, pairs: list[tuple[str, str]]) -> list[list[Entry]]:
    """pairs: (heading, heading as shown) of each column."""
    kinds = kind_by_column(table)
    lines = {(line.row, line.column): line for line in frame.itertuples(index=False)}
    return [
        [
            entry(lines.get((number, shown)), kinds[column], table.number, frames.label(row))
            for column, shown in pairs
        ]
        for number, row in enumerate(table.rows, start=1)
    ]


def entry(line, kind: str, number: int | str, label: str) -> Entry:
    """The texts of one line of the tidy frame (None: no such line) of table ``number``."""
    if line is None:
        return Entry()
    published = paper.printed(number, label, line.column) or ""
    if pd.isna(line.value):
        return Entry(paper=published)
    ours, sd = format_pair(line.value, line.sd, kind)
    return Entry(ours, sd, published)


def format_pair(value: float, sd: float, kind: str) -> tuple[str, str]:
    """A value and its standard deviation to the same decimals; no deviation for one seed.

    Parameters have none: they are counted, and equal for all seeds.
    """
    if kind == "trainable":
        return parameters(value), ""
    decimals = 4 if kind == "task" else _decimals(value)
    return f"{value:.{decimals}f}", "" if pd.isna(sd) else f"{sd:.{decimals}f}"


def _decimals(time: float) -> int:
    """Three digits of a time are worth reading, whichever unit it is in; at most 3 decimals."""
    return min(3, max(0, 2 - math.floor(math.log10(time)))) if time > 0 else 0


def shown_labels(table) -> list[tuple[str, ...]]:
    """The rows' labels with repeated parents blank, as the paper prints them.

    A label is a parent if others follow it. Counts ("0 | 2 | 2") are values and are repeated.
    """
    shown, previous = [], ()
    for row in table.rows:
        texts = list(row.labels)
        for depth in range(len(texts) - 1):
            same = tuple(row.labels[: depth + 1]) == tuple(previous[: depth + 1])
            if same and not row.labels[depth].isdigit():
                texts[depth] = ""
        shown.append(tuple(texts))
        previous = row.labels
    return shown


def headings(table, unit: frames.Unit) -> list[tuple[str, str]]:
    """(group, heading) of the paper's columns, label columns first; the group is empty if there is
    none.

    Where a group is one column wide and only repeats its heading ("MedMCQA" over "MedMCQA"), the
    group is dropped.

    Raises:
        ValueError: the table's header does not span its columns.
    """
    own = [*table.label_headings, *columns(table, unit)]
    groups = [text for text, width in table.header for _ in range(width)] or [""] * len(own)
    if len(groups) != len(own):
        raise ValueError(
            f"table {table.number}: the header spans {len(groups)} columns of {len(own)}"
        )
    pairs = zip(groups, own, strict=True)
    return [("" if group == heading else group, heading) for group, heading in pairs]


def note(table, frame: pd.DataFrame, unit: frames.Unit) -> str:
    """How to read a cell, in one or two sentences."""
    seeds = int(frame["seeds"].max(skipna=True)) if frame["seeds"].notna().any() else 0
    # Untuned models have no seed, so even in a study of several some values are of one run.
    mean = f"mean ± standard deviation over {seeds} seeds, or one run" if seeds > 1 else "one run"
    published = frame["paper"].notna().any()
    theirs = "; in parentheses the paper's value" if published else ""
    sentences = [f"Ours: {mean}{theirs}."]
    if unit != "hours" and "time" in kind_by_column(table).values():
        theirs = "; the paper's, in hours, is not comparable" if published else ""
        sentences.append(f"Training time is in seconds{theirs}.")
    if _shared(table):
        sentences.append("Training time is of all GPUs that computed a row together, added up.")
    return " ".join(sentences)


def _shared(table) -> bool:
    """Whether a training time is of more than one process."""
    timed = [cell for row in table.rows for cell in row.cells if cell.kind == "time"]
    runs = (
        records.read(path, TrainRecord)
        for cell in timed
        for stages in cell.files
        for path in stages
    )
    return any(run.processes > 1 for run in runs)


# --- LaTeX ------------------------------------------------------------------------------------

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "$": r"\$",
        "&": r"\&",
        "#": r"\#",
        "%": r"\%",
        "_": r"\_",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        # After a line's end these would be its arguments.
        "[": "{[}",
        "]": "{]}",
        "*": "{*}",
        # In the standard fonts' encoding these three print as other characters.
        "<": r"$<$",
        ">": r"$>$",
        "|": r"$|$",
        "→": r"$\rightarrow$",
        "←": r"$\leftarrow$",
        "±": r"$\pm$",
        "\u00d7": r"$\times$",  # multiplication sign
        "≤": r"$\leq$",
        "≥": r"$\geq$",
        "\u2212": r"$-$",  # minus sign
    }
)


def escape(text: str) -> str:
    """Plain text as LaTeX that prints it."""
    return text.translate(_LATEX)


def latex(table, frame: pd.DataFrame, unit: frames.Unit) -> str:
    """A table float that needs the booktabs package and nothing else, within a page's width.

    Ours and the paper's values have a column each under their common heading, so that digits align
    whatever stands beside them.
    """
    columns, many = _latex_columns(table, unit), len(table.columns) >= _MANY
    room = _LABEL_WIDTH_BESIDE_MANY if many else _LABEL_WIDTH
    labels = [[_lines(text, room) for text in texts] for texts in shown_labels(table)]
    return render(
        _TEMPLATE,
        filters={"tex": escape},
        table=table,
        note=note(table, frame, unit),
        column_gap=2.5 if many else 5,
        columns=columns,
        groups=_latex_groups(columns),
        blocks=any(texts and not texts[0] for texts in labels),
        rows=list(zip(labels, entries(table, frame, unit), strict=True)),
    )


@dataclass(frozen=True)
class LatexColumn:
    """A column as the template sets it.

    group, heading: its headings, the lower one in lines. align: l or c. width: of how many of
    LaTeX's columns it is made, 2 for a value of ours beside the paper's.
    """

    group: str
    heading: list[str]
    align: str
    width: int


def _latex_columns(table, unit: frames.Unit) -> list[LatexColumn]:
    """All columns: words are aligned left; counts and the headings of values are centred."""
    labels, columns = len(table.label_headings), []
    for at, (group, heading) in enumerate(headings(table, unit)):
        words = at < labels and not all(row.labels[at].isdigit() for row in table.rows)
        lines = _lines(heading, _HEADING_WIDTH)
        columns.append(LatexColumn(group, lines, "l" if words else "c", 1 if at < labels else 2))
    return columns


def _latex_groups(columns: list[LatexColumn]) -> list[tuple[str, int, int]]:
    """(group, its first of LaTeX's columns from 1, its last); none where no column has a group."""
    groups, last = [], 0
    for group, members in itertools.groupby(columns, key=lambda column: column.group):
        first, last = last + 1, last + sum(column.width for column in members)
        groups.append((group, first, last))
    return groups if any(group for group, *_ in groups) else []


def _lines(text: str, width: int) -> list[str]:
    """Text in lines of at most ``width`` characters where it has spaces or hyphens to break at."""
    return textwrap.wrap(text, width, break_long_words=False)


# --- markdown ---------------------------------------------------------------------------------


def markdown(table, frame: pd.DataFrame, unit: frames.Unit) -> str:
    """The table in GitHub's markdown, with a group in front of its heading: "Model: General"."""
    pairs = [*headings(table, unit), *((BESIDE, text) for text in table.beside)]
    heads = [plain(f"{group}: {text}" if group else text) for group, text in pairs]
    count = len(table.label_headings)
    rows = [
        [plain(text) for text in (*labels, *map(_markdown_entry, (*row, *beside)))]
        for labels, row, beside in zip(
            shown_labels(table),
            entries(table, frame, unit),
            entries_beside(table, frame),
            strict=True,
        )
    ]
    align = "l" * count + "r" * (len(heads) - count)
    title = f"**Table {table.number}.** {plain(table.caption)}"
    body = markdown_table(heads, rows, align, padded=False)
    return f"{title}\n\n{body}\n\n{note(table, frame, unit)}\n"


def _markdown_entry(it: Entry) -> str:
    published = f"({it.paper})" if it.paper else ""
    ours = f"{it.ours} ± {it.sd}" if it.sd else it.ours
    return " ".join(filter(None, (ours, published)))
