"""What the miniature takes, from the records of benchmarks/study.py."""

import json
from pathlib import Path
from typing import Any

from mofe import units

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def taken() -> str:
    """A sentence per command that was measured: minutes, memory and disk, and on what."""
    files = {name: RESULTS / f"{name}.json" for name in ("look", "mini")}
    told = {name: json.loads(file.read_text()) for name, file in files.items() if file.exists()}
    return "\n".join(_sentence(name, record) for name, record in told.items())


def _sentence(name: str, record: dict[str, Any]) -> str:
    hardware = record["hardware"]
    seeds = [a.removeprefix("seeds=") for a in record["arguments"] if a.startswith("seeds=")]
    command = " ".join([f"make {name}", *(f"SEEDS={given}" for given in seeds)])
    return (
        f"`{command}` took {record['wall'] / 60:.0f} minutes on {hardware['cores']} cores of an "
        f"{hardware['cpu']}, {units.size(record['memory'])} of memory, and "
        f"{units.size(record['disk'])} of disk for its results."
    )


PARTS = {("README.md", "taken"): taken}
