"""Numbers that are not finite in a model's weights: NaN and infinity, which no result survives.

They are looked for where weights come in (a model of the hub, a preflight, a merge) and wherever
weights are stored. In between, checksums bind what is read to what was looked at (mofe/sums.py).
"""

import os
from collections.abc import Iterable, Iterator, Mapping

import torch
from safetensors import safe_open

from mofe.progress import BYTES, Progress


class NotFinite(ValueError):
    """Weights that hold NaN or infinity."""


def fault(tensors: Iterable[tuple[str, torch.Tensor]]) -> str | None:
    """What is not finite among named tensors, in words; None where all numbers are."""
    found = []
    for name, tensor in tensors:
        if tensor.is_floating_point() and tensor.numel() and not _is_finite(tensor):
            found.append((name, (~tensor.isfinite()).sum().item(), tensor.numel()))
    if not found:
        return None
    name, bad, total = found[0]
    more = f" (and {len(found) - 1} more tensors)" if len(found) > 1 else ""
    return f"{bad} of the {total} numbers in {name} are NaN or infinite{more}"


def fault_in(file: str | os.PathLike) -> str | None:
    """As `fault`, of a safetensors file; one tensor at a time is in memory."""
    size, name = os.path.getsize(file), os.path.basename(file)
    with (
        safe_open(file, "pt") as stored,
        Progress(total=size, unit=BYTES, desc=name, leave=False) as told,
    ):

        def tensors() -> Iterator[tuple[str, torch.Tensor]]:
            for key in stored.keys():  # noqa: SIM118 - it is no dictionary
                tensor = stored.get_tensor(key)
                yield key, tensor
                told.update(tensor.nbytes)
            told.update(size - told.n)  # the header

        return fault(tensors())


def refuse(tensors: Mapping[str, torch.Tensor], file: str | os.PathLike) -> None:
    """Raises NotFinite where tensors that are to be stored in a file are not finite."""
    if told := fault(tensors.items()):
        raise NotFinite(
            f"{file}: not written, because {told}; a training that diverged needs a lower learning "
            "rate, and a damaged model is to be made again"
        )


def _is_finite(tensor: torch.Tensor) -> bool:
    """Whether all numbers are finite, by one pass without a copy: NaN is both least and most."""
    return all(extreme.isfinite().item() for extreme in tensor.aminmax())
