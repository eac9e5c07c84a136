"""The results that docs/first-study.md shows, from docs/first-study/.

python docs/generate/first_study.py runs the page's overlay and puts them there: `make first-study`.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from mofe.records import ClaimRecord
from mofe.report.claims import numbers, study_verdict

PAGE = ROOT / "docs" / "first-study.md"
FOLDER = PAGE.with_suffix("")


def _table() -> str:
    return (FOLDER / "table8.md").read_text()


def _claim() -> str:
    claim = ClaimRecord.model_validate(json.loads((FOLDER / "rank.json").read_text()))
    judged = study_verdict(claim)
    size, p, _ = numbers(judged)
    found = judged.summary
    return (
        f"The verdict was *{judged.verdict}*: the difference is {size} points of accuracy with its "
        f"95% interval, p {p}, from {found.seeds} seeds. The interval is about new seeds and new "
        f"questions. Four times in five, {found.seeds} seeds and these questions would find a "
        f"difference of {100 * found.least:.1f} points."
    )


PARTS = {
    ("docs/first-study.md", "first-table"): _table,
    ("docs/first-study.md", "first-claim"): _claim,
}


def main() -> None:
    """Run the study of the page, and keep what the page shows."""
    (overlay,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), flags=re.DOTALL)
    with tempfile.TemporaryDirectory() as folder:
        file, results = Path(folder) / "first.yaml", Path(folder) / "results"
        file.write_text(overlay)
        study = ["config.yaml", "profiles/mini/study.yaml", str(file)]
        command = [sys.executable, "-m", "snakemake", "--profile", "profiles/mini", "--configfile"]
        command += [*study, "--config", f"results={results}"]
        subprocess.run(command, cwd=ROOT, check=True)
        for name in ("table8.md", "claims/rank.json"):
            shutil.copy(results / name, FOLDER)


if __name__ == "__main__":
    main()
