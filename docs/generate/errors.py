"""The tables of docs/statistics.md: error rates from docs/error-rates.json, which tests/simulate.py
writes, and the least effects from mofe/report/stats.py."""

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

from mofe.markdown import table
from mofe.report import stats

PAGE = "docs/statistics.md"
FILE = Path(__file__).parents[1] / "error-rates.json"

# Column -> the test's name in the file.
TESTS = {
    "one heap": "heap",
    "questions only": "questions only",
    "seeds only": "seeds only",
    "bootstrap": "bootstrap",
    "mixed model": "mixed model, z",
    "paired seeds": "paired seeds",
    "pooled": "pooled",
    "moderated": "moderated",
    "**crossed**": "crossed",
}
SEEDS = (3, 5, 10, 20, 100)


@cache
def _rates() -> dict[str, Any]:
    return json.loads(FILE.read_text())


def _aligned(headings: list[str], rows: list[list[Any]]) -> str:
    return table(headings, rows, "l" + "r" * (len(headings) - 1))


def _false_positives() -> str:
    rows = [
        [name, *(f"{found[test]:.1f}" for test in TESTS.values())]
        for name, found in _rates()["false positives"].items()
    ]
    return _aligned(["Studies", *TESTS], rows)


def _facts() -> str:
    cases = {
        name: found
        for name, found in _rates()["false positives"].items()
        if found["facts ignored"] != found["crossed"]
    }
    rows = [
        [name, f"{found['facts ignored']:.1f}", f"{found['crossed']:.1f}"]
        for name, found in (cases | _rates()["records"]).items()
    ]
    return _aligned(["Studies", "facts ignored", "**crossed**"], rows)


def _one_seed() -> str:
    found = _rates()["one seed"]
    dfs = [key for key in next(iter(found.values())) if key.isdigit()]
    headings = ["Task", "McNemar", *(f"yardstick of {df}" for df in dfs), "half too small, of 8"]
    keys = ["McNemar", *dfs, "half"]
    rows = [[task, *(f"{row[key]:.1f}" for key in keys)] for task, row in found.items()]
    return _aligned(headings, rows)


def _verdicts() -> str:
    rows = [[name, f"{percent:.1f}"] for name, percent in _rates()["verdicts"].items()]
    return _aligned(["Claim", "found in %"], rows)


def _power() -> str:
    rows = [
        [
            row["task"],
            str(row["seeds"]),
            f"{row['effect']:g}",
            f"{row['simulated']:.1f}",
            f"{row['computed']:.1f}",
        ]
        for row in _rates()["power"]
    ]
    return _aligned(["Task", "seeds", "difference", "found in %", "computed"], rows)


def _least() -> str:
    rows = []
    for task, known in _rates()["tasks"].items():
        for which, item_sd in (("new questions", _rates()["item SD"]), ("these questions", 0.0)):
            design = known["run SD"], item_sd, known["questions"]
            least = [stats.least_effect(*design, seeds) for seeds in SEEDS]
            least.append(stats.least_effect(*design, math.inf) if item_sd else 0.0)
            row = [f"{task}, {which}", f"{known['questions']:,}", f"{known['run SD']:.4f}"]
            rows.append([*row, *(f"{effect:.3f}" for effect in least)])
    headings = ["Task", "questions", "run SD", *(f"{seeds} seeds" for seeds in SEEDS), "any number"]
    return _aligned(headings, rows)


PARTS = {
    (PAGE, "false positives"): _false_positives,
    (PAGE, "facts"): _facts,
    (PAGE, "one seed"): _one_seed,
    (PAGE, "verdicts"): _verdicts,
    (PAGE, "power"): _power,
    (PAGE, "least effects"): _least,
}
