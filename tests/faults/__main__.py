"""`python -m tests.faults`: the campaign, or a part of it."""

import argparse
import random
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults import results, run
from tests.faults.fault import Ending, Outcome
from tests.faults.study import Study, sums


def main() -> int:
    """Returns 0 where every fault ended as promised."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="draws the faults")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--part", type=int, help="only so many faults of each promise")
    parser.add_argument("--match", default="", help="only faults whose name has this pattern")
    parser.add_argument("--every", type=int, default=1, help="only every so-manieth fault")
    parser.add_argument("--study", type=Path, help="a finished study of the campaign to use")
    parser.add_argument("--out", type=Path, help="where the counts are written as JSON")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mofe-faults-") as name:
        folder, started = Path(name), time.monotonic()
        study = Study(asked.study) if asked.study else Study.make(folder / "study")
        before = sums(study.folder)
        faults = [f for f in run.drawn(asked.seed, study) if re.search(asked.match, f.name)]
        faults = (run.part(faults, asked.part) if asked.part else faults)[:: asked.every]
        random.Random(asked.seed).shuffle(faults)  # so that a run that is cut off has some of each
        outcomes, broken = [], 0
        for number, found in enumerate(run.tried(faults, study, folder, asked.workers), 1):
            if isinstance(found, Outcome):
                outcomes.append(found)
                if found.ending is not Ending.KEPT:
                    print(f"{found.ending.value.upper()}: {found.fault.name}\n{found.told}\n")
            else:
                broken += 1
                print(f"THE CAMPAIGN FAILED: {found[0].name}\n{found[1]}")
            if number % 50 == 0:
                seconds = time.monotonic() - started
                print(f"{number} of {len(faults)} after {seconds:.0f} s")
                if asked.out:
                    results.write(asked.out, outcomes, asked.seed, seconds)
            sys.stdout.flush()
        if sums(study.folder) != before:
            raise RuntimeError("a fault reached the study that copies are compared with")
    seconds = time.monotonic() - started
    counts = Counter(outcome.ending for outcome in outcomes)
    told = ", ".join(f"{counts[ending]} {ending.value}" for ending in Ending)
    print(f"{len(outcomes)} faults in {seconds:.0f} s: {told}")
    if asked.out:
        results.write(asked.out, outcomes, asked.seed, seconds)
    return int(counts[Ending.KEPT] < len(outcomes) or broken > 0)


if __name__ == "__main__":
    sys.exit(main())
