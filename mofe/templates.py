"""Jinja templates. Each is a file beside the module that has its data.

A template's name says what it makes: *.html.jinja, *.md.jinja, *.tex.jinja or *.txt.jinja. A
missing value is an error. A line with only a statement leaves no line. HTML templates escape all
values; others escape values by a filter: `plain` and `row` in Markdown, `tex` in LaTeX
(mofe/report/tables.py).
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
    "parameters": units.parameters,
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
    """Fill a template's file with values. filters: more filters than FILTERS.

    Raises jinja2.UndefinedError where the template uses a value that is not given.
    """
    jinja = environment(template.parent, template.suffixes[0].removeprefix("."))
    jinja.filters |= filters or {}
    return jinja.get_template(template.name).render(values)


def environment(folder: Path, kind: str) -> jinja2.Environment:
    """Jinja's environment for the templates of a kind (html, md, tex, txt) in a folder."""
    jinja = jinja2.Environment(
        loader=jinja2.FileSystemLoader(folder),
        autoescape=kind == "html",
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        **(LATEX if kind == "tex" else {}),
    )
    jinja.filters |= FILTERS
    return jinja
