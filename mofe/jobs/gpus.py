"""Whether torch can use the GPUs that a job was given. torch is imported only when it is asked."""

import os
import re
import shutil
import socket
import subprocess
import warnings
from dataclasses import dataclass
from pathlib import Path

# The oldest drivers that run what was built for a CUDA, by its first number: any minor version runs
# with them (docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html).
OLDEST_DRIVER = {13: 580, 12: 525}
TIMEOUT = 60.0  # seconds that nvidia-smi may take, which wakes sleeping GPUs
_KERNEL = Path("/proc/driver/nvidia/version")


class NoGpu(RuntimeError):
    """torch cannot use as many GPUs as a job needs."""


class OldDriver(ValueError):
    """NVIDIA's driver is too old for the CUDA that torch was built for."""


def refuse(asked: int) -> None:
    """Raises NoGpu, in torch's own words, where it can use fewer GPUs on this machine than `asked`,
    and OldDriver where that is so because of the driver. Without this, a study for GPUs would train
    on the CPU, for weeks, without a word."""
    found, why = usable()
    if found >= asked:
        return
    if told := old_driver():
        raise OldDriver(f"{told}; nothing was read")
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


def any_usable() -> bool:
    """Whether torch can use a GPU of this machine. This takes none of its memory."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an old driver, which is told by name
        return torch.cuda.is_available()


def driver() -> str | None:
    """The version of this machine's NVIDIA driver, as nvidia-smi tells it, else the kernel; None
    where there is none."""
    if command := shutil.which("nvidia-smi"):
        asked = [command, "--query-gpu=driver_version", "--format=csv,noheader"]
        try:
            done = subprocess.run(
                asked, capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
            told = done.stdout
        except (OSError, subprocess.TimeoutExpired):
            told = ""
        if found := re.match(r"\d+(\.\d+)+", told):
            return found[0]
    if not _KERNEL.is_file():
        return None
    found = re.search(r"(\d+\.\d+(?:\.\d+)?)\s", _KERNEL.read_text())
    return found[1] if found else "unknown"


@dataclass(frozen=True)
class TooOld:
    """That a driver is too old, and what to do."""

    told: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.told}; {self.remedy}"


def old_driver() -> TooOld | None:
    """What `too_old` says of this machine."""
    import torch

    return too_old(socket.gethostname(), driver(), torch.__version__, torch.version.cuda)


def too_old(host: str, driver: str | None, torch: str, cuda: str | None) -> TooOld | None:
    """Whether NVIDIA's driver is too old for the CUDA that a torch was built for. None where it is
    not, or where one of them is not known."""
    number = _first(driver)
    oldest = OLDEST_DRIVER.get(_first(cuda))
    if number is None or oldest is None or number >= oldest:
        return None
    lower = [major for major, needed in OLDEST_DRIVER.items() if needed <= number]
    how = f"make CUDA={max(lower)} setup" if lower else "take a machine with a newer driver"
    return TooOld(
        f"the NVIDIA driver of {host} is {driver}, and torch {torch}, which is built for CUDA "
        f"{cuda}, needs {oldest} or newer",
        f"{how} (docs/installing.md)",
    )


def _first(version: str | None) -> int | None:
    """The first number of a version."""
    found = re.match(r"\d+", version or "")
    return int(found[0]) if found else None
