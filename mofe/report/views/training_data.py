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
    ("unlabelled", "Unlabelled"),
    ("pieces", "Pieces"),
    ("duplicate", "Duplicate"),
    ("also_in_test", "Also in the test set"),
    ("usable", "Usable"),
    ("sampled", "Sampled"),
    ("characters", "Characters"),
)


def contamination(sets: Mapping[str, TaskCounts | TextCounts]) -> str:
    """A sentence on the training rows that were dropped because they are asked in a test set."""
    found = {name: counts.also_in_test for name, counts in sets.items() if counts.also_in_test}
    if not found:
        return "No training row has the prompt of a question of its task's test set."
    parts = [f"{count:,} of {sets[name].read:,} rows of {name}" for name, count in found.items()]
    return (
        "Dropped because the task's test set asks the same: "
        + ", ".join(parts)
        + ". Prompts are compared as whole texts; a question in other words is not found."
    )


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
