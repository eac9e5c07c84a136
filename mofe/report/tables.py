"""A table of the paper with our values, as LaTeX, Markdown and tidy CSV.

A cell shows our mean over seeds, its standard deviation, and in parentheses the paper's value
exactly as printed. Training time in seconds is shown without the paper's, which is in hours.
Columns that the paper's table lacks are at the right in Markdown, under BESIDE, and in the CSV;
LaTeX has only the paper's columns.
"""

from __future__ import annotations

import itertools
import math
import os
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from mofe import paper, records
from mofe.files import write_atomic
from mofe.markdown import plain
from mofe.markdown import table as markdown_table
from mofe.records import TrainRecord
from mofe.report import frames
from mofe.study.tables import Table
from mofe.templates import render
from mofe.units import parameters

BESIDE = "Not in the paper"  # heads the columns that only we have

_TEMPLATE = Path(__file__).with_name("table.tex.jinja")


def write(
    table: Table,
    unit: frames.Unit,
    tex: str | os.PathLike,
    md: str | os.PathLike,
    csv: str | os.PathLike,
) -> None:
    """Write the three files of a table. Raises what frames.tidy raises; no file is then changed."""
    frame = frames.tidy(table, unit)
    texts = {tex: latex(table, frame, unit), md: markdown(table, frame, unit), csv: to_csv(frame)}
    for path, text in texts.items():
        write_atomic(path, text)


def to_csv(frame: pd.DataFrame) -> str:
    """The tidy frame as CSV. With 12 digits, every count of parameters is exact."""
    return frame.to_csv(index=False, float_format="%.12g", lineterminator="\n")


# --- what a cell says, in any format ----------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A cell's texts, each of which may be empty.

    ours, sd: our mean and its standard deviation. paper: the published value as printed.
    """

    ours: str = ""
    sd: str = ""
    paper: str = ""


def columns(table: Table, unit: frames.Unit) -> list[str]:
    """The headings of the value columns, left to right. That of time names its unit."""
    kinds = kind_by_column(table)
    return [
        frames.time_column(column, unit) if kinds[column] == "time" else column
        for column in table.columns
    ]


def kind_by_column(table: Table) -> dict[str, str]:
    """The kind (trainable, time or task) of every column by its heading, those of BESIDE
    included."""
    return {cell.column: cell.kind for row in table.rows for cell in (*row.cells, *row.beside)}


def entries(table: Table, frame: pd.DataFrame, unit: frames.Unit) -> list[list[Entry]]:
    """The cells of the paper's columns row by row, in the order of `columns`."""
    return _entries(table, frame, list(zip(table.columns, columns(table, unit), strict=True)))


def entries_beside(table: Table, frame: pd.DataFrame) -> list[list[Entry]]:
    """The cells of the columns that the paper's table lacks, row by row."""
    return _entries(table, frame, list(zip(table.beside, table.beside, strict=True)))


def _entries(table: Table, frame: pd.DataFrame, pairs: list[tuple[str, str]]) -> list[list[Entry]]:
    """The cells of some columns, row by row. pairs: (heading, heading as shown) of each column."""
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
    """The texts of a cell of table `number`. line: its line of the tidy frame; None if it has
    none."""
    if line is None:
        return Entry()
    published = paper.printed(number, label, line.column) or ""
    if pd.isna(line.value):
        return Entry(paper=published)
    ours, sd = format_pair(line.value, line.sd, kind)
    return Entry(ours, sd, published)


def format_pair(value: float, sd: float, kind: str) -> tuple[str, str]:
    """A value and its standard deviation with the same number of decimals. One seed has no
    deviation, and neither have parameters, whose number is the same for all seeds."""
    if kind == "trainable":
        return parameters(value), ""
    decimals = 4 if kind == "task" else _decimals(value)
    return f"{value:.{decimals}f}", "" if pd.isna(sd) else f"{sd:.{decimals}f}"


def _decimals(time: float) -> int:
    """The number of decimals that show three digits of a time; at most 3."""
    return min(3, max(0, 2 - math.floor(math.log10(time)))) if time > 0 else 0


def shown_labels(table: Table) -> list[tuple[str, ...]]:
    """The rows' labels as the paper prints them: a label is blank if the row above has the same
    label and the same labels left of it. Last labels and counts ("0 | 2 | 2") are always
    printed."""
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


def headings(table: Table, unit: frames.Unit) -> list[tuple[str, str]]:
    """(group, heading) of the paper's columns, label columns first. The group is empty if there is
    none, or if it only repeats the heading ("MedMCQA" over "MedMCQA"). Raises ValueError where the
    table's header does not span its columns."""
    own = [*table.label_headings, *columns(table, unit)]
    groups = [text for text, width in table.header for _ in range(width)] or [""] * len(own)
    if len(groups) != len(own):
        raise ValueError(
            f"table {table.number}: the header spans {len(groups)} columns of {len(own)}"
        )
    pairs = zip(groups, own, strict=True)
    return [("" if group == heading else group, heading) for group, heading in pairs]


def note(table: Table, frame: pd.DataFrame, unit: frames.Unit) -> str:
    """How to read a cell, in one to three sentences."""
    seeds = int(frame["seeds"].max(skipna=True)) if frame["seeds"].notna().any() else 0
    # Untuned models have no seed, so even a study of several seeds has values from one run.
    mean = f"mean ± standard deviation over {seeds} seeds, or one run" if seeds > 1 else "one run"
    published = frame["paper"].notna().any()
    theirs = "; in parentheses the paper's value" if published else ""
    sentences = [f"Ours: {mean}{theirs}."]
    if unit != "hours" and "time" in kind_by_column(table).values():
        theirs = "; the paper's, in hours, is not comparable" if published else ""
        sentences.append(f"Training time is in seconds{theirs}.")
    if _on_several_gpus(table):
        sentences.append("Training time is of all GPUs that computed a row together, added up.")
    return " ".join(sentences)


def _on_several_gpus(table: Table) -> bool:
    """Whether several processes computed a training whose time is shown."""
    timed = [cell for row in table.rows for cell in row.cells if cell.kind == "time"]
    runs = (
        records.read(path, TrainRecord)
        for cell in timed
        for stages in cell.files
        for path in stages
    )
    return any(run.processes > 1 for run in runs)


# --- LaTeX ------------------------------------------------------------------------------------

_HEADING_WIDTH = 10  # characters of a heading in one line
# (characters of a label in one line, points between columns), so that a table fits into a page of
# 345 pt (article, 10 pt): with up to two columns of values, and with more of them
_FEW_COLUMNS, _MANY_COLUMNS = (20, 5), (10, 2.5)

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
        "δ": r"$\delta$",
        "\u2212": r"$-$",  # minus sign
    }
)


def escape(text: str) -> str:
    """Plain text as LaTeX that prints it."""
    return text.translate(_LATEX)


def latex(table: Table, frame: pd.DataFrame, unit: frames.Unit) -> str:
    """A table float within a page's width. It needs the booktabs package and nothing else.

    Our value and the paper's have a LaTeX column each under their common heading, so that digits
    are aligned.
    """
    columns = _latex_columns(table, unit)
    label_width, column_gap = _FEW_COLUMNS if len(table.columns) <= 2 else _MANY_COLUMNS
    labels = [[_lines(text, label_width) for text in texts] for texts in shown_labels(table)]
    return render(
        _TEMPLATE,
        filters={"tex": escape},
        table=table,
        note=note(table, frame, unit),
        column_gap=column_gap,
        columns=columns,
        groups=_latex_groups(columns),
        blocks=any(texts and not texts[0] for texts in labels),
        rows=list(zip(labels, entries(table, frame, unit), strict=True)),
    )


@dataclass(frozen=True)
class LatexColumn:
    """A column of the table, which is one or two columns in LaTeX.

    group: its upper heading. heading: its lower heading, line by line. align: l or c. width: its
    number of LaTeX columns, 2 for our value and the paper's.
    """

    group: str
    heading: list[str]
    align: str
    width: int


def _latex_columns(table: Table, unit: frames.Unit) -> list[LatexColumn]:
    """All columns of the table. Labels are aligned left if they are words, and centred if they are
    counts; headings of values are centred."""
    columns = []
    for index, (group, heading) in enumerate(headings(table, unit)):
        is_label = index < len(table.label_headings)
        words = is_label and not all(row.labels[index].isdigit() for row in table.rows)
        lines = _lines(heading, _HEADING_WIDTH)
        columns.append(LatexColumn(group, lines, "l" if words else "c", 1 if is_label else 2))
    return columns


def _latex_groups(columns: list[LatexColumn]) -> list[tuple[str, int, int]]:
    """(group, its first LaTeX column, its last), counted from 1; empty if no column has a group."""
    groups, last = [], 0
    for group, members in itertools.groupby(columns, key=lambda column: column.group):
        first, last = last + 1, last + sum(column.width for column in members)
        groups.append((group, first, last))
    return groups if any(group for group, *_ in groups) else []


def _lines(text: str, width: int) -> list[str]:
    """Text in lines of at most `width` characters, broken at spaces and hyphens; longer words
    stay."""
    return textwrap.wrap(text, width, break_long_words=False)


# --- Markdown ---------------------------------------------------------------------------------


def markdown(table: Table, frame: pd.DataFrame, unit: frames.Unit) -> str:
    """The table in GitHub's Markdown, with a group in front of its heading: "Model: General"."""
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


def _markdown_entry(entry: Entry) -> str:
    published = f"({entry.paper})" if entry.paper else ""
    ours = f"{entry.ours} ± {entry.sd}" if entry.sd else entry.ours
    return " ".join(filter(None, (ours, published)))
