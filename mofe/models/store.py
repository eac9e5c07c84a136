"""Weights on disk: trained parameters, gathered from the processes that hold their shards, and
whole checkpoints. All of them get the permissions that the umask says."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from mofe import files
from mofe.layers import parameters
from mofe.models import devices, finite
from mofe.models.files import weight_files
from mofe.training import parallel

MATRIX = 1_000_000  # elements of a matrix that is large on disk


def trained(model: nn.Module, file: Path) -> None:
    """Write the trained parameters as safetensors, in float32; on GPUs large matrices in bfloat16.
    All processes must call this, because they gather their shards; the first one writes."""
    tensors = gathered(model, _stored)
    if parallel.rank() == 0:
        save(tensors, file)


def save(tensors: Mapping[str, torch.Tensor], file: Path) -> None:
    """Write tensors as safetensors, completely or not at all. Raises NotFinite where they hold NaN
    or infinity."""
    finite.refuse(tensors, file)
    with files.atomic(file) as temporary:
        save_file(dict(tensors), temporary, {"format": "pt"})


def checkpoint(model: nn.Module, folder: Path, shard_size: str | None = None) -> None:
    """Write a plain model of transformers: weights, config.json, generation_config.json.

    shard_size: the size of the largest file, as "5GB"; transformers' own where it is None. Raises
    NotFinite where the weights hold NaN or infinity.
    """
    finite.refuse(model.state_dict(), folder)
    model.save_pretrained(folder, **({"max_shard_size": shard_size} if shard_size else {}))
    for file in weight_files(folder, str(folder)):
        files.permit(file)


def _stored(parameter: torch.Tensor) -> torch.dtype:
    # Norms, routers and adapters take next to no space, and bfloat16 cannot show the small changes
    # that training makes to a weight near 1.
    large = devices.current().type == "cuda" and parameter.numel() >= MATRIX
    return torch.bfloat16 if large else torch.float32


def gathered(
    model: nn.Module, dtype: Callable[[torch.Tensor], torch.dtype]
) -> dict[str, torch.Tensor]:
    """The full trained parameters by name, on the CPU, each in the dtype that `dtype` gives for it.
    Only the first process gets them; for the others the result is empty."""
    tensors = {}
    for name, parameter in parameters.trained(model).items():
        tensor = parallel.full_tensor(parameter.detach())
        if parallel.rank() == 0:
            tensors[name] = tensor.to("cpu", dtype(tensor)).contiguous()
    return tensors


def unsharded(model: nn.Module, make: Callable[[], nn.Module]) -> nn.Module:
    """An unsharded model with a sharded model's trained parameters. `make` builds the model that
    training began with. Only the first process gets it; the others get the model as it is."""
    tensors = gathered(model, lambda _: torch.float32)
    if parallel.rank() != 0:
        return model
    fresh = make()
    for name, parameter in parameters.trained(fresh).items():
        parameter.data.copy_(tensors[name])
    return fresh
