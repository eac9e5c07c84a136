"""Loading models with and without the comparison of their checksums.

    python benchmarks/loading.py             to benchmarks/results/loading.json
    python benchmarks/loading.py --quick     whether it works

A dense model and a merge of two, with random weights in bfloat16, are loaded as jobs load them: what
their makers left is compared with `{folder}.sums`, then the model is read. The other side reads it
alone. `warm`: the files are in the system's cache; `cold`: they are not, and it is counted how often
they are read from the disk.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from common import forked, preload, ratio, stamped, start_over, write
from merge import PRELOAD, prepare

SIDES = ("checked", "unchecked")
KINDS = ("dense", "merge")


def make(size: str, folder: Path) -> dict[str, list[str]]:
    """Two dense models and their merge, with checksums. The folders that each kind is loaded from,
    the model's own first."""
    from mofe import sums
    from mofe.stages.merge import merge

    params = prepare(size, folder)["params"]
    # two slots: four would take 13 GB in float32
    slots = list({slot["model"]: slot for slot in params["slots"]}.values())
    merge({**params, "slots": slots, "gate_mode": "random", "seed": 0}, folder / "moe")
    dense = [slot["model"] for slot in slots]
    for made in (*dense, str(folder / "moe")):
        sums.write([made])
    return {"dense": dense[:1], "merge": [str(folder / "moe"), *dense]}


def load(folders: list[str], checked: bool) -> dict[str, float]:
    """Seconds of one load by the clock and of its processor, and the bytes that it read from the
    disk."""
    from mofe import checksums, sums
    from mofe.jobs import made
    from mofe.models import load

    if not checked:  # as if they had been compared already
        for folder in folders:
            for file, digest in sums.read(sums.path(folder)).items():
                checksums.remember(file, digest)
    before, started, used = _read_from_disk(), time.perf_counter(), time.process_time()
    with checksums.settled():
        made.refuse(
            {"file": folder, "notes": (), "config_hash": "", "sums": sums.path(folder)}
            | {"checked": (folder,)}
            for folder in (folders if checked else ())
        )
        load.checkpoint(folders[0])
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - used,
        "bytes": _read_from_disk() - before,
    }


def _read_from_disk() -> int:
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("read_bytes")))


def forget(folders: list[str]) -> None:
    """Drop files from the system's cache."""
    for file in (f for folder in folders for f in Path(folder).iterdir()):
        with open(file, "rb") as content:
            os.fsync(content.fileno())
            os.posix_fadvise(content.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def compare(folders: list[str], turns: int, cold: bool) -> dict:
    runs = {side: [] for side in SIDES}
    for _ in range(turns):
        for side in SIDES:
            if cold:
                forget(folders)
            runs[side].append(forked(load, folders, side == "checked"))
    found = {}
    for kind in ("seconds", "cpu_seconds"):  # other programs disturb the clock more
        times = {side: [run[kind] for run in runs[side]] for side in SIDES}
        found[kind] = {**times, "ratio": ratio(times["checked"], times["unchecked"])}
    if cold:
        found["bytes_read"] = {side: max(run["bytes"] for run in runs[side]) for side in SIDES}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--quick", action="store_true", help="one turn of a small shape")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    start_over(arguments.threads)
    preload(*PRELOAD, "mofe.jobs.made", "mofe.models.load")
    size, turns = ("rows", 1) if arguments.quick else ("tinyllama", arguments.turns)
    with tempfile.TemporaryDirectory() as folder:
        folders = forked(make, size, Path(folder))
        found = {
            kind: {how: compare(folders[kind], turns, how == "cold") for how in ("warm", "cold")}
            for kind in arguments.kinds
        }
        sizes = {
            kind: sum(f.stat().st_size for part in folders[kind] for f in Path(part).iterdir())
            for kind in arguments.kinds
        }
    for kind, hows in found.items():
        for how, sides in hows.items():
            for unit in ("seconds", "cpu_seconds"):
                print(kind, how, unit, sides[unit]["ratio"], sides.get("bytes_read", ""))
    if not arguments.quick:
        write("loading", stamped({"size": size, "bytes": sizes, **found}))


if __name__ == "__main__":
    main()
