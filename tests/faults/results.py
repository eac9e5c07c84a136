"""The results of a campaign as a file: docs/reliability.json, from which the documentation's table
is made."""

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from mofe import provenance
from mofe.files import write_atomic
from tests.faults.fault import Ending, Outcome


def write(file: Path, outcomes: Iterable[Outcome], seed: int, seconds: float) -> None:
    """Write what became of each fault, by promise, with the code and the versions."""
    promises: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        promises[outcome.fault.promise].append(outcome)
    rows = [
        {
            "promise": promise,
            "test": f"tests/faults/{_module(found[0])}.py",
            "faults": sorted({_kind(outcome.fault.kind) for outcome in found}),
            "tried": len(found),
            **{e.value: sum(o.ending is e for o in found) for e in Ending},
            "not kept": sorted(o.fault.name for o in found if o.ending is not Ending.KEPT),
        }
        for promise, found in sorted(promises.items())
    ]
    told = {
        "seed": seed,
        "minutes": round(seconds / 60, 1),
        "git_revision": provenance.git_revision(),
        "versions": provenance.versions(),
        "promises": rows,
    }
    write_atomic(file, json.dumps(told, indent=1, ensure_ascii=False) + "\n")


def _module(outcome: Outcome) -> str:
    return {"checkpoints": "training"}.get(outcome.fault.family, outcome.fault.family)


def _kind(kind: str) -> str:
    return kind.removeprefix("out of memory: ")
