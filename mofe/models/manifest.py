"""A merge as it is stored: its router, and which dense checkpoints all its other weights are.

A merged Mixtral holds nothing new but its router. So a merge's folder has the router, and a
manifest that names the dense checkpoints, by size and hash; the Mixtral is put together whenever it
is loaded. As a checkpoint, the same weights would be stored once for every slot that has them.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from mofe.files import write_atomic
from mofe.models.files import weight_files

FORMAT = 1
MANIFEST, ROUTER = "merge.json", "router.safetensors"
SETTINGS = ("dtype", "gate_mode", "experts_per_token")
FFN = re.compile(r"(model\.layers\.\d+\.mlp)\.(gate|up|down)_proj\.weight")  # of a dense model


def write(params: Mapping[str, Any], out: Path) -> None:
    """Write the manifest of a merge (Plan.params.merge) into its folder `out`, as its last file.

    {"format", "dtype", "gate_mode", "experts_per_token", "base": folder, "slots": [folder],
    "sources": {folder: {file: {"size", "mtime_ns", "sha256"}}}}. Folders are relative to `out`
    where `params` has them relative, so that the whole can be moved.
    """
    slots = [slot["model"] for slot in params["slots"]]
    kept = {key: params[key] for key in SETTINGS}
    manifest = {
        "format": FORMAT,
        **kept,
        "base": _from(out, params["base"]),
        "slots": [_from(out, slot) for slot in slots],
        "sources": {
            _from(out, folder): {
                file.name: _identity(file) for file in weight_files(Path(folder), folder)
            }
            for folder in dict.fromkeys((params["base"], *slots))
        },
    }
    write_atomic(out / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def exists(folder: str | Path) -> bool:
    """Whether the folder holds a merge, and no checkpoint."""
    return (Path(folder) / MANIFEST).is_file()


def files(folder: str | Path) -> list[Path]:
    """The files that a model's weights depend on: its safetensors, and a merge's manifest, which
    has the hashes of its sources."""
    folder = Path(folder)
    return [*folder.glob("*.safetensors"), *folder.glob(MANIFEST)]


def weights(folder: str | Path) -> dict[str, torch.Tensor]:
    """The merge's weights under a Mixtral's names: float32, but rounded to the merge's dtype, which
    mergekit would have stored.

    Every source is read once, a tensor at a time, so that beside what is returned one source's
    pages are in memory. Raises ValueError where a source is not the one that was merged.
    """
    folder = Path(folder)
    manifest = _read(folder)
    base, slots, dtype = manifest["base"], manifest["slots"], getattr(torch, manifest["dtype"])
    mixtral: dict[str, torch.Tensor] = {}
    for source in dict.fromkeys((base, *slots)):
        filled = [slot for slot, model in enumerate(slots) if model == source]
        for name, tensor in _tensors(folder, source, manifest["sources"][source]):
            ffn = FFN.fullmatch(name)
            if ffn and filled:
                _lay(mixtral, *ffn.groups(), tensor.to(dtype), filled, len(slots))
            elif source == base and not ffn:
                mixtral[name] = tensor.to(dtype).to(torch.float32, copy=True)  # no view of the file
    return mixtral | {name: gate.float() for name, gate in load_file(folder / ROUTER).items()}


def _lay(
    mixtral: dict[str, torch.Tensor],
    mlp: str,
    part: str,
    tensor: torch.Tensor,
    filled: list[int],
    slots: int,
) -> None:
    """Copy a matrix of a dense FFN into the slots that it fills of a layer's packed experts:
    gate_up_proj (slots, 2 x FFN, hidden), gates above ups, or down_proj (slots, hidden, FFN)."""
    rows, columns = tensor.shape
    name = f"{mlp}.experts.{'down_proj' if part == 'down' else 'gate_up_proj'}"
    if name not in mixtral:
        mixtral[name] = torch.empty(slots, rows if part == "down" else 2 * rows, columns)
    first = rows if part == "up" else 0
    for slot in filled:
        mixtral[name][slot, first : first + rows] = tensor


def _tensors(
    folder: Path, source: str, named: Mapping[str, Mapping]
) -> Iterator[tuple[str, torch.Tensor]]:
    """A source's tensors by name, one at a time. `named`: its files, as in the manifest."""
    for name, merged in named.items():
        file = _at(folder, source) / name
        if not _is_merged(file, merged):
            raise ValueError(
                f"{folder}: {file} is missing, or not the one that was merged; what a dense model "
                f"was part of must be merged anew: delete {folder}, and run the workflow again"
            )
        with safe_open(file, "pt") as stored:
            for key in stored.keys():  # noqa: SIM118 - it is no dictionary
                yield key, stored.get_tensor(key)


def settings(folder: str | Path) -> dict[str, Any]:
    """What a merge was made with: its dtype, gate_mode and experts_per_token."""
    manifest = _read(Path(folder))
    return {key: manifest[key] for key in SETTINGS}


def _read(folder: Path) -> dict[str, Any]:
    manifest = json.loads((folder / MANIFEST).read_text())
    if manifest["format"] != FORMAT:
        raise ValueError(
            f"{folder}: its manifest has format {manifest['format']}, this version reads {FORMAT}; "
            f"delete {folder}, and run the workflow again"
        )
    return manifest


def _from(out: Path, folder: str) -> str:
    return folder if os.path.isabs(folder) else os.path.relpath(folder, out)


def _at(out: Path, folder: str) -> Path:
    # ".." is undone by name, not by the file system: `results` may be a link to another disk
    return Path(os.path.normpath(out / folder))


def _identity(file: Path) -> dict[str, Any]:
    stat = file.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": _sha256(file)}


def _is_merged(file: Path, merged: Mapping[str, Any]) -> bool:
    """Whether a file is the one that was merged. Its content is hashed only where its time differs,
    as that of a copy does."""
    if not file.is_file() or file.stat().st_size != merged["size"]:
        return False
    return file.stat().st_mtime_ns == merged["mtime_ns"] or _sha256(file) == merged["sha256"]


def _sha256(file: Path) -> str:
    with open(file, "rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
