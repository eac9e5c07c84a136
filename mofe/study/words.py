"""Values and paths of keys as a fault's sentence shows them: short, and on one line."""

import datetime
import difflib
import math
from collections.abc import Iterable, Mapping
from typing import Any

# told before a run (mofe/jobs/checks.py), and by the job
NO_LATEX = (
    "tables.pdf: there is no program pdflatex on this machine; install it (Debian: "
    "texlive-latex-recommended), or take the tables' .tex files"
)

NO_TRACKER = (
    "track: {by} is not installed here; install it beside the workflow (pip install {by}), or set "
    "'track: null'"
)


def shown(value: Any) -> str:
    """A value in a sentence. Of a mapping or a list it says how large it is."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, int | float):
        return number(value)
    if isinstance(value, Mapping):
        return f"a mapping of {len(value)} key(s)"
    return f"a list of {len(value)}" if isinstance(value, list | tuple) else read_as(value)


def read_as(value: Any) -> str:
    """What YAML made of a plain word, in words."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return number(value)
    names = {datetime.datetime: "a time", datetime.date: "a date", bytes: "bytes", set: "a set"}
    return next((name for kind, name in names.items() if isinstance(value, kind)), "a list")


def number(value: float) -> str:
    """A number; of a very long one its size."""
    if isinstance(value, int) and value.bit_length() > 120:
        return f"a number of about {int(value.bit_length() * math.log10(2)) + 1} digits"
    return repr(value)


def quoted(text: str) -> str:
    """A text in quotes; of a long one its beginning."""
    return repr(text if len(text) <= 60 else text[:60] + "...")


def dotted(path: Iterable[Any]) -> str:
    """A path of keys, as the sentences of faults begin."""
    return ".".join(map(_key, map(str, path)))


def _key(key: str) -> str:
    return key if key.isprintable() and len(key) <= 80 else quoted(key)


def suggest(word: Any, known: Iterable[str]) -> str:
    """'; did you mean ...?' for the nearest known word, else the list of what is known."""
    known = sorted({str(k) for k in known})
    near = difflib.get_close_matches(str(word)[:200], known, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known are {', '.join(known)}" if known else ""
