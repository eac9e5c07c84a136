"""The committed results of the miniature, docs/reference: `make reference`.

    python docs/generate/reference.py RESULTS [AGAIN]

RESULTS is a finished results folder of `make mini`, with its config.yaml. AGAIN is that of another
run of the same study; docs/reference/again.json then says how many of their scores are the same.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from mofe.files import write_atomic
from mofe.report import compare, places, reference, results
from mofe.study.load import load_study
from mofe.study.plan import Plan

OUT = ROOT / "docs" / "reference"


def main(root: str, again: str | None = None) -> None:
    """Write docs/reference from a results folder, and again.json where another run is given."""
    found = results.of_folder(Path(root), root)
    if found.config is None:
        sys.exit(f"{root} has no config.yaml; run the study with this version, which writes it")
    if not Path(root, "claims.csv").is_file():
        sys.exit(f"{root} has no claims.csv, so the study is not finished; run it to its end")
    plan = Plan(load_study(found.config))
    found = replace(found, evaluations=_of_the_study(found, plan))
    reference.write(found, Path(root), found.config, OUT)
    if again is None:
        return
    with places.opened(again) as other:
        cells = compare.cells(list(plan.tables.values()), plan.root, found, other)
        scores = [cell for cell in cells if cell.is_score and cell.difference is not None]
        counts = {
            "scores": len(scores),
            "same": sum(cell.same for cell in scores),
            "apart": sum(cell.apart for cell in scores),
            "revisions": other.made.revisions,
            "machines": other.made.machines,
        }
    write_atomic(OUT / "again.json", json.dumps(counts, indent=2) + "\n")


def _of_the_study(found: results.Results, plan: Plan) -> dict[str, results.Head]:
    """The evaluations that the study makes; the folder may have those of other seeds too. Ends with
    a sentence where one of them is missing."""
    files = [
        plan.paths.eval_json(plan.variants[key], seed, task)
        for key, tasks in plan.tasks.items()
        for task in tasks
        for seed in plan.seeds(plan.variants[key])
    ]
    addresses = sorted(Path(file).relative_to(plan.root).as_posix() for file in files)
    if missing := [address for address in addresses if address not in found.evaluations]:
        sys.exit(
            f"{found.name} lacks {missing[0]}, so the study is not finished; run it to its end"
        )
    return {address: found.evaluations[address] for address in addresses}


if __name__ == "__main__":
    main(*sys.argv[1:])
