"""The tables and figures of a study as one PDF, which pdflatex makes."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mofe.files import write_atomic
from mofe.report.tables import escape
from mofe.study.setting import Setting
from mofe.study.words import NO_LATEX
from mofe.templates import render

_TEMPLATE = Path(__file__).with_name("document.tex.jinja")
_RUNS = 2  # the second one places what the first one numbered


def write(
    tables: Sequence[tuple[str | os.PathLike, int | str]],
    figures: Sequence[tuple[str | os.PathLike, str]],
    setting: Setting,
    out: str | os.PathLike,
) -> None:
    """Write the PDF. Equal inputs give equal bytes.

    tables: (`.tex` file, number in the study) of each table. figures: (PDF file, caption) of each
    figure. Raises RuntimeError with LaTeX's words where it fails, and FileNotFoundError where there
    is no pdflatex; `out` is then left as it was.
    """
    if not shutil.which("pdflatex"):
        raise FileNotFoundError(NO_LATEX)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inputs = [
            (_copied(path, folder / f"table{at}.tex"), str(number))
            for at, (path, number) in enumerate(tables)
        ]
        drawn = [
            (_copied(path, folder / f"figure{at}.pdf"), caption)
            for at, (path, caption) in enumerate(figures)
        ]
        text = render(
            _TEMPLATE, filters={"tex": escape}, setting=setting, tables=inputs, figures=drawn
        )
        (folder / "document.tex").write_text(text, encoding="utf-8")
        for _ in range(_RUNS):
            _pdflatex(folder)
        write_atomic(out, (folder / "document.pdf").read_bytes())


def _copied(path: str | os.PathLike, place: Path) -> str:
    """Copy a file to where LaTeX finds it by a name without special characters. Returns that."""
    shutil.copyfile(path, place)
    return place.name


def _pdflatex(folder: Path) -> None:
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "document.tex"]
    # Without these the dates of the figures' files would be in the PDF.
    fixed = {"SOURCE_DATE_EPOCH": "0", "FORCE_SOURCE_DATE": "1"}
    done = subprocess.run(
        command, cwd=folder, env=os.environ | fixed, capture_output=True, check=False
    )
    if done.returncode:
        log = done.stdout.decode("utf-8", errors="replace")
        said = log[log.find("\n!") :].strip() if "\n!" in log else log
        raise RuntimeError(f"pdflatex fails: {said[:1000]}")
