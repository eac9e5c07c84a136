"""What a site calls things: its file, checked. The profile beside this module reads it while
Snakemake starts, when nothing of the package can be imported yet."""

import os
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

VARIABLE = "MOFE_SITE"  # the environment variable that names another file
# What stands for a key that is needed and not there, before the file (mofe/jobs/checks.py)
MISSING = "missing in "
NEEDED = ("account", "partition", "constraint")
GPU_OPTIONS = ("gpus", "gres")
# Keys of the profile with a part for each rule: another value would take the place of all parts
WHOLE = ("set-resources", "default-resources")


class BadSite(ValueError):
    """A site's file cannot be used; the text is a sentence about it."""


@dataclass(frozen=True)
class Site:
    """The keys of a site's file.

    account: who pays. partition: where the GPUs are. constraint: which of them; empty for any.
    cpu_partition: where jobs without a GPU go, if that is another. gpu_model: Slurm's name of the
    GPUs; empty if they have none. gpu_option: how sbatch is asked for them. before: what the shell
    of every job does first. sbatch: more options for every job. profile: keys of the profile that
    are set otherwise or besides.
    """

    account: str
    partition: str
    constraint: str
    cpu_partition: str = ""
    gpu_model: str = "a100"
    gpu_option: str = "gpus"
    before: str = ""
    sbatch: str = ""
    profile: dict[str, Any] = field(default_factory=dict)


def read(profile: Path) -> Site:
    """The site of a profile in the folder profiles/slurm. What is needed and missing is told when a
    job is to be submitted. Raises BadSite."""
    named = os.environ.get(VARIABLE)
    file = Path(named or os.path.relpath(profile.absolute().parents[1] / "site.yaml"))
    if named and not file.is_file():
        raise BadSite(f"${VARIABLE}: there is no file {named}; correct or unset it")
    given = _keys(file) if file.is_file() else {}
    return Site(**dict.fromkeys(NEEDED, f"{MISSING}{file}") | given)


def _keys(file: Path) -> dict[str, Any]:
    try:
        given = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        said = " ".join(str(error).split())
        raise BadSite(f"{file}: cannot be read as YAML: {said}; correct it") from None
    if not isinstance(given, dict):
        raise BadSite(f"{file}: has no keys; write lines such as 'account: lab'")
    known = [key.name for key in fields(Site)]
    for key, value in given.items():
        if key not in known:
            raise BadSite(f"{file}: {key}: there is no such key; there are {', '.join(known)}")
        if key == "profile":
            if not isinstance(value, dict):
                raise BadSite(f"{file}: profile: {value!r} has no keys; write those of a profile")
            for whole in WHOLE:
                if whole in value:
                    how = "change them in a copy of profiles/slurm (docs/slurm.md)"
                    told = f"profile: {whole}: it would replace all that the profile sets there"
                    raise BadSite(f"{file}: {told}; {how}")
        elif value is None:
            raise BadSite(f'{file}: {key}: nothing stands behind it; write a text, or "" for none')
        elif not isinstance(value, str):
            raise BadSite(f"{file}: {key}: {value!r} is no text; put it in quotes")
    if (option := given.get("gpu_option", "gpus")) not in GPU_OPTIONS:
        raise BadSite(f"{file}: gpu_option: {option!r} is none of {', '.join(GPU_OPTIONS)}")
    if option == "gpus" and not re.fullmatch(r"[\w.]*", model := given.get("gpu_model", "")):
        told = f"{model!r} has signs that Snakemake's plugin does not take"
        raise BadSite(f'{file}: gpu_model: {told}; write "" or gpu_option: gres')
    return given
