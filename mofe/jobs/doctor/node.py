"""Facts of the machine that a job runs on: versions, driver, GPUs, and what works on them."""

import os
import re
import shutil
import socket
from collections.abc import Callable, Collection, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version

import torch
from packaging.requirements import Requirement

from mofe import provenance, records
from mofe.jobs import gpus
from mofe.layers import fp8, nf4, swiglu
from mofe.study.formats import Format

_PINNED = re.compile(r"^[A-Za-z0-9._-]+ *==[^\\\n]+", re.MULTILINE)


def facts(locks: Sequence[str], held_in: Collection[Format]) -> records.NodeFacts:
    """What this machine has. locks: the files of pinned packages, of which one was installed.
    held_in: the formats of the study's quantised weights."""
    count, why = gpus.usable()
    lock = provenance.lock(locks)
    device = torch.device("cuda" if count else "cpu")
    return records.NodeFacts(
        host=socket.gethostname(),
        python=python_version(),
        lock=os.path.basename(lock),
        other_versions=other_versions(Path(lock).read_text()),
        torch=torch.__version__,
        torch_cuda=torch.version.cuda,
        driver=gpus.driver(),
        gpus=[_gpu(number) for number in range(count)],
        gpus_why=why,
        compiler=_compiler(),
        triton=_failure(lambda: _try_kernel(device)) if count else None,
        nf4=_failure(lambda: _try_nf4(device)) if "nf4" in held_in else None,
        fp8=_failure(lambda: _try_fp8(device)) if "fp8" in held_in else None,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )


def other_versions(lock: str) -> dict[str, str]:
    """Packages that are not installed as a lock file pins them, with what is wrong. lock: its
    text."""
    found = {}
    for line in map(Requirement, _PINNED.findall(lock)):
        if line.marker and not line.marker.evaluate():
            continue  # of another Python
        (wanted,) = (pin.version for pin in line.specifier)
        try:
            there = version(line.name)
        except PackageNotFoundError:
            found[line.name] = f"is not installed, {wanted} is wanted"
        else:
            if there != wanted:
                found[line.name] = f"is {there}, {wanted} is wanted"
    return found


def _gpu(number: int) -> records.GpuFact:
    found = torch.cuda.get_device_properties(number)
    return records.GpuFact(name=found.name, memory=found.total_memory)


def _compiler() -> str | None:
    """The C compiler, found as Triton finds it."""
    return os.environ.get("CC") or next(
        filter(None, map(shutil.which, ("clang", "gcc", "cc"))), None
    )


def _failure(probe: Callable[[], None]) -> str:
    """What a probe failed by, in one line; empty where it worked."""
    try:
        probe()
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what is looked for
        return " ".join(f"{type(error).__name__}: {error}".split())[:500]
    return ""


def _try_kernel(device: torch.device) -> None:
    """Compile and run a kernel of the expert layer, and compare it with torch. Raises ValueError
    where it computes something else, and what Triton raises."""
    from mofe.layers import kernels

    given = torch.randn(8, 64, device=device)
    _compare(kernels.swiglu(given), swiglu.forward(given.cpu()).to(device), 1e-3)


def _try_nf4(device: torch.device) -> None:
    """Store a layer in 4 bits, expand it, and multiply with it."""
    weight = torch.linspace(-1, 1, 64 * 64).reshape(64, 64)
    layer = nf4.nf4(weight).to(device)
    _compare(nf4.expanded(layer).cpu().float(), weight, 0.2)
    layer(torch.ones(2, 64, device=device))


def _try_fp8(device: torch.device) -> None:
    """Multiply with a layer in FP8, by a scaled product where the device has one, and compare it
    with the same layer on the CPU."""
    weight, given = torch.randn(64, 64), torch.randn(8, 64)
    layer, low = fp8.Fp8Linear(weight), torch.bfloat16
    expected = layer(given.to(low).float())
    _compare(layer.to(device)(given.to(device, low)).cpu().float() / 64, expected / 64, 0.01)


def _compare(found: torch.Tensor, expected: torch.Tensor, most: float) -> None:
    off = float((found - expected).abs().max())
    if not off <= most:
        raise ValueError(f"its result is off by {off:.3g}")
