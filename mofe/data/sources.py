"""Rows of a data set, from a folder laid out like its repository on the hub.

That folder is in a mirror (mofe/mirror.py); nothing here reads the hub itself.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
from datasets import Dataset, load_dataset
from datasets.utils.logging import disable_progress_bar

from mofe import mirror as mirrors
from mofe.data import sampling

disable_progress_bar()


def load(source: dict[str, Any], subset: str | None, split: str, mirror: str) -> Dataset:
    """The rows of one split, or the drawn rows of a source with a sample.

    source: {"repo": "org/name"}, "revision" for the message, and where rows are drawn "sample": {"files":
    patterns, "rows": number, "seed": seed}. Raises FileNotFoundError where the mirror lacks the
    repository.
    """
    folder = mirrors.repository(mirror, source["repo"], source.get("revision"))
    if sample := source.get("sample"):
        return Dataset(_drawn(folder, sample))
    # datasets keys its cache by a folder's last name, not by its contents: another mirror's rows, or
    # those of an earlier world, would come back without a word. So local rows are never cached.
    with TemporaryDirectory() as cache:
        return load_dataset(str(folder), subset, split=split, cache_dir=cache, keep_in_memory=True)


def _drawn(folder: Path, sample: dict[str, Any]) -> pa.Table:
    there = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    files = mirrors.matching(there, sample["files"])
    if not files:
        raise FileNotFoundError(f"{folder} has no file that matches {sample['files']}")
    with sampling.Shards([folder / file for file in files]) as shards:
        pieces = shards.draw(sample["rows"], sample["seed"])
        return pa.concat_tables([shards.read(piece) for piece in pieces])
