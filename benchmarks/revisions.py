"""Training and evaluation by this code and by an earlier revision of it.

    python benchmarks/revisions.py 597c603           to benchmarks/results/revisions.json
    python benchmarks/revisions.py 597c603 --quick   whether it works

Both revisions make the same small study (benchmarks/revisions.yaml) with their own Snakefile. Then
they train and evaluate one variant in turns, by Snakemake. Compared are the seconds of an optimiser
step and of an evaluation by their records, and the seconds of the whole jobs by their logs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from common import ROOT, ratio, stamped, start_over, write

OVERLAY = ROOT / "benchmarks" / "revisions.yaml"
RESULTS = Path("results/revisions")
VARIANT = "tinyllama_4tinyllama/medmcqa_mofe/s0"
RECORD = RESULTS / "evals" / VARIANT / "medmcqa.json"
LOGS = {
    "training job": RESULTS / "logs" / "variants" / f"{VARIANT}.log",
    "evaluation job": RESULTS / "logs" / "evals" / VARIANT / "medmcqa.log",
}


def run(checkout: Path, *arguments: str) -> None:
    """Run a checkout's workflow, as a user does."""
    subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--profile", "profiles/mini", "--cores", "1"),
            *("--configfile", "config.yaml", "profiles/mini/study.yaml", str(OVERLAY)),
            *(*arguments, "--", str(RECORD)),
        ],
        cwd=checkout,
        check=True,
        capture_output=True,
    )


def measure(checkout: Path) -> dict[str, float]:
    """Train and evaluate again. Seconds."""
    run(checkout, "--forcerun", "train", "evaluate")
    trained = json.loads((checkout / RESULTS / "variants" / VARIANT / "train.json").read_text())
    answered = json.loads((checkout / RECORD).read_text())
    found = {
        "step": trained["seconds"] / trained["steps"],
        "evaluation": answered["seconds"],
    }
    for name, log in LOGS.items():
        line = (checkout / log).read_text().splitlines()[-1]
        found[name] = json.loads(line)["seconds"]["computing"]
    return found


def main() -> None:
    """Measure in turns, and write the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("revision", help="the earlier one, for git")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    start_over(1)
    with tempfile.TemporaryDirectory() as name:
        sides = {"before": Path(name) / "before", "after": Path(name) / "after"}
        for side, revision in (("before", asked.revision), ("after", "HEAD")):
            _check_out(revision, sides[side])
            run(sides[side])
        turns = [
            {side: measure(folder) for side, folder in sides.items()}
            for _ in range(2 if asked.quick else asked.turns)
        ]
    found = {
        what: ratio([t["after"][what] for t in turns], [t["before"][what] for t in turns])
        for what in turns[0]["after"]
    }
    print(json.dumps(found, indent=1))
    if not asked.quick:
        write("revisions", stamped({"before": asked.revision, "turns": turns, "ratios": found}))


def _check_out(revision: str, folder: Path) -> None:
    """A revision's files, with its history, by which its records are stamped."""
    subprocess.run(["git", "clone", "--quiet", "--no-checkout", str(ROOT), str(folder)], check=True)
    subprocess.run(["git", "checkout", "--quiet", revision], cwd=folder, check=True)


if __name__ == "__main__":
    main()
