"""The command that makes one file of a study, for people to copy."""

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mofe.study.config import WATCHING


def without_target(
    config_files: Iterable[str], settings: Mapping[str, Any], checkout: str | Path
) -> str:
    """A call of Snakemake for a study, to which a file is added. config_files: the study's, in
    order; settings: what the command line sets beside them (--config). Files of the checkout are
    named as seen from there, so that every checkout has the same command. What only says how a run
    is watched is left out: a page that shows the command would be made again."""
    inside = (Path(file).resolve() for file in config_files)
    files = [
        str(file.relative_to(checkout) if file.is_relative_to(checkout) else file)
        for file in inside
    ]
    words = ["snakemake", "--cores", "all", "--configfile", *files]
    made_with = [f"{key}={value}" for key, value in settings.items() if key not in WATCHING]
    if made_with:
        words += ["--config", *made_with]
    return shlex.join([*words, "--"])
