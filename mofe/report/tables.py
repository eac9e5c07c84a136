"""A table of the paper with our values, as LaTeX, Markdown and tidy CSV.

A cell shows our mean over seeds, its standard deviation, and in parentheses the paper's value
exactly as printed, with a dagger where it is inside the paper's own noise of the best that it
prints. Training time in seconds is shown without the paper's, which is in hours. Every output says
which study "ours" is, and its scale.
Columns that the paper's table lacks are at the right in Markdown, under BESIDE, and in the CSV;
LaTeX has only the paper's columns.
"""

from __future__ import annotations

import itertools
import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pandas as pd

from mofe import paper, records, units
from mofe.files import write_atomic
from mofe.markdown import plain
from mofe.markdown import table as markdown_table
from mofe.records import TrainRecord
from mofe.report import frames, noise
from mofe.report.kinds import KINDS
from mofe.study.setting import Setting
from mofe.study.tables import Cell, Table
from mofe.study.values import TIMES
from mofe.templates import render

BESIDE = "Not in the paper"  # heads the columns that only we have
IN_NOISE = "\N{DAGGER}"  # marks the paper's values inside its own noise of its best

_TEMPLATE = Path(__file__).with_name("table.tex.jinja")


@dataclass(frozen=True)
class Absent:
    """Cells of a table that cannot be shown: their texts by (row from 1, heading), and the
    sentences that say why (mofe/report/partial.py)."""

    texts: Mapping[tuple[int, str], str] = field(default_factory=dict)
    why: str = ""


NONE_ABSENT = Absent()


def write(
    table: Table,
    setting: Setting,
    tex: str | os.PathLike,
    md: str | os.PathLike,
    csv: str | os.PathLike,
) -> None:
    """Write the three files of a table. Raises what frames.tidy raises; no file is then changed."""
    frame = frames.tidy(table, setting)
    shown = (table, frame, setting)
    texts = {tex: latex(*shown), md: markdown(*shown), csv: to_csv(frame)}
    for path, text in texts.items():
        write_atomic(path, text)


def to_csv(frame: pd.DataFrame) -> str:
    """The tidy frame as CSV. With 12 digits, every count of parameters is exact."""
    return frame.to_csv(index=False, float_format="%.12g", lineterminator="\n")


# --- what a cell says, in any format ----------------------------------------------------------


@dataclass(frozen=True)
class Entry:
    """A cell's texts, each of which may be empty.

    ours, sd: our mean and its standard deviation. unit: theirs, where the heading does not name it.
    paper: the published value as printed. mark: IN_NOISE where it is.
    """

    ours: str = ""
    sd: str = ""
    unit: str = ""
    paper: str = ""
    mark: str = ""


def columns(table: Table, setting: Setting) -> list[str]:
    """The headings of the value columns, left to right. That of time names its unit."""
    kinds = kind_by_column(table)
    return [
        frames.time_column(column, setting.unit) if kinds[column] in TIMES else column
        for column in table.columns
    ]


def kind_by_column(table: Table) -> dict[str, str]:
    """The kind (of mofe.report.kinds) of every column by its heading, those of BESIDE included."""
    cells = [cell for row in table.rows for cell in (*row.cells, *row.beside)]
    return {cell.column: cell.kind for cell in cells if cell.kind != "floor"}


def is_published(frame: pd.DataFrame, shown: str) -> bool:
    """Whether the paper prints anything in a column, by its heading as shown."""
    return bool(frame.loc[frame["column"] == shown, "paper"].notna().any())


def entries(
    table: Table, frame: pd.DataFrame, setting: Setting, absent: Absent = NONE_ABSENT
) -> list[list[Entry]]:
    """The cells of the paper's columns row by row, in the order of `columns`."""
    pairs = list(zip(table.columns, columns(table, setting), strict=True))
    return _entries(table, frame, pairs, absent)


def entries_beside(
    table: Table, frame: pd.DataFrame, absent: Absent = NONE_ABSENT
) -> list[list[Entry]]:
    """The cells of the columns that the paper's table lacks, row by row."""
    return _entries(table, frame, list(zip(table.beside, table.beside, strict=True)), absent)


def _entries(
    table: Table, frame: pd.DataFrame, pairs: list[tuple[str, str]], absent: Absent
) -> list[list[Entry]]:
    """The cells of some columns, row by row. pairs: (heading, heading as shown) of each column."""

    def shown(number: int, column: str, found: Entry) -> Entry:
        text = absent.texts.get((number, column))
        return found if text is None else replace(found, ours=text, sd="", unit="")

    kinds = kind_by_column(table)
    lines = {(line.row, line.column): line for line in frame.itertuples(index=False)}
    return [
        [
            shown(
                number,
                column,
                entry(lines.get((number, heading)), kinds[column], table.number, frames.label(row)),
            )
            for column, heading in pairs
        ]
        for number, row in enumerate(table.rows, start=1)
    ]


def entry(line, kind: str, number: int | str, label: str) -> Entry:
    """The texts of a cell of table `number`. line: its line of the tidy frame; None if it has
    none."""
    if line is None:
        return Entry()
    published = paper.printed(number, label, line.column) or ""
    mark = IN_NOISE if pd.notna(line.paper_in_noise) and line.paper_in_noise else ""
    if pd.isna(line.value):
        return Entry(paper=published, mark=mark)
    ours = KINDS[kind].print(line.value, line.sd)
    return Entry(ours.value, ours.sd, ours.unit, published, mark)


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


def headings(table: Table, setting: Setting) -> list[tuple[str, str]]:
    """(group, heading) of the paper's columns, label columns first. The group is empty if there is
    none, or if it only repeats the heading ("MedMCQA" over "MedMCQA"). Raises ValueError where the
    table's header does not span its columns."""
    own = [*table.label_headings, *columns(table, setting)]
    groups = [text for text, width in table.header for _ in range(width)] or [""] * len(own)
    if len(groups) != len(own):
        raise ValueError(
            f"table {table.number}: the header spans {len(groups)} columns of {len(own)}"
        )
    pairs = zip(groups, own, strict=True)
    return [("" if group == heading else group, heading) for group, heading in pairs]


def note(table: Table, frame: pd.DataFrame, setting: Setting) -> str:
    """What ours is, and how to read a cell, in two to five sentences."""
    seeds = int(frame["seeds"].max(skipna=True)) if frame["seeds"].notna().any() else 0
    # Untuned models have no seed, so even a study of several seeds has values from one run.
    mean = f"Mean ± standard deviation over {seeds} seeds, or one run" if seeds > 1 else "One run"
    published = frame["paper"].notna().any()
    theirs = "; in parentheses the paper's value" if published else ""
    of_another = ", of another setting" if published and not setting.is_papers else ""
    sentences = [setting.ours, f"{mean}{theirs}{of_another}."]
    if marked := in_noise(frame):
        sentences.append(marked)
    if setting.unit != "hours" and shown_times(table):
        theirs = "; the paper's, in hours, is not comparable" if published else ""
        sentences.append(f"Training time is in seconds{theirs}.")
    if resumed := _resumed(table):
        sentences.append(resumed)
    return " ".join((*sentences, *times_told(table, setting, published)))


def shown_times(table: Table) -> list[str]:
    """The kinds of training time that the table's columns show."""
    kinds = kind_by_column(table).values()
    return [kind for kind in TIMES if kind in kinds]


def times_told(table: Table, setting: Setting, published: bool) -> list[str]:
    """Which time a column shows, in sentences, where that makes a difference: in hours, beside the
    paper's, or where several GPUs computed a row."""
    shown = shown_times(table)
    if not shown or not (setting.unit == "hours" or _on_several_gpus(table) or len(shown) > 1):
        return []
    told = [
        f"{frames.time_column(column, setting.unit)} is {_TIMES_ARE[kind]}"
        for column, kind in kind_by_column(table).items()
        if kind in shown
    ]
    if published and setting.unit == "hours":
        told.append("the paper's hours are those of one machine with three A100s")
    return ["; ".join(told) + "."]


_TIMES_ARE = {
    "time": "of all GPUs that computed a row together, added up (GPU-hours)",
    "wall_time": "by the clock, however many GPUs computed a row together",
}


def in_noise(frame: pd.DataFrame) -> str:
    """What the mark IN_NOISE means, with the differences that it stands for; empty where no value
    of the table has it."""
    marked = set(frame.loc[frame["paper_in_noise"].fillna(False), "column"])
    limits = []
    for column in (column for column in frame["column"].unique() if column in marked):
        best = frame.loc[frame["column"] == column, "paper"].max()
        limit = noise.threshold(column, best, best, trained=(True, True))
        lent = ", by MedMCQA's noise" if noise.is_borrowed(column) else ""
        limits.append(f"{limit:.3f} on {column}{lent}")
    if not limits:
        return ""
    return (
        f"{IN_NOISE} Inside the paper's own noise of the best value that it prints in the column: "
        f"single runs differ by chance by up to {units.listed(limits)} (95 of 100 times)."
    )


def _resumed(table: Table) -> str:
    """Of which rows the time is of interrupted trainings, as a sentence; empty where there
    are none."""
    rows = [
        ", ".join(row.labels) for row in table.rows if any(run.resumed for run in _timed(row.cells))
    ]
    if not rows:
        return ""
    return (
        f"Times of {units.first(rows)} are sums over the parts of trainings that were interrupted."
    )


def _on_several_gpus(table: Table) -> bool:
    """Whether several processes computed a training whose time is shown."""
    return any(run.processes > 1 for row in table.rows for run in _timed(row.cells))


def _timed(cells: Sequence[Cell]) -> Iterator[TrainRecord]:
    """The records of the trainings whose time these cells show."""
    for cell in cells:
        if cell.kind in TIMES:
            yield from (records.read(path, TrainRecord) for part in cell.files for path in part)


# --- LaTeX ------------------------------------------------------------------------------------

_HEADING_WIDTH = 10  # characters of a heading in one line
# (characters of a label in one line, points between columns), so that a table fits into a page of
# 345 pt (article, 10 pt): with up to two columns of values, and with more of them
_FEW_COLUMNS, _MANY_COLUMNS = (20, 5), (10, 2)

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
        "\N{DAGGER}": r"$^\dagger$",
        "≤": r"$\leq$",
        "≥": r"$\geq$",
        "δ": r"$\delta$",
        "\u2212": r"$-$",  # minus sign
    }
)


def escape(text: str) -> str:
    """Plain text as LaTeX that prints it."""
    return text.translate(_LATEX)


def latex(table: Table, frame: pd.DataFrame, setting: Setting, absent: Absent = NONE_ABSENT) -> str:
    """A table float within a page's width. It needs the booktabs package and nothing else.

    Our value and the paper's have a LaTeX column each under their common heading, so that digits
    are aligned. A column that the paper lacks is one LaTeX column.
    """
    columns = _latex_columns(table, frame, setting)
    values = columns[len(table.label_headings) :]
    rows = entries(table, frame, setting, absent)
    label_width, column_gap = _FEW_COLUMNS if len(table.columns) <= 2 else _MANY_COLUMNS
    labels = [[_lines(text, label_width) for text in texts] for texts in shown_labels(table)]
    return render(
        _TEMPLATE,
        filters={"tex": escape},
        table=table,
        note=" ".join(filter(None, (note(table, frame, setting), absent.why))),
        column_gap=column_gap,
        columns=columns,
        groups=_latex_groups(columns),
        blocks=any(texts and not texts[0] for texts in labels),
        rows=[
            (own_labels, list(zip(row, values, strict=True)))
            for own_labels, row in zip(labels, rows, strict=True)
        ],
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


def _latex_columns(table: Table, frame: pd.DataFrame, setting: Setting) -> list[LatexColumn]:
    """All columns of the table. Labels are aligned left if they are words, and centred if they are
    counts; headings of values are centred, and values without the paper's beside them too."""
    columns = []
    for index, (group, heading) in enumerate(headings(table, setting)):
        is_label = index < len(table.label_headings)
        words = is_label and not all(row.labels[index].isdigit() for row in table.rows)
        width = 2 if not is_label and is_published(frame, heading) else 1
        lines = _lines(heading, _HEADING_WIDTH)
        columns.append(LatexColumn(group, lines, "l" if words else "c", width))
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


def markdown(
    table: Table, frame: pd.DataFrame, setting: Setting, absent: Absent = NONE_ABSENT
) -> str:
    """The table in GitHub's Markdown, with a group in front of its heading: "Model: General"."""
    pairs = [*headings(table, setting), *((BESIDE, text) for text in table.beside)]
    heads = [plain(f"{group}: {text}" if group else text) for group, text in pairs]
    count = len(table.label_headings)
    rows = [
        [plain(text) for text in (*labels, *map(_markdown_entry, (*row, *beside)))]
        for labels, row, beside in zip(
            shown_labels(table),
            entries(table, frame, setting, absent),
            entries_beside(table, frame, absent),
            strict=True,
        )
    ]
    align = "l" * count + "r" * (len(heads) - count)
    title = f"**Table {table.number}.** {plain(table.caption)}"
    body = markdown_table(heads, rows, align, padded=False)
    notes = filter(None, (note(table, frame, setting), absent.why))
    return "\n\n".join((title, body, *map(plain, notes))) + "\n"


def _markdown_entry(entry: Entry) -> str:
    published = f"({entry.paper}{entry.mark})" if entry.paper else ""
    ours = f"{entry.ours} ± {entry.sd}" if entry.sd else entry.ours
    return " ".join(filter(None, (ours, entry.unit, published)))
