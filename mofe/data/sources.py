"""Rows of a data set, from a folder that is laid out like its repository on the hub.

The folder is in a mirror (mofe/data/mirror.py). Nothing here reads the hub itself.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
from datasets import Dataset, load_dataset
from datasets.data_files import sanitize_patterns
from datasets.utils.logging import disable_progress_bar
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard

from mofe.data import mirror as mirrors
from mofe.data import sampling

disable_progress_bar()


def load(source: dict[str, Any], subset: str | None, split: str, mirror: str) -> Dataset:
    """The rows of one split, or the drawn rows of a source with a sample.

    source: {"repo": "org/name", "revision": for the message, "sample": {"files": patterns, "rows":
    number, "seed": seed} if rows are drawn}. Raises FileNotFoundError where the mirror lacks the
    repository.
    """
    folder = mirrors.repository(mirror, source["repo"], source.get("revision"))
    if sample := source.get("sample"):
        return Dataset(_drawn(folder, sample))
    options = {}
    if any(folder.rglob("*.csv")):  # or answers such as "None" and "NA" would be read as missing
        options = {"keep_default_na": False, "na_values": [""]}
    if files := _declared(folder, subset, split):
        subset, options["data_files"] = None, {split: files}
    # datasets keys its cache by a folder's last name, not by its contents: it would silently return
    # another mirror's rows, or those of an earlier world. So local rows are never cached.
    with TemporaryDirectory() as cache:
        return load_dataset(
            str(folder), subset, split=split, cache_dir=cache, keep_in_memory=True, **options
        )


def _declared(folder: Path, subset: str | None, split: str) -> list[str] | None:
    """The files of a split that the repository's card names; None where it names none.

    datasets itself would also look for the files of the card's other subsets, which may not have
    been fetched. Raises ValueError where the card names the subset's splits, but not this one.
    """
    card = folder / "README.md"
    if not card.exists():
        return None
    subsets = MetadataConfigs.from_dataset_card_data(DatasetCard.load(card).data)
    described = subsets.get(subset or subsets.get_default_config_name() or "", {})
    if not (patterns := described.get("data_files")):
        return None
    splits = sanitize_patterns(patterns)
    if split not in splits:
        raise ValueError(
            f"{folder.parent.name}/{folder.name}: there is no split {split!r}; there are "
            f"{', '.join(map(str, splits))}"
        )
    return list(splits[split])


def _drawn(folder: Path, sample: dict[str, Any]) -> pa.Table:
    there = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    files = mirrors.matching(there, sample["files"])
    if not files:
        raise FileNotFoundError(f"{folder} has no file that matches {sample['files']}")
    with sampling.Shards([folder / file for file in files]) as shards:
        pieces = shards.draw(sample["rows"], sample["seed"])
        return pa.concat_tables([shards.read(piece) for piece in pieces])
