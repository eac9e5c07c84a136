"""Jinja templates: the texts of pages stand in files beside the module that has their data.

A template's name says what it makes: *.html.jinja, *.md.jinja, *.tex.jinja or *.txt.jinja. A
missing value is an error, and a line that holds only a statement leaves no line. HTML templates
escape all values. The others escape what a filter is applied to: `plain` and `row` in Markdown,
`tex` in LaTeX (mofe/report/tables.py).
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jinja2

from mofe import markdown, units

FILTERS = {
    "plain": markdown.plain,
    "row": markdown.row,
    "size": units.size,
    "rough_size": units.rough_size,
    "gib": units.gib,
    "rough_time": units.rough_time,
    "duration": units.duration,
    "scaled": units.scaled,
    "rough_count": units.rough_count,
}
# LaTeX is full of braces and percent signs.
LATEX = {
    "variable_start_string": "<<",
    "variable_end_string": ">>",
    "block_start_string": "<%",
    "block_end_string": "%>",
    "comment_start_string": "<#",
    "comment_end_string": "#>",
}


def render(
    template: Path, filters: Mapping[str, Callable[..., Any]] | None = None, **values: Any
) -> str:
    """Fill a template's file with values. filters: those that it has besides FILTERS.

    Raises jinja2.UndefinedError where the template asks for a value that is not there.
    """
    made = environment(template.parent, template.suffixes[0].removeprefix("."))
    made.filters |= filters or {}
    return made.get_template(template.name).render(values)


def environment(folder: Path, kind: str) -> jinja2.Environment:
    """What templates of a kind (html, md, tex, txt) in a folder are read with."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=kind == "html",
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **(LATEX if kind == "tex" else {}),
    )
    made.filters |= FILTERS
    return made
