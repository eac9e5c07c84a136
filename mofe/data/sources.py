"""Rows of a data set, from the hub or from a folder laid out like it.

A mirror is a folder `{org}/{name}/...` that holds repositories as the hub does; the generated
world of the mini study is one (mofe/data/world.py), a cluster's shared copy another.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from datasets import Dataset, load_dataset
from datasets.utils.logging import disable_progress_bar

disable_progress_bar()


def load(
    source: dict[str, Any], subset: str | None, split: str, mirror: str | None = None
) -> Dataset:
    """The rows of one split.

    source: {"repo": "org/name", "revision": ...}; the revision counts on the hub only.
    Raises FileNotFoundError where the mirror lacks the repository.
    """
    if mirror is None:
        return load_dataset(source["repo"], subset, split=split, revision=source["revision"])
    folder = Path(mirror) / source["repo"]
    if not folder.is_dir():
        raise FileNotFoundError(
            f"mirror: {mirror!r} has no folder {source['repo']!r}; add the data set there, or set "
            "'mirror: null' to read it from the hub"
        )
    # datasets keys its cache by a folder's last name, not by its contents: another mirror's rows, or
    # those of an earlier world, would come back without a word. So local rows are never cached.
    with TemporaryDirectory() as cache:
        return load_dataset(str(folder), subset, split=split, cache_dir=cache, keep_in_memory=True)
