"""GPUs that estimates are made for, and what of a GPU's memory they may plan with."""

from dataclasses import dataclass
from typing import Literal

from mofe.units import GIB

Sharding = Literal["none", "ddp", "fsdp"]  # how processes share a model


def usable(memory: float) -> float:
    """Bytes that a training may plan with, of so many that CUDA reports of a GPU: whole GiB of them,
    less CUDA's own half a GiB and some fragmentation."""
    return (memory // GIB * 0.97 - 0.5) * GIB


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU.

    name: as people write it. memory_gib: what CUDA reports of it, rounded down. tflops: its peak in
    bfloat16 on tensor cores, dense (without sparsity).
    """

    name: str
    memory_gib: float
    tflops: float

    @property
    def usable(self) -> float:
        """Bytes that a training may plan with."""
        return usable(self.memory_gib * GIB)


# Peaks: NVIDIA's data sheets of the A100 (SXM), the H100 (SXM) and the H200 (SXM). Their figures for
# the H100 and the H200 are with sparsity, which doubles them.
GPUS = {
    "a100-80gb": Gpu("A100-80GB", 79, 312),
    "a100-40gb": Gpu("A100-40GB", 39, 312),
    "h100": Gpu("H100", 79, 989),
    "h200": Gpu("H200", 139, 989),
}


def sharding(declared: Sharding, processes: int) -> Sharding:
    """How a training's GPUs share its model, for the number of GPUs that the job really got.

    declared: Needs.sharding (mofe/estimate/cost.py). One process has nothing to share; several replicate the
    model where one GPU could hold it ("none" or "ddp"), and shard it where none could ("fsdp").
    """
    if processes == 1:
        return "none"
    return "fsdp" if declared == "fsdp" else "ddp"
