"""Sujet-Finance-Instruct-177k as a benchmark: a 9:1 split by seed (section 4.4.1).

The data set has one split. Rows of closed task types (sentiment, yes/no, topic) are multiple
choice among the labels that occur in their source; their share of the test part is the benchmark.
Rows of open types have no options and are trained on only.
"""

from collections import defaultdict
from typing import Literal

import numpy as np
from datasets import Dataset

CLOSED = ("sentiment_analysis", "yes_no_question", "topic_classification")
TEST_SHARE = 0.1


def part(rows: Dataset, which: Literal["train", "test"], seed: int) -> Dataset:
    """The train part with all its rows, or the closed rows of the test part.

    Each row gains `options` (list of str) and `gold` (int, the answer's index among them); an open
    row's only option is its answer. Repeated prompts are dropped before the split, so that no
    test prompt is trained on. Raises ValueError for a row without an answer.
    """
    columns = rows.select_columns(["inputs", "answer", "dataset", "task_type"])[:]
    prompts, answers = columns["inputs"], columns["answer"]
    kinds = list(zip(columns["dataset"], columns["task_type"], strict=True))
    labels: dict[tuple[str, str], set[str]] = defaultdict(set)
    for number, (kind, answer) in enumerate(zip(kinds, answers, strict=True)):
        if not answer:
            raise ValueError(f"sujet: row {number} has no answer (column 'answer')")
        labels[kind].add(answer.strip())
    first = list({prompt: i for i, prompt in reversed(list(enumerate(prompts)))}.values())[::-1]
    order = np.random.default_rng(seed).permutation(len(first))
    n_test = round(len(first) * TEST_SHARE)
    if which == "test":
        chosen = sorted(first[i] for i in order[:n_test])
        chosen = [i for i in chosen if kinds[i][1] in CLOSED]
    else:
        chosen = sorted(first[i] for i in order[n_test:])
    closed = [kinds[i][1] in CLOSED for i in chosen]
    options = [
        sorted(labels[kinds[i]]) if is_closed else [answers[i].strip()]
        for i, is_closed in zip(chosen, closed, strict=True)
    ]
    gold = [o.index(answers[i].strip()) for i, o in zip(chosen, options, strict=True)]
    return rows.select(chosen).add_column("options", options).add_column("gold", gold)
