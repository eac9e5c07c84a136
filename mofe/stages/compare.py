"""Two results of a study compared (rule `compare`)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mofe.files import write_atomic
from mofe.report import compare, tables
from mofe.report.places import opened
from mofe.report.results import Results
from mofe.study.load import load_study
from mofe.study.plan import Plan


def write(*, config: Mapping[str, Any], first: str, second: str, markdown: str, csv: str) -> str:
    """Compare the results in two places (mofe.report.places.opened), cell by cell of the study's
    tables, and write a page and a CSV file. Returns lines for the user: what differs, all cells
    whose interval leaves out zero, and where the rest is.

    config: the study's merged configuration. Raises ValueError where a place holds no results.
    """
    study = load_study(config)
    with opened(first) as a, opened(second) as b:
        seeds = sorted(a.seeds | b.seeds) or study.seeds
        plan = Plan(study.model_copy(update={"seeds": seeds}))
        shown = compare.cells(list(plan.tables.values()), plan.root, a, b)
        Path(markdown).parent.mkdir(parents=True, exist_ok=True)
        write_atomic(markdown, compare.page(shown, a, b))
        write_atomic(csv, tables.to_csv(compare.frame(shown)))
        return "\n".join([*_told(shown, a, b), f"cell by cell: {markdown}, {csv}"])


def _told(shown: Sequence[compare.Compared], a: Results, b: Results) -> list[str]:
    told = [
        f"A is {a.name}, B is {b.name}; differences are B less A",
        *compare.summary(shown, a, b),
    ]
    rows = compare.makings(a.made, b.made)
    if a.config is not None and b.config is not None:
        rows += compare.differing_keys(a.config, b.config)
    told += [f"  {what}: {x} -> {y}" for what, x, y in rows]
    told += [
        f"  Table {cell.table}, {cell.row}, {cell.column}: {cell.difference:+.4f} "
        f"({cell.these.low:+.4f} to {cell.these.high:+.4f})"
        for cell in shown
        if cell.apart
    ]
    return told
