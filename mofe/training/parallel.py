"""One training in several processes: who computes which rows, and how the model is sharded.

The experiment does not depend on it: a step has the same rows, and the same loss, whether one
process computes them or eight. "ddp" replicates the model in every process, and sums gradients once
per step. "fsdp" shards parameters, gradients and optimiser states among the processes (FSDP2), for
models that one GPU cannot hold.
"""

import math
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import Shard

from mofe.layers import parameters
from mofe.study.hardware import Sharding

T = TypeVar("T")


def rank() -> int:
    """This process's number, from 0; 0 where there is only one."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """This process's number on its machine, which is the number of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def processes() -> int:
    """How many processes compute this training together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def accelerator(**more: Any) -> Accelerator:
    """Devices and precision: bfloat16 autocast on GPUs, float32 on CPUs. more: what else accelerate
    is told."""
    on_gpu = torch.cuda.is_available()
    return Accelerator(
        cpu=not on_gpu,
        mixed_precision="bf16" if on_gpu else "no",
        # gradients live in the buckets that are sent, not in a second copy of them
        kwargs_handlers=[DistributedDataParallelKwargs(gradient_as_bucket_view=True)],
        **more,
    )


def assign(
    step: Sequence[Sequence[int]], processes: int, rank: int
) -> list[tuple[Sequence[int], bool]]:
    """The micro-batches of an optimiser step that process `rank` computes, as (rows, do they
    count).

    step: tokens.schedule's micro-batches, sorted by length, so that those computed at the same time
    have about the same length. All processes get equally many, because they exchange gradients and
    shards all at once. Where there are too few, a process computes one row that does not count.
    """
    mine = [(step[i], True) for i in range(rank, len(step), processes)]
    rounds = math.ceil(len(step) / processes)
    return mine + [(step[0][:1], False)] * (rounds - len(mine))


def prepare(objective: nn.Module, accelerator: Accelerator, sharding: Sharding) -> nn.Module:
    """The objective (AnswerLoss) as this process calls it: on its device, and wrapped or sharded.

    When sharded, activations between layers are bfloat16 too, where autocast otherwise leaves them
    float32 if the embeddings are trained. The norms' weights are also used in bfloat16.
    Raises ValueError for "fsdp" with quantised weights, whose scales would not be sharded with
    them.
    """
    if sharding != "fsdp":
        return accelerator.prepare_model(objective)
    if parameters.is_quantized(objective):
        raise ValueError(
            "hardware: a model with quantised weights cannot be shared out among GPUs; train it on "
            "one GPU, or replicated on several"
        )
    mesh = init_device_mesh(accelerator.device.type, (processes(),))
    on_gpu = accelerator.device.type == "cuda"
    precision = (
        MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        if on_gpu
        else MixedPrecisionPolicy()
    )
    how = {"mesh": mesh, "mp_policy": precision, "shard_placement_fn": _evenly}
    for layer in objective.plain.model.layers:
        fully_shard(layer, **how)
    return fully_shard(objective, **how)


def prepared_again(objective: nn.Module, accelerator: Accelerator) -> nn.Module:
    """A replicated objective as this process calls it, after other parameters require gradients:
    what exchanges gradients knows only those that did when it was made."""
    accelerator.free_memory()  # what it has wrapped, whose hooks on parameters would stay
    return accelerator.prepare_model(objective).train()


def _evenly(parameter: nn.Parameter) -> Shard | None:
    """The axis along which a parameter is sharded. Stacked experts are cut within each expert,
    because there may be fewer experts than processes. Where that leaves a remainder, and for
    everything else, it is the first axis (None)."""
    even = parameter.ndim == 3 and parameter.shape[1] % processes() == 0
    return Shard(1) if even else None


def no_sync(objective: nn.Module, accelerator: Accelerator, last: bool) -> AbstractContextManager:
    """A context for a micro-batch's backward pass: replicated processes sum gradients only after
    the step's last micro-batch. Sharded ones do so after each, or a process would hold full
    gradients."""
    if processes() == 1 or last or not isinstance(objective, nn.parallel.DistributedDataParallel):
        return nullcontext()
    return accelerator.no_sync(objective)


def any_of(flag: bool) -> bool:
    """Whether the flag is set in any process, so that all of them stop together or none does."""
    if processes() == 1:
        return flag
    votes = torch.tensor(int(flag))
    dist.all_reduce(votes, group=_control())
    return bool(votes)


def summed(number: float) -> float:
    """The sum of the processes' numbers, in all of them."""
    return summed_up(torch.tensor(number, dtype=torch.float64)).item()


def summed_up(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of the processes' tensors, which are on the CPU, in all of them."""
    if processes() > 1:
        dist.all_reduce(tensor, group=_control())
    return tensor


@cache
def _control() -> dist.ProcessGroup:
    accelerator()  # starts the processes' group, if it has not been started yet
    # gloo works on the CPU, so these exchanges never wait for the GPU
    return dist.new_group(backend="gloo")


def from_first(decide: Callable[[], T]) -> T:
    """What the first process decides, told to all of them."""
    answer = [decide() if rank() == 0 else None]
    if processes() > 1:
        dist.broadcast_object_list(answer, src=0, group=_control())
    return answer[0]


def gathered(part: T) -> list[T]:
    """Every process's part, in the order of their numbers, in all of them."""
    parts = [part] * processes()
    if processes() > 1:
        dist.all_gather_object(parts, part, group=_control())
    return parts


def barrier() -> None:
    """Wait for all processes."""
    if processes() > 1:
        dist.barrier(group=_control())


def full_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """The full tensor where each process holds a shard; other tensors as they are. All processes
    must call this."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
