"""A merge as it is stored: its router, and the names of the dense checkpoints for everything else.

The router is all that is new in a merged Mixtral. So a merge's folder has the router, and a
manifest with the dense checkpoints' names, sizes and checksums. The Mixtral is put together each
time it is loaded. A full checkpoint would store a dense model's weights once per slot that it
fills.
"""

import os
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from mofe import checksums, records
from mofe.models.files import weight_files
from mofe.progress import BYTES, Progress

FORMAT = 2
MANIFEST, ROUTER = "merge.json", "router.safetensors"
FFN = re.compile(r"(model\.layers\.\d+\.mlp)\.(gate|up|down)_proj\.weight")  # of a dense model


def write(params: Mapping[str, Any], out: Path) -> None:
    """Write the manifest of a merge (Plan.params.merge) into its folder `out`, as its last file.

    Folders are relative to `out` where `params` has them relative, so that results can be moved
    together.
    """
    slots = [slot["model"] for slot in params["slots"]]
    used = dict.fromkeys((params["base"], *slots))
    files = {folder: weight_files(Path(folder), folder) for folder in used}
    manifest = records.MergeManifest(
        format=FORMAT,
        dtype=params["dtype"],
        gate_mode=params["gate_mode"],
        experts_per_token=params["experts_per_token"],
        base=_from(out, params["base"]),
        slots=[_from(out, slot) for slot in slots],
        sources={_from(out, folder): found for folder, found in _identities(files).items()},
    )
    records.write(out / MANIFEST, manifest)


def exists(folder: str | Path) -> bool:
    """Whether the folder holds a merge, not a full checkpoint."""
    return (Path(folder) / MANIFEST).is_file()


def files(folder: str | Path) -> list[Path]:
    """The files that a model depends on: its configuration and weights, and for a merge its router
    and its manifest, which has the sources' hashes."""
    folder = Path(folder)
    own = [folder / MANIFEST, folder / ROUTER]
    return [folder / "config.json", *(own if exists(folder) else weight_files(folder, str(folder)))]


def weights(folder: str | Path) -> dict[str, torch.Tensor]:
    """The merge's weights under a Mixtral's names, as float32, rounded to the merge's dtype, in
    which mergekit would have stored them.

    Each source is read once, one tensor at a time, so that besides the result only one source's
    pages are in memory. Raises ValueError where a source is not the one that was merged.
    """
    folder = Path(folder)
    manifest = read(folder)
    base, slots, dtype = manifest.base, manifest.slots, getattr(torch, manifest.dtype)
    mixtral: dict[str, torch.Tensor] = {}
    for source in dict.fromkeys((base, *slots)):
        filled = [slot for slot, model in enumerate(slots) if model == source]
        for name, tensor in _tensors(folder, source, manifest.sources[source]):
            ffn = FFN.fullmatch(name)
            if ffn and filled:
                _copy_into_slots(mixtral, *ffn.groups(), tensor.to(dtype), filled, len(slots))
            elif source == base and not ffn:
                mixtral[name] = tensor.to(dtype).to(torch.float32, copy=True)  # no view of the file
    return mixtral | {name: gate.float() for name, gate in load_file(folder / ROUTER).items()}


def _copy_into_slots(
    mixtral: dict[str, torch.Tensor],
    mlp: str,
    part: str,
    tensor: torch.Tensor,
    filled: list[int],
    slots: int,
) -> None:
    """Copy a matrix of a dense FFN into the slots that it fills in a layer's packed experts:
    gate_up_proj (slots, 2 * ffn, hidden), with gate above up, or down_proj (slots, hidden, ffn)."""
    rows, columns = tensor.shape
    name = f"{mlp}.experts.{'down_proj' if part == 'down' else 'gate_up_proj'}"
    if name not in mixtral:
        mixtral[name] = torch.empty(slots, rows if part == "down" else 2 * rows, columns)
    first = rows if part == "up" else 0
    for slot in filled:
        mixtral[name][slot, first : first + rows] = tensor


def _tensors(
    folder: Path, source: str, named: Mapping[str, records.SourceFile]
) -> Iterator[tuple[str, torch.Tensor]]:
    """A source's tensors by name, one at a time. `named`: its files, as in the manifest."""
    for name, merged in named.items():
        file = _at(folder, source) / name
        check = partial(_refuse_other, folder, file, merged)
        if file.is_file() and file.stat().st_size == merged.size >= checksums.LARGE:
            checksums.ahead([file])
            checksums.later(check)
        else:
            check()
        with safe_open(file, "pt") as stored:
            for key in stored.keys():  # noqa: SIM118 - it is no dictionary
                yield key, stored.get_tensor(key)


def read(folder: str | Path) -> records.MergeManifest:
    """The manifest of a merge. Raises ValueError for one of another format."""
    folder = Path(folder)
    # first of all its format: the keys of another one may be others
    found = records.read(folder / MANIFEST, records.Format).format
    if found != FORMAT:
        raise ValueError(
            f"{folder}: its manifest has format {found}, this version reads {FORMAT}; merge again: "
            f"{_again(folder)}"
        )
    return records.read(folder / MANIFEST, records.MergeManifest)


def _from(out: Path, folder: str) -> str:
    return folder if os.path.isabs(folder) else os.path.relpath(folder, out)


def _at(out: Path, folder: str) -> Path:
    # ".." is resolved by name, not by the file system: `results` may be a link to another disk
    return Path(os.path.normpath(out / folder))


def _again(folder: Path) -> str:
    return f"snakemake ... --forcerun {folder} -- {folder}, with the study's --configfile"


def _identities(
    files: Mapping[str, list[Path]],
) -> dict[str, dict[str, records.SourceFile]]:
    """The files of dense models, which are hashed, by folder and name."""
    found: dict[str, dict[str, records.SourceFile]] = {folder: {} for folder in files}
    size = sum(file.stat().st_size for own in files.values() for file in own)
    with Progress(total=size, unit=BYTES, desc="checksums", leave=False) as told:
        for folder, own in files.items():
            for file in own:
                found[folder][file.name] = _identity(file)
                told.update(file.stat().st_size)
    return found


def _identity(file: Path) -> records.SourceFile:
    return records.SourceFile(size=file.stat().st_size, xxh3=checksums.known(file))


def _refuse_other(folder: Path, file: Path, merged: records.SourceFile) -> None:
    """Raise ValueError where a file is not the one that was merged, by its content."""
    is_merged = (
        file.is_file()
        and file.stat().st_size == merged.size
        and checksums.known(file) == merged.xxh3
    )
    if not is_merged:
        why = "is not the file that was merged" if file.is_file() else "is missing"
        raise ValueError(
            f"{file} {why} into {folder}; put it back as it was ({merged.size} bytes, xxh3 "
            f"{merged.xxh3}), or, if the new one is meant, merge again: {_again(folder)}"
        )
