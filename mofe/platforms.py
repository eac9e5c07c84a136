"""Where this can run, and what kind of machine this is.

`make` runs this file before anything is installed, so that it needs no more than any Python 3.
"""

import os
import platform
import subprocess
import sys

OLDEST = (3, 11)  # the first Python that the code is written for
# by the names of the system and its processors
HERE = {("Linux", "x86_64"), ("Linux", "aarch64"), ("Darwin", "arm64")}


def refusal(system, machine, python):
    """Why this cannot run here, in one sentence; None where it can. system, machine: as `platform`
    names them. python: its version, as (3, 12)."""
    if (system, machine) == ("Darwin", "x86_64"):
        return (
            "MoFE runs on Macs with Apple silicon only, and this Python is built for Intel "
            "processors: take a Python for arm64, or a machine with Linux (docs/installing.md)"
        )
    if system == "Windows":
        return (
            "MoFE does not run on Windows itself: take its Subsystem for Linux (WSL2), or a "
            "machine with Linux (docs/installing.md)"
        )
    if (system, machine) not in HERE:
        return (
            "MoFE runs on Linux (x86_64, aarch64) and in miniature on macOS (arm64), and this is "
            f"{system} on {machine} (docs/installing.md)"
        )
    if tuple(python) < OLDEST:
        return (
            "MoFE needs Python {}.{} or newer, and this is {}.{}: name another one, as in make "
            "PYTHON=python3.12".format(*OLDEST, *python)
        )
    return None


def this():
    """Why this cannot run with this Python on this machine; None where it can."""
    return refusal(platform.system(), platform.machine(), sys.version_info[:2])


def forks():
    """Whether a process that has imported much may fork. On macOS its libraries may not survive
    that, which is why Python does not do it there either."""
    return hasattr(os, "fork") and sys.platform != "darwin"


def has_glibc():
    """Whether the allocator of memory is glibc's, which is set by MALLOC_... in the environment."""
    return platform.libc_ver()[0] == "glibc"


def processor():
    """What this machine's processor is called."""
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo") as file:
            named = [line.split(":", 1)[1].strip() for line in file if "model name" in line]
        return named[0] if named else platform.machine()
    if sys.platform == "darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.check_output(asked, universal_newlines=True).strip()
    return platform.machine()


if __name__ == "__main__":
    sys.exit(this())
