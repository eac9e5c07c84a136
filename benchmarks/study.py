"""Time a whole study: wall time, and its split into computing, starting processes, and the rest.

    python benchmarks/study.py --profile profiles/mini --config seeds=0

runs Snakemake with these arguments into an empty results folder and prints the record as JSON.
Every job's log ends with the seconds that it took to start and to compute; the rest of cores x wall
is Snakemake itself and cores without a job.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from mofe import provenance


def measure(arguments: list[str], results: Path) -> dict:
    """Run the study into `results` and add up its jobs' logs."""
    config = [] if "--config" in arguments else ["--config"]
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "snakemake", *arguments, *config, f"results={results}"],
        cwd=ROOT,
        check=True,
    )
    wall = time.perf_counter() - started
    total: dict[str, float] = defaultdict(float)
    by_rule: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    logs = sorted((results / "logs").rglob("*.log"))
    for log in logs:
        job = json.loads(log.read_text().splitlines()[-1])
        rule = by_rule[job["job"].split()[0]]
        rule["jobs"] += 1
        for part, seconds in job["seconds"].items():
            total[part] += seconds
            rule[part] += seconds
    cores = provenance.hardware()["cores"]
    return {
        "arguments": arguments,
        "wall": round(wall, 1),
        "jobs": len(logs),
        **{part: round(seconds, 1) for part, seconds in total.items()},
        "cores x wall / computing": round(cores * wall / total["computing"], 2),
        "rules": {
            name: {part: round(value, 1) for part, value in rule.items()}
            for name, rule in by_rule.items()
        },
        "hardware": provenance.hardware(),
        "git_revision": provenance.git_revision(),
    }


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(sys.argv[1:], Path(folder) / "results"), indent=2))
