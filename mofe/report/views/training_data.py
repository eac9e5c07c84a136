"""What the page says of training data: counts, mixes, and rows that the test sets have too."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from mofe import records
from mofe.records import TaskCounts, TextCounts, TrainRecord
from mofe.report.views.table import span

# The counts of a training set, and their headings on the page.
COUNTED = (
    ("read", "Rows read"),
    ("incomplete", "Incomplete"),
    ("held_out", "Held out"),
    ("left_by_task", "Left out by the task"),
    ("made_by_task", "Made by the task"),
    ("unlabelled", "Unlabelled"),
    ("pieces", "Pieces"),
    ("duplicate", "Duplicate"),
    ("also_in_test", "Also in the test set"),
    ("nearly_in_test", "Nearly in the test set (kept)"),
    ("usable", "Usable"),
    ("sampled", "Sampled"),
    ("characters", "Characters"),
)


def cell(counts: TaskCounts | TextCounts, key: str) -> str:
    """What the table prints of a training set under a heading of COUNTED. Raw text is compared with
    no test set."""
    if isinstance(counts, TextCounts) and key in ("also_in_test", "nearly_in_test"):
        return "not compared"
    value = getattr(counts, key, None)
    return "" if value is None else f"{value:,}"


def contamination(sets: Mapping[str, TaskCounts | TextCounts]) -> str:
    """Sentences on the training rows that were dropped because they are asked in a test set, on
    those that nearly are, and on the sets that were not compared."""
    tasks = {name: c for name, c in sets.items() if isinstance(c, TaskCounts)}
    texts = ", ".join(name for name in sets if name not in tasks)
    same = ", ".join(
        f"{c.also_in_test:,} of {c.read:,} rows of {name}"
        for name, c in tasks.items()
        if c.also_in_test
    )
    near = ", ".join(
        f"{c.nearly_in_test:,} of {c.usable:,} usable rows of {name}"
        for name, c in tasks.items()
        if c.nearly_in_test
    )
    told = []
    if same:
        told.append(f"Dropped because the task's test set asks the same: {same}.")
    elif tasks:
        told.append("No training row has the prompt of a question of its task's test set.")
    if near:
        told.append(
            f"The same but for case, punctuation and white space, and kept: {near}. Whether they "
            "are the same questions was not judged."
        )
    elif tasks and all(c.nearly_in_test is not None for c in tasks.values()):
        told.append("None is the same but for case, punctuation and white space.")
    if tasks:
        told.append("Prompts are compared as whole texts; a question in other words is not found.")
    if texts:
        told.append(f"Raw text was not compared with any test set: {texts}.")
    return " ".join(told)


def mixed(name: str, data: Sequence[str], trainings: Sequence[str | os.PathLike]) -> dict[str, Any]:
    """A mix of training sets, with the rows per epoch of its runs and the over-long rows that they
    left out. These differ between runs only if a recipe has a max_length of its own."""
    runs = [records.read(path, TrainRecord) for path in trainings]
    return {
        "name": name,
        "data": data,
        "trainings": len(runs),
        "rows": span([run.rows for run in runs], ","),
        "dropped": span([run.dropped_rows for run in runs], ","),
        "source": trainings,
    }
