"""Where a number comes from: versions, revision, hardware, hashes."""

import hashlib
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mofe import platforms

PACKAGES = [
    "accelerate",
    "bitsandbytes",
    "datasets",
    "lm-eval",
    "mergekit",
    "numpy",
    "pandas",
    "peft",
    "snakemake",
    "torch",
    "transformers",
]
# What makes numbers. What they are made from is in records by other means: the configuration by its
# hash and those of its files, and packages by their versions.
CODE = ("Snakefile", "mofe", "rules", "scripts")
# The environment variable with the hashes of the configuration's files, as JSON. It is no parameter
# of jobs: another comment in a file makes nothing again.
CONFIG_FILES = "MOFE_CONFIG_FILES"


@cache
def versions() -> dict[str, str]:
    """The versions of Python and of the packages that numbers depend on."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def lock(locks: Sequence[str]) -> str:
    """The file of pinned packages that was installed: the one that pins this torch, else the
    first. locks: they differ in their torch."""
    pin = f"torch=={version('torch').split('+')[0]} "
    return next((file for file in locks if f"\n{pin}" in Path(file).read_text()), locks[0])


@cache
def git_revision(*also: str) -> str:
    """The commit of this code, with "+changes" if what makes numbers differs from it (`CODE`, and
    the paths `also`), or "unknown"."""
    commit = _git("rev-parse", "HEAD")
    changed = commit and _git("status", "--porcelain", "--", *CODE, *also)
    return (commit + ("+changes" if changed else "")) if commit else "unknown"


def git_date() -> str:
    """The day of this code's commit, as 2026-03-31; today where the commit is unknown."""
    return _git("show", "-s", "--format=%cs", "HEAD") or datetime.now(UTC).date().isoformat()


def _git(*arguments: str) -> str:
    """What git says of this code; empty where there is no repository, no git, or a failure."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return ""  # an installed package or an unpacked archive has no revision
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
        )
    except FileNotFoundError:  # a compute node may have no git
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@cache
def hardware() -> dict[str, Any]:
    """The processor, its cores, and the GPUs of this machine."""
    import torch

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {"cpu": platforms.processor(), "cores": os.cpu_count(), "gpus": gpus}


def stamp() -> dict[str, Any]:
    """What every record says about the code, the configuration's files (none outside the workflow)
    and the machine that made it."""
    return {
        "git_revision": git_revision(),
        "versions": versions(),
        "hardware": hardware(),
        "config_files": json.loads(os.environ.get(CONFIG_FILES, "{}")),
    }


def hash_file(file: str | os.PathLike) -> str:
    """SHA-256 of a file, as `sha256sum` prints it."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def hash_config(params: Any) -> str:
    """SHA-256 of a job's parameters as JSON. The order of a mapping's keys counts, as it does where
    Snakemake compares parameters: rows of a table, for example, are shown in their order."""
    return hashlib.sha256(json.dumps(params, allow_nan=False).encode()).hexdigest()


def hash_tensors(tensors: Mapping[str, Any]) -> str | None:
    """SHA-256 over the bits of named tensors, in order of name; None if there are no tensors.

    A quantised parameter is hashed with its scales. A sharded parameter is gathered first, so all
    processes must call this.
    """
    if not tensors:
        return None
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        for part in (tensor, *_scales(getattr(tensor, "quant_state", None))):
            digest.update(f"{name} {part.dtype} {tuple(part.shape)}".encode())
            digest.update(_bytes(part))
    return digest.hexdigest()


def _scales(state) -> list:
    """The scales of a quantised parameter. Nested scales are themselves quantised."""
    if state is None:
        return []
    return [state.absmax, *([state.offset, *_scales(state.state2)] if state.nested else [])]


def _bytes(tensor) -> memoryview:
    import torch

    if hasattr(tensor, "full_tensor"):
        tensor = tensor.full_tensor()
    flat = tensor.detach().cpu().contiguous().flatten()
    return memoryview(flat.view(torch.uint8).numpy())
