"""How many rows a training computes at once after memory did not suffice for more.

The number is noted beside the training's states, because several processes must be started again
before they can compute with fewer rows (mofe/jobs/launch.py). Only the standard library is
imported.
"""

from pathlib import Path

from mofe.files import write_atomic

NAME = "rows-at-once"


def read(folder: Path, key: str) -> int | None:
    """The most rows that a process may compute at once in the training with this key; None where
    nothing is noted for it."""
    file = folder / NAME
    text = file.read_text(errors="replace") if file.is_file() else ""
    rows, _, whose = text.rstrip("\n").partition(" ")
    known = whose == key and rows.isascii() and rows.isdigit() and int(rows) > 0
    return int(rows) if known else None


def note(folder: Path, rows: int, key: str) -> None:
    """Let later attempts of the training compute so many rows at once at most."""
    write_atomic(folder / NAME, f"{rows} {key}\n")


def noted(folder: Path) -> bytes:
    """What is noted, of whatever training; empty where there is nothing."""
    file = folder / NAME
    return file.read_bytes() if file.is_file() else b""
