"""mofe/paper.csv holds what the paper prints: every cell, and nothing else."""

import os
from collections import Counter
from pathlib import Path

import pytest

from mofe import paper

SHARED = Path(os.environ.get("MOFE_SHARED", Path(__file__).parents[2] / "shared"))
TEXT = SHARED / "paper" / "mofe_paper.txt"

# Rows and filled cells of each table, counted by eye in the paper.
ROWS = {1: 9, 2: 15, 3: 3, 4: 6, 5: 3, 6: 3, 7: 5}
CELLS = {1: 30, 2: 54, 3: 3, 4: 12, 5: 6, 6: 6, 7: 5}
# How many columns name the row, and how many lines are headings: the paper's layout.
LABEL_COLUMNS = {1: 2, 2: 2, 3: 2, 4: 3, 5: 1, 6: 2, 7: 2}
HEADING_LINES = {1: 1, 2: 1, 3: 2, 4: 2, 5: 2, 6: 1, 7: 2}


def _blocks(text: str) -> dict[int, list[list[str]]]:
    """Table number -> its tab-separated lines, which in the text stand above the caption."""
    blocks, lines = {}, []
    for line in text.splitlines():
        if "\t" in line:
            lines.append(line.split("\t"))
        elif line.startswith("Table ") and lines:
            blocks[int(line.removeprefix("Table ").partition(":")[0])] = lines
            lines = []
    return blocks


def _cells(text: str) -> dict[tuple[int, int, str, str], str]:
    """(table, row, label, column) -> printed text, read from the paper."""
    cells = {}
    for table, lines in _blocks(text).items():
        width, depth = LABEL_COLUMNS[table], HEADING_LINES[table]
        headings, body = lines[:depth], lines[depth:]
        # A value column is named by its lowest heading: "Medicine", not "Task Performance".
        columns = [[name for name in stack if name][-1] for stack in zip(*headings, strict=True)]
        parents = [""] * width
        for row, line in enumerate(body, start=1):
            parents = [own or parent for own, parent in zip(line[:width], parents, strict=True)]
            for column, text_of_cell in zip(columns[width:], line[width:], strict=True):
                if text_of_cell:
                    cells[table, row, " | ".join(parents), column] = text_of_cell
    return cells


@pytest.mark.skipif(
    not TEXT.exists(),
    reason="the paper's text is not here; set MOFE_SHARED to the folder that has paper/",
)
def test_each_published_value_equals_the_papers():
    published = paper.published()
    keys = published[["table", "row", "label", "column"]].itertuples(index=False, name=None)
    ours = dict(zip(keys, published["printed"], strict=True))
    assert ours == _cells(TEXT.read_text(encoding="utf-8"))


def test_every_table_has_its_rows_and_cells():
    published = paper.published()
    rows = published.groupby("table")["row"].nunique()
    assert rows.to_dict() == ROWS
    assert sum(ROWS.values()) == 44
    assert published["table"].value_counts().to_dict() == CELLS
    assert sum(CELLS.values()) == len(published) == 116


def test_no_cell_occurs_twice_and_a_label_names_one_row():
    published = paper.published()
    assert not published.duplicated(["table", "label", "column"]).any()
    assert (published.groupby(["table", "label"])["row"].nunique() == 1).all()


def test_untuned_rows_have_neither_parameters_nor_time():
    published = paper.published()
    untuned = published[published["label"].str.endswith("| X")]
    assert Counter(untuned["column"]) == {"MMLU": 6, "MedMCQA": 6}


def test_published_values_are_numbers_in_their_ranges():
    published = paper.published()
    scores = published[~published["column"].isin(["Trainable Parameters", "Training Time(hr)"])]
    assert scores["value"].between(0, 1).all()
    assert published.set_index(["table", "label", "column"])["value"].loc[
        (1, "Large | Full", "Trainable Parameters")
    ] == pytest.approx(6.42e9)


def test_a_table_shown_twice_agrees_with_itself():
    """Table 2 repeats Table 1's untuned and MoFE rows; Table 3 is Table 4's first three."""
    shown = paper.published().set_index(["table", "label", "column"])["printed"]
    shared = {key[1:]: text for key, text in shown.items() if key[0] == 1 and "Full" not in key[1]}
    assert len(shared) == 18
    assert all(shown[2, label, column] == text for (label, column), text in shared.items())
    assert list(shown[3]) == list(shown[4].xs("Medicine", level="column"))[:3]


@pytest.mark.parametrize(
    ("text", "value"),
    [("1.86B", 1.86e9), ("2.3M", 2.3e6), ("0.34B", 3.4e8), ("12.3K", 12300), ("0.6", 0.6)],
)
def test_number(text, value):
    assert paper.number(text) == value


@pytest.mark.parametrize("text", ["", "X", "1.86G", "-1", "nan", "1,113"])
def test_number_refuses_what_is_none(text):
    with pytest.raises(ValueError, match="is not a published number"):
        paper.number(text)


def test_printed_is_the_exact_text_or_nothing():
    assert paper.printed(6, "TinyLlama | Instruction-tuning", "PubMedQA") == "0.6"
    assert paper.printed(1, "Small | X", "Trainable Parameters") is None
    assert paper.printed(1, "Tiny | Full", "MMLU") is None
