"""What the system tells of processes: on Linux from /proc, elsewhere from psutil and POSIX.

psutil knows neither the most memory that a process has had nor the machine's start by its id, and
on Linux tells times only by a clock that is set anew at times.
"""

import os
import resource
import socket
import sys
import time
from pathlib import Path

import psutil

_PROC = Path("/proc")


def age() -> float:
    """Seconds since this process was started."""
    if not _has_proc():
        return time.time() - psutil.Process().create_time()
    ticks = int(_status(os.getpid())[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def started(pid: int) -> int | None:
    """When a process was started; None where there is none that runs. The unit is the same for all
    processes of one machine, from one of its starts to the next."""
    try:
        if not _has_proc():
            process = psutil.Process(pid)
            ended = process.status() == psutil.STATUS_ZOMBIE
            return None if ended else round(1000 * process.create_time())
        status = _status(pid)
    except (FileNotFoundError, ProcessLookupError, psutil.NoSuchProcess):
        return None
    return None if status[0] in "ZX" else int(status[19])


def boot() -> str:
    """What is different for every machine, and for every start of it."""
    file = _PROC / "sys/kernel/random/boot_id"
    if file.exists():
        return file.read_text().strip()
    return f"{socket.gethostname()} {psutil.boot_time():.0f}"


def namespace() -> str:
    """What this process's id is one of; empty where a machine has one row of ids for all."""
    link = _PROC / "self/ns/pid"
    return os.readlink(link) if link.is_symlink() else ""


def peak_memory() -> int:
    """The most memory that this process has had so far, resident, in bytes."""
    if not _has_proc():
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else 1024 * most
    # not getrusage's, which starts at the memory of the process that forked this one
    lines = (_PROC / "self/status").read_text().splitlines()
    (high,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return 1024 * int(high)


def _has_proc() -> bool:
    return (_PROC / "self/stat").exists()


def _status(pid: int) -> list[str]:
    """The fields of a process's line, from its state on."""
    return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
