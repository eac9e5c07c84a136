"""What was trained, written to disk, and put together from the processes that hold its shards."""

from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from mofe import files
from mofe.layers import parameters
from mofe.models import devices
from mofe.training import parallel

MATRIX = 1_000_000  # elements of a matrix that is large on disk


def trained(model: nn.Module, file: Path) -> None:
    """Write what was trained, as safetensors: float32, on GPUs the large matrices bfloat16. Called
    by all processes, which put their shards together; the first one writes."""
    tensors = gathered(model, _stored)
    if parallel.rank() == 0:
        with files.atomic(file) as temporary:
            save_file(tensors, temporary)


def _stored(parameter: torch.Tensor) -> torch.dtype:
    # Norms, routers and adapters are next to nothing on a disk, and what training did to a weight
    # near 1 is less than bfloat16 can tell.
    large = devices.current().type == "cuda" and parameter.numel() >= MATRIX
    return torch.bfloat16 if large else torch.float32


def gathered(
    model: nn.Module, dtype: Callable[[torch.Tensor], torch.dtype]
) -> dict[str, torch.Tensor]:
    """The trained parameters by name, whole, each as its `dtype` on the CPU; in all processes but
    the first, which do not need them, nothing."""
    tensors = {}
    for name, parameter in parameters.trained(model).items():
        tensor = parallel.full_tensor(parameter.detach())
        if parallel.rank() == 0:
            tensors[name] = tensor.to("cpu", dtype(tensor)).contiguous()
    return tensors


def unsharded(model: nn.Module, make: Callable[[], nn.Module]) -> nn.Module:
    """A sharded model's trained parameters in a whole model, which `make` gives (the one that
    training began with). In all processes but the first the model as it is."""
    tensors = gathered(model, lambda _: torch.float32)
    if parallel.rank() != 0:
        return model
    fresh = make()
    for name, parameter in parameters.trained(fresh).items():
        parameter.data.copy_(tensors[name])
    return fresh
