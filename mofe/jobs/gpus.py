"""Whether torch can use the GPUs that a job was given. torch is imported only when it is asked."""

import os
import socket


class NoGpu(RuntimeError):
    """torch cannot use as many GPUs as a job needs."""


def refuse(asked: int) -> None:
    """Raises NoGpu, in torch's own words, where it can use fewer GPUs on this machine than `asked`.
    Without this, a study for GPUs would train on the CPU, for weeks, without a word."""
    found, why = usable()
    if found < asked:
        raise NoGpu(
            f"this job needs {asked} GPU(s), and torch can use {found} on {socket.gethostname()} "
            f"({why}); nothing was read. Give it a machine with GPUs that this torch can use "
            "(snakemake ... check tells what a machine lacks)"
        )


def usable() -> tuple[int, str]:
    """How many GPUs torch can use on this machine, and why there are not more, as torch tells
    it."""
    import torch

    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:  # the latter: a torch without CUDA
        return 0, " ".join(str(error).split()).rstrip(".")
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    why = "no more are there" if seen is None else f"CUDA_VISIBLE_DEVICES is {seen!r}"
    return torch.cuda.device_count(), why
