"""The table of docs/reliability.md and README's line, from docs/reliability.json, which
`make faults` writes."""

import json
from functools import cache
from pathlib import Path
from typing import Any

from mofe.markdown import table

FILE = Path(__file__).parents[1] / "reliability.json"
COUNTS = ("lost", "silent", "dead end", "unnamed", "traceback")
HEADINGS = ("Lost", "Silent", "Dead ends", "Unnamed", "Tracebacks")


@cache
def _campaign() -> dict[str, Any]:
    return json.loads(FILE.read_text())


def _total(key: str) -> int:
    return sum(row[key] for row in _campaign()["promises"])


def _table() -> str:
    rows = [
        [
            row["promise"],
            "; ".join(row["faults"]),
            f"[{Path(row['test']).stem}](../{row['test']})",
            f"{row['tried']:,}",
            *(str(row[key]) for key in COUNTS),
        ]
        for row in _campaign()["promises"]
    ]
    total = ["**All**", "", "", f"**{_total('tried'):,}**", *(f"**{_total(k)}**" for k in COUNTS)]
    return table(["Promise", "Faults", "Test", "Tried", *HEADINGS], [*rows, total], "lllrrrrrr")


def _stamp() -> str:
    found = _campaign()
    versions = ", ".join(
        f"{name} {found['versions'][name]}"
        for name in ("python", "torch", "transformers", "snakemake")
    )
    return (
        f"Seed {found['seed']}, code {found['git_revision']}, {versions}; "
        f"{found['minutes']:.0f} minutes."
    )


def _line() -> str:
    counts = ", ".join(f"{_total(key)} {key}" for key in COUNTS)
    return (
        f"{_total('tried'):,} injected faults (kills, signals, full disks, power cuts, damaged "
        f"files): {counts} ([docs/reliability.md](docs/reliability.md))."
    )


PARTS = {
    ("docs/reliability.md", "campaign"): _table,
    ("docs/reliability.md", "stamp"): _stamp,
    ("README.md", "faults"): _line,
}
