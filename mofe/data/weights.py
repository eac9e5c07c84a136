"""Which files of a folder or a repository are a checkpoint's weights.

`save_pretrained` leaves an older model.safetensors where it saves shards, and an older index where
it saves one file. transformers then reads model.safetensors, and every reader here does the same.
"""

import json
from collections.abc import Callable, Collection

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"


def of(names: Collection[str], read: Callable[[str], str | bytes]) -> list[str]:
    """The names of the weight files: model.safetensors, else the shards that the index lists, even
    those that are not among `names`; empty where there is neither.

    names: of the files in the checkpoint's folder. read: the content of a named file. Raises
    ValueError for an index that is none.
    """
    if SINGLE in names:
        return [SINGLE]
    if INDEX not in names:
        return []
    try:
        return sorted(set(json.loads(read(INDEX))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{INDEX} lists no files of weights; get the model again") from error


def unused(names: Collection[str], used: Collection[str]) -> set[str]:
    """The names of other weights, which nobody should read. used: what `of` found."""
    weights = {name for name in names if name.endswith((".safetensors", ".safetensors.index.json"))}
    kept = {*used} if SINGLE in used else {*used, INDEX}
    return weights - kept
