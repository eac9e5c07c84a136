"""Time a whole study: wall time, and its split into computing, starting processes, and the rest; and
the memory and disk that it took.

    python benchmarks/study.py --profile profiles/mini --config seeds=0

runs Snakemake with these arguments into an empty results folder and prints the record as JSON;
with `--out FILE` before them it goes to a file. Memory is that of all its processes together, where
each page counts once (PSS), at its highest of one look per second.

    python benchmarks/study.py results/mini

adds up the jobs of a study that has run, without its wall time. Every job's log ends with the
seconds that it took to start and to compute; the rest of cores x wall is Snakemake itself and cores
without a job.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # the package of this checkout, installed or not

from mofe import provenance
from mofe.files import write_atomic


def add_up(results: Path) -> dict:
    """Jobs, and seconds of starting and computing (sums over jobs), in all and by rule."""
    rules: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for log in sorted((results / "logs").rglob("*.log")):
        job = json.loads(log.read_text().splitlines()[-1])
        for name in ("all", job["job"].split()[0]):
            rules[name]["jobs"] += 1
            for part, seconds in job["seconds"].items():
                rules[name][part] += seconds
    return {
        name: {part: round(value, 1) for part, value in rule.items()}
        for name, rule in rules.items()
    }


def measure(arguments: list[str], results: Path) -> dict:
    """Run the study into `results`; its wall time beside the sums over its jobs, its greatest memory
    and the size of its results, in bytes."""
    config = [] if "--config" in arguments else ["--config"]
    command = [sys.executable, "-m", "snakemake", *arguments, *config, f"results={results}"]
    started = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT) as process, greatest_memory(process.pid) as memory:
        if process.wait():
            sys.exit(f"{' '.join(command)} failed")
    wall = time.perf_counter() - started
    jobs, cores = add_up(results), provenance.hardware()["cores"]
    ratio = cores * wall / jobs["all"]["computing"]
    return {
        "wall": round(wall, 1),
        "cores x wall / computing": round(ratio, 2),
        "memory": max(memory),
        "disk": sum(file.stat().st_size for file in results.rglob("*") if file.is_file()),
        "jobs": jobs,
    }


@contextmanager
def greatest_memory(pid: int) -> Iterator[list[int]]:
    """The bytes of a process and its children, in a list that a thread adds to once per second."""
    seen, ended = [0], threading.Event()

    def look() -> None:
        while not ended.wait(1):
            total = 0
            with suppress(psutil.NoSuchProcess):  # it ended meanwhile
                root = psutil.Process(pid)
                for one in (root, *root.children(recursive=True)):
                    with suppress(psutil.NoSuchProcess):
                        total += one.memory_full_info().pss
            seen.append(total)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        ended.set()
        thread.join()


def main(arguments: list[str]) -> None:
    out = None
    if arguments[:1] == ["--out"]:
        out, arguments = arguments[1], arguments[2:]
    if arguments and Path(arguments[0]).is_dir():
        record = {"jobs": add_up(Path(arguments[0]))}
    else:
        with tempfile.TemporaryDirectory() as folder:
            record = measure(arguments, Path(folder) / "results")
    stamp = provenance.stamp()
    del stamp["versions"], stamp["config_files"]
    text = json.dumps({"arguments": arguments, **record, **stamp}, indent=2)
    write_atomic(out, text + "\n") if out else print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
