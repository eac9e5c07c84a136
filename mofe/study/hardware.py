"""The GPUs that estimates are made for, and how much of their memory a training may use."""

from dataclasses import dataclass
from typing import Literal

from mofe.units import GIB

Sharding = Literal["none", "ddp", "fsdp"]  # how processes share a model


def usable(memory: float) -> float:
    """Bytes that a training may use of a GPU for which CUDA reports `memory` bytes: these in whole
    GiB, less 3% for fragmentation and half a GiB that CUDA itself takes."""
    return (memory // GIB * 0.97 - 0.5) * GIB


@dataclass(frozen=True)
class Gpu:
    """A kind of GPU.

    name: as people write it. memory_gib: what CUDA reports, rounded down. tflops: its peak in
    bfloat16 on tensor cores, dense (without sparsity). watts: the most that its board draws.
    cuda_name: as CUDA calls it, and so do records.
    """

    name: str
    memory_gib: float
    tflops: float
    watts: int
    cuda_name: str

    @property
    def usable(self) -> float:
        """Bytes that a training may use."""
        return usable(self.memory_gib * GIB)


# Peaks: NVIDIA's data sheets of the A100 (SXM), the H100 (SXM) and the H200 (SXM). Their figures
# for the H100 and the H200 are with sparsity, which doubles them. Watts: their maximum thermal
# design power in the same sheets, as shipped (for the H100 and the H200 it can be set lower).
GPUS = {
    "a100-80gb": Gpu("A100-80GB", 79, 312, 400, "NVIDIA A100-SXM4-80GB"),
    "a100-40gb": Gpu("A100-40GB", 39, 312, 400, "NVIDIA A100-SXM4-40GB"),
    "h100": Gpu("H100", 79, 989, 700, "NVIDIA H100 80GB HBM3"),
    "h200": Gpu("H200", 139, 989, 700, "NVIDIA H200"),
}


def by_cuda_name(name: str) -> Gpu | None:
    """The kind of GPU that CUDA calls so; None for one that is not listed, such as a PCIe board,
    which draws other power."""
    return next((gpu for gpu in GPUS.values() if gpu.cuda_name == name), None)


def sharding(declared: Sharding, processes: int) -> Sharding:
    """How a training's GPUs share its model, for the number of GPUs that the job really got.

    declared: Needs.sharding (mofe/estimate/cost.py). One process has nothing to share. Several
    replicate the model if one GPU can hold it ("none" or "ddp"), and shard it if none can ("fsdp").
    """
    if processes == 1:
        return "none"
    return "fsdp" if declared == "fsdp" else "ddp"
