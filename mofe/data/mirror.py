"""Mirrors: folders {org}/{name}/... that hold repositories as the hub does.

The folder of what was fetched from the hub (mofe/data/hub.py) is a mirror. So is a cluster's shared
copy, and so is the generated world of the mini study (mofe/data/world.py).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from huggingface_hub.utils import filter_repo_objects


def repository(mirror: str, repo: str, revision: str | None = None) -> Path:
    """The folder of a repository in a mirror. Raises FileNotFoundError where there is none."""
    folder = Path(mirror) / repo
    if not folder.is_dir():
        pinned = f" (revision {revision})" if revision else ""
        raise FileNotFoundError(
            f"mirror: {mirror!r} has no folder {repo!r}{pinned}; add it there, or, "
            "with 'mirror: null', fetch it from the hub: snakemake --profile ... prefetch"
        )
    return folder


def matching(paths: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The paths that match one of the patterns, sorted. `*` matches across folders."""
    return sorted(filter_repo_objects(paths, allow_patterns=list(patterns)))
