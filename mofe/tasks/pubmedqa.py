"""PubMedQA's official test questions.

The labelled set (PQA-L) has one split of 1,000 rows. The authors' preprocess/split_dataset.py takes
500 of them as the test set: it shuffles the rows of each answer with seed 0, and takes the second
half. The same steps give exactly their published list (tests/test_tasks.py).
"""

import math
from random import Random
from typing import Literal

from datasets import Dataset

ANSWERS = ("yes", "no", "maybe")  # the authors' order matters: one generator shuffles all three


def part(rows: Dataset, which: Literal["train", "test"], seed: int) -> Dataset:
    """One half of PQA-L, in its own order. `seed` is not used, because the split is the
    authors'."""
    random, chosen = Random(0), []
    decisions = rows[:]["final_decision"]
    for answer in ANSWERS:
        indices = [i for i, decision in enumerate(decisions) if decision == answer]
        random.shuffle(indices)
        half = math.ceil(len(indices) / 2)
        chosen += indices[half:] if which == "test" else indices[:half]
    return rows.select(sorted(chosen))
