"""`python -m tests.faults`: the campaign, or a part of it."""

import argparse
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults import run
from tests.faults.fault import Ending, Outcome
from tests.faults.study import Study, sums


def main() -> int:
    """Returns 0 where every fault ended as promised."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--match", default="", help="only faults whose name has this pattern")
    parser.add_argument("--every", type=int, default=1, help="only every so-manieth fault")
    parser.add_argument("--study", type=Path, help="a finished study of the campaign")
    parser.add_argument("--verbose", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mofe-faults-") as name:
        folder, started = Path(name), time.monotonic()
        study = Study(asked.study) if asked.study else Study.make(folder / "study")
        before = sums(study.folder)
        faults = [f for f in run.drawn(asked.seed, study) if re.search(asked.match, f.name)]
        faults = faults[:: asked.every]
        counts, broken = Counter(), 0
        for number, found in enumerate(run.tried(faults, study, folder, asked.workers), 1):
            if not isinstance(found, Outcome):
                broken += 1
                print(f"CAMPAIGN {found[0].name}\n{found[1]}", flush=True)
                continue
            counts[found.ending] += 1
            if found.ending is not Ending.KEPT:
                print(f"{found.ending.value.upper()}: {found.fault.name}", flush=True)
                if asked.verbose:
                    print(found.told, flush=True)
            if number % 100 == 0:
                print(
                    f"{number} of {len(faults)} in {time.monotonic() - started:.0f} s", flush=True
                )
        if sums(study.folder) != before:
            raise RuntimeError("a fault reached the study that is compared with")
    print({ending.value: n for ending, n in counts.items()}, f"campaign failed: {broken}")
    print(f"{time.monotonic() - started:.0f} s")
    return int(set(counts) != {Ending.KEPT} or broken > 0)


if __name__ == "__main__":
    sys.exit(main())
