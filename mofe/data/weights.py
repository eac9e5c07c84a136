"""Which files of a folder or a repository are a checkpoint.

`save_pretrained` leaves an older model.safetensors where it saves shards, and an older index where
it saves one file. transformers then reads model.safetensors, and every reader here does the same.
"""

import json
from collections.abc import Callable, Collection, Sequence

from mofe.data.mirror import matching

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TEMPLATES = "additional_chat_templates/"  # the folder of a tokenizer's second and further templates
ADAPTER = "adapter_config.json"  # where it is, transformers reads an adapter, not the checkpoint


def of(names: Collection[str], read: Callable[[str], str | bytes]) -> list[str]:
    """The names of the weight files: model.safetensors, else the shards that the index lists, even
    those that are not among `names`; empty where there is neither.

    names: of the files in the checkpoint's folder. read: the content of a named file. Raises
    ValueError for an index that is none, or that names other files than safetensors.
    """
    if SINGLE in names:
        return [SINGLE]
    if INDEX not in names:
        return []
    try:
        named = sorted(set(json.loads(read(INDEX))["weight_map"].values()))
        others = [name for name in named if not name.endswith(".safetensors")]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{INDEX} lists no files of weights; get the model again") from error
    if others:
        raise ValueError(
            f"{INDEX} names {others[0]}, which is no safetensors file; take a model "
            "whose index names such files only"
        )
    return named


def wanted(
    paths: Collection[str], patterns: Sequence[str], index: str | bytes | None = None
) -> list[str]:
    """The files of a model's repository that are fetched, sorted: those that match the patterns and
    are the checkpoint's, with the weights that transformers would read and no others.

    paths: of all files. patterns: of safe files (mofe.study.plan.MODEL_FILES). index: the content
    of INDEX; None where there is none. Raises ValueError where there are no safetensors, where the
    index is none, or where it names a file that is not there, or not beside it.
    """
    used = of({path for path in paths if is_its(path)}, lambda _: index or b"")
    if not used:
        raise ValueError(
            "it has no weights as safetensors, and other formats can run code when they are "
            "loaded; choose a revision that has them"
        )
    if missing := [path for path in used if path not in paths]:
        raise ValueError(
            f"{INDEX} names {missing[0]}, which the repository lacks; choose a revision that has it"
        )
    found = {path for path in matching(paths, patterns) if is_its(path)}
    if others := [path for path in used if path not in found]:
        raise ValueError(
            f"{INDEX} names {others[0]}, which is not beside it; choose a revision that has its "
            "weights there"
        )
    return sorted(found - unused(found, used))


def is_its(path: str) -> bool:
    """Whether a repository's file can be its checkpoint's, which is in the top folder; others hold
    the model in other forms (original/, onnx/)."""
    return "/" not in path or path.startswith(TEMPLATES)


def unused(names: Collection[str], used: Collection[str]) -> set[str]:
    """The names of other weights, which nobody should read, of their indexes, and of an adapter's
    settings. used: what `of` found."""
    weights = {name for name in names if name.endswith((".safetensors", ".index.json"))}
    kept = {*used} if SINGLE in used else {*used, INDEX}
    return (weights - kept) | ({ADAPTER} & {*names})
