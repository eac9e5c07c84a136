"""Sujet-Finance-Instruct-177k as two benchmarks: a 9:1 split by seed (section 4.4.1).

The data set has one split. Rows of closed task types (sentiment, yes/no, topic) are multiple choice
among the labels that occur in their source; in the test part they are the paper's benchmark. Rows
of the other, open types have free-text answers; in the test part they are a second benchmark.
"""

from collections import defaultdict
from typing import Literal

import numpy as np
from datasets import Dataset

CLOSED = ("sentiment_analysis", "yes_no_question", "topic_classification")
TEST_SHARE = 0.1

Part = Literal["train", "test"]


def part(rows: Dataset, which: Part, seed: int) -> Dataset:
    """The train part with all its rows, or the closed rows of the test part.

    Each row gains `options` (list of str) and `gold` (int, the answer's index among them). An open
    row's only option is its answer as one line, with the line's end: training on it teaches where
    an answer ends, and generation stops there (mofe_finance_open.yaml). Repeated prompts are
    dropped before the split, so that no test prompt is trained on.
    """
    kinds = _kinds(rows)
    answers = [
        answer.strip() if _closed(kind) else one_line(answer) + "\n"
        for kind, answer in zip(kinds, rows["answer"][:], strict=True)
    ]
    labels: dict[tuple[str, str], set[str]] = defaultdict(set)
    for kind, answer in zip(kinds, answers, strict=True):
        labels[kind].add(answer)
    chosen = _split(rows, which, seed)
    if which == "test":
        chosen = [i for i in chosen if _closed(kinds[i])]
    options = [sorted(labels[kinds[i]]) if _closed(kinds[i]) else [answers[i]] for i in chosen]
    gold = [o.index(answers[i]) for i, o in zip(chosen, options, strict=True)]
    return rows.select(chosen).add_column("options", options).add_column("gold", gold)


def closed_rows(rows: Dataset) -> Dataset:
    """The rows that are multiple choice: only they are examples before a closed question."""
    closed = [i for i, kind in enumerate(_kinds(rows)) if _closed(kind)]
    return rows.select(closed)


def open_part(rows: Dataset, which: Part, seed: int) -> Dataset:
    """The open rows of the train or the test part. Each gains `reference`, its answer as one
    line."""
    kinds, answers = _kinds(rows), rows["answer"][:]
    chosen = [i for i in _split(rows, which, seed) if not _closed(kinds[i])]
    return rows.select(chosen).add_column("reference", [one_line(answers[i]) for i in chosen])


def one_line(text: str) -> str:
    """The text with every run of white space as one space, which changes no score of ours."""
    return " ".join(text.split())


def _kinds(rows: Dataset) -> list[tuple[str, str]]:
    return list(zip(rows["dataset"][:], rows["task_type"][:], strict=True))


def _closed(kind: tuple[str, str]) -> bool:
    return kind[1] in CLOSED


def _split(rows: Dataset, which: Part, seed: int) -> list[int]:
    """The indices of a part's rows, in order. Of rows with the same prompt only the first is
    used."""
    prompts = [(i, text.strip()) for i, text in enumerate(rows["inputs"][:])]
    first = list({prompt: i for i, prompt in reversed(prompts)}.values())
    first.reverse()
    order = np.random.default_rng(seed).permutation(len(first))
    n_test = round(len(first) * TEST_SHARE)
    numbers = order[:n_test] if which == "test" else order[n_test:]
    return sorted(first[i] for i in numbers)
