"""Tables in Markdown: whatever a cell holds, a line has the cells that it was given."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mofe import markdown

texts = st.text("ab |\\`*_<[]é\n", max_size=12)
tables = st.integers(1, 4).flatmap(
    lambda n: st.lists(st.lists(texts, min_size=n, max_size=n), min_size=1, max_size=4)
)


def bars(line: str) -> int:
    """The bars of a line that part cells: those that no backslash escapes."""
    return re.sub(r"\\.", "", line).count("|")


@given(tables, st.text("lr", max_size=4), st.booleans())
def test_every_line_has_a_cell_for_each_heading(rows, align, padded):
    heads = [f"h{column}" for column in range(len(rows[0]))]
    lines = markdown.table(heads, rows, align, padded).split("\n")
    assert len(lines) == 2 + len(rows)
    assert {bars(line) for line in lines} == {len(heads) + 1}


@given(texts)
def test_escaping_twice_changes_nothing(text):
    once = markdown.escape(text)
    assert markdown.escape(once) == once


@given(texts)
def test_plain_text_leaves_markdown_nothing_to_act_on(text):
    shown = markdown.plain(text)
    assert not set("`*_|<[]\\") & set(re.sub(r"\\[\\`*_|<\[\]]", "", shown))
    assert re.sub(r"\\(.)", r"\1", shown) == text
    assert markdown.escape(shown) == re.sub(r"\s*\n\s*", " ", shown)


@given(tables, st.text("lr", max_size=4))
def test_padding_changes_no_cell(rows, align):
    heads = [f"h{column}" for column in range(len(rows[0]))]
    padded, bare = (markdown.table(heads, rows, align, padded) for padded in (True, False))

    def squeezed(text: str) -> list[str]:
        return [re.sub(r" *\| *", "|", re.sub(r"--+", "--", line)) for line in text.split("\n")]

    assert squeezed(padded) == squeezed(bare)
    assert markdown.aligned(padded) == padded


def test_columns_are_padded_as_they_are_aligned():
    table = markdown.table(["name", "n", "note"], [["a", 1_000, "`x|y`"], ["long", 2, ""]], "lr")
    assert table.split("\n") == [
        "| name |    n | note |",
        "| :--- | ---: | ------ |",
        "| a    | 1000 | `x\\|y` |",
        "| long |    2 | |",
    ]


@pytest.mark.parametrize("text", ["no table", "| a bar alone |\n\ntext", "a | b\n--- | ---"])
def test_text_that_is_no_table_stays(text):
    assert markdown.aligned(text) == text
    assert markdown.aligned(f"# x\n\n{text}\n") == f"# x\n\n{text}\n"
