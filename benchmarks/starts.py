"""What it takes to start a job on a cluster's node, before it reads a model.

    python benchmarks/starts.py             to benchmarks/results/starts.json
    python benchmarks/starts.py --quick     one turn

`one`: what Slurm starts for a training: two Snakemakes, one after the other, and a process that imports
torch, transformers and our modules. `together`: what it starts for all tasks of a model: one Snakemake,
beside it a warm parent that imports the same, and the script of the first task, which ends as soon as
its job has begun and ended. `further`: the script of a further task. `cold`: the environment's and
this checkout's files are not in the system's cache; what other programs use meanwhile of the same files
stays there, so call this with an environment that no other program uses. No GPU is used. Processor
seconds and bytes read are of `one`, and of `together` with one `further`.
"""

import argparse
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from common import ROOT, ratio, stamped, start_over, write

SCRIPT = """
import os, pickle, sys
from mofe.jobs import warm
sys.exit(warm.call(os.environ[warm.VARIABLE], pickle.loads(sys.stdin.buffer.read())))
"""


def forget() -> None:
    """Drop Python's, the environment's and this checkout's files from the system's cache."""
    folders = {Path(sys.prefix), Path(os.__file__).parent, ROOT / "mofe"}
    for folder in folders:
        for file in folder.rglob("*"):
            if file.is_file():
                with open(file, "rb") as content:
                    os.posix_fadvise(content.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def snakemake(results: str) -> None:
    """A Snakemake that reads the study and finds one job to do, as on a node."""
    overlay = ["--configfile", "config.yaml", "profiles/mini/study.yaml"]
    target = ["--config", f"results={results}", "--", f"{results}/world"]
    _run("-m", "snakemake", "-n", "--quiet", "all", "--allowed-rules", "world", *overlay, *target)


def imports() -> None:
    _run("-c", "import mofe.stages.evaluate, os; os._exit(0)")


def _run(*arguments: str, **keywords) -> None:
    subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL, **keywords
    )


def one(results: str) -> dict[str, float]:
    def start() -> None:
        snakemake(results)
        snakemake(results)
        imports()

    return {"one": _timed(start)}


def together(results: str) -> dict[str, float]:
    from mofe.jobs import warm
    from mofe.jobs.job import Job

    job = pickle.dumps(Job("gc:isenabled", {}, "nothing"))
    parent = None

    def ask() -> None:
        _run("-c", SCRIPT, input=job, stderr=subprocess.DEVNULL)

    def start() -> None:
        nonlocal parent
        parent = warm.start(warm.ASKING, in_turn=True)
        snakemake(results)
        ask()

    found = {"together": _timed(start), "further": _timed(ask)}
    parent.stdin.close()
    parent.wait()
    del os.environ[warm.VARIABLE]
    return found


def _timed(start: Callable[[], None]) -> float:
    began = time.perf_counter()
    start()
    return time.perf_counter() - began


def used() -> tuple[float, int]:
    """Processor seconds of this process's ended children, and the bytes that they read from the
    disk."""
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    return found.ru_utime + found.ru_stime, 512 * found.ru_inblock


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="one turn, and no record")
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    start_over(1)
    os.environ["PYTHONPATH"] = str(ROOT)
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    seconds = {state: {"one": [], "together": [], "further": []} for state in ("cold", "warm")}
    cpu = {state: {"one": [], "together": []} for state in seconds}
    read: dict[str, list[int]] = {"one": [], "together": []}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(1 if arguments.quick else arguments.turns):
            for kind in (one, together):
                for state, taken in seconds.items():
                    if state == "cold":
                        forget()
                    before = used()
                    for what, found in kind(folder).items():
                        taken[what].append(found)
                    computed, moved = (b - a for a, b in zip(before, used(), strict=True))
                    cpu[state][kind.__name__].append(computed)
                    if state == "cold":
                        read[kind.__name__].append(moved)
    ratios = {what: ratio(seconds["cold"][what], warm) for what, warm in seconds["warm"].items()}
    share = {state: ratio(taken["together"], taken["one"]) for state, taken in seconds.items()}
    print(seconds, cpu, ratios, share, read, sep="\n")
    if not arguments.quick:
        record = {"seconds": seconds, "cpu_seconds": cpu, "bytes_read": read}
        write("starts", stamped({**record, "cold_over_warm": ratios, "together_over_one": share}))


if __name__ == "__main__":
    main()
