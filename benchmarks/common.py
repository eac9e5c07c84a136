"""What the benchmarks share: a process for each measurement, its peak memory, paired ratios.

Whatever is compared runs in turns (A B A B ...), and a ratio is taken within each turn: a machine
that is slow for a minute is slow for both. A measurement is a fork of one process that has imported
everything, so that neither side pays for imports or inherits the other's memory, and both get the
same settings of malloc (mofe.jobs.warm.KEEP_MEMORY) and the same number of threads.
"""

import importlib
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the package of this checkout, installed or not

from mofe.files import write_atomic
from mofe.jobs import job, warm

RESULTS = ROOT / "benchmarks" / "results"
SHARED = Path(os.environ.get("MOFE_SHARED", ROOT.parent / "shared"))
MEDMCQA = SHARED / "data" / "openlifescienceai" / "medmcqa" / "data"
TOKENIZER = SHARED / "data" / "TinyLlama" / "TinyLlama-1.1B-intermediate-step-1431k-3T"
LAUNCHER = "--launched"  # see `launch`


def start_over(threads: int) -> None:
    """Start this program again with the environment that all measurements get: malloc and OpenMP
    read theirs when a process starts."""
    wanted = warm.KEEP_MEMORY | dict.fromkeys(job.OFFLINE, "1")
    wanted |= {
        "OMP_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTORCH_NVML_BASED_CUDA_CHECK": "1",  # a CUDA that is initialised cannot be forked
        "TQDM_DISABLE": "1",
    }
    if wanted.items() <= os.environ.items():
        return
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # uncompiled imports take four times as long
    os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | wanted)


def preload(*names: str) -> None:
    """Import what the forks will use: modules, or "module:name" for what a module loads late."""
    for name in names:
        module, _, attribute = name.partition(":")
        found = importlib.import_module(module)
        if attribute:
            getattr(found, attribute)


def forked(function: Callable, *arguments) -> Any:
    """function(*arguments) in a fork of this process. Raises RuntimeError where it fails there.

    Threads of torch do not survive a fork: this process must never have computed anything.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        code = 1
        try:
            os.close(reading)
            os.dup2(2, 1)  # what libraries print is no result
            answer = pickle.dumps(function(*arguments))
            with open(writing, "wb") as pipe:
                pipe.write(answer)
            code = 0
        except BaseException:  # noqa: BLE001 - whatever it is, the fork ends here
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    if not answer:
        raise RuntimeError(f"{function.__name__}{arguments} failed in its process")
    return pickle.loads(answer)


def peak_memory() -> int:
    """The most memory this process had, in bytes: what torch allocated on its GPU, else resident.

    Not getrusage's ru_maxrss, which starts with what the parent had.
    """
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in status if line.startswith("VmHWM:")))


def forget_peak() -> None:
    """Let a GPU's peak begin here: what was made there before is no part of it."""
    torch = sys.modules["torch"]
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def launch(program: str, *arguments: str) -> dict[str, float]:
    """Run a program of this environment's bin folder, as a user types it: `seconds` and
    `peak_bytes`. "python" stands for `python arguments`.

    It runs by way of this file, which says afterwards what memory it took.
    """
    with tempfile.NamedTemporaryFile("r") as answer:
        command = [sys.executable, __file__, LAUNCHER, answer.name, program, *arguments]
        started = time.perf_counter()
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        seconds = time.perf_counter() - started
        if done.returncode:
            raise RuntimeError(f"{program} {' '.join(arguments)} failed:\n{done.stdout[-4000:]}")
        return {"seconds": seconds, "peak_bytes": int(answer.read())}


def _launched(answer: str, program: str, *arguments: str) -> None:
    import runpy

    # the memory is said whichever way the program ends
    try:
        script = Path(sys.executable).with_name(program)
        if program == "python":
            script, *arguments = arguments
        sys.argv = [str(script), *arguments]
        sys.path[0] = str(Path(script).parent)
        runpy.run_path(str(script), run_name="__main__")
    finally:
        Path(answer).write_text(str(peak_memory()))


def ratio(above: Iterable[float], below: Iterable[float]) -> dict[str, Any]:
    """The ratios of pairs: their median, least, greatest and number."""
    ratios = [a / b for a, b in zip(above, below, strict=True)]
    return {
        "median": statistics.median(ratios),
        "min": min(ratios),
        "max": max(ratios),
        "pairs": len(ratios),
    }


def stamped(record: dict[str, Any], packages: Sequence[str] = ()) -> dict[str, Any]:
    """A result with the code, versions, machine and, as others may use it, its load."""
    from mofe import provenance

    stamp = forked(provenance.stamp)  # looking for GPUs would initialise CUDA
    del stamp["config_files"]
    stamp["git_revision"] = provenance.git_revision("benchmarks/*.py")
    stamp["versions"] |= {package: version(package) for package in packages}
    stamp["hardware"]["load_average"] = [round(load, 1) for load in os.getloadavg()]
    return {**record, **stamp}


def write(name: str, record: dict[str, Any]) -> None:
    """Write a result to benchmarks/results."""
    write_atomic(RESULTS / f"{name}.json", json.dumps(record, indent=2) + "\n")
    print(f"{RESULTS.relative_to(ROOT)}/{name}.json")


def sizes_of(name: str) -> dict[str, Any]:
    """What an earlier call measured, by size: what is not measured anew stays."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text())["sizes"] if file.exists() else {}


if __name__ == "__main__" and sys.argv[1:2] == [LAUNCHER]:
    _launched(*sys.argv[2:])
