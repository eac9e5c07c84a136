"""The command that makes one file of a study, for people to copy."""

import shlex
from collections.abc import Iterable, Mapping
from typing import Any


def without_target(config_files: Iterable[str], settings: Mapping[str, Any]) -> str:
    """A call of Snakemake for a study, to which a file is added. config_files: the study's, in order;
    settings: what the command line sets beside them (--config)."""
    words = ["snakemake", "--cores", "all", "--configfile", *config_files]
    if settings:
        words += ["--config", *(f"{key}={value}" for key, value in settings.items())]
    return shlex.join([*words, "--"])
