"""Rows as token ids, with the loss on the answer only."""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

IGNORED = -100  # the label of a token that the loss leaves out

# What starting a forward pass costs, in tokens: padding is cheaper than more passes below that.
STARTING = {"cuda": 2048, "cpu": 256}


@dataclass(frozen=True)
class Rows:
    """Tokenised training rows: `ids[i]` are token ids (int64), of which the first `prompt[i]`
    are the prompt; `dropped` counts rows longer than the limit."""

    ids: list[list[int]]
    prompt: list[int]
    dropped: int

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> list[int]:
        return [len(i) for i in self.ids]

    @property
    def answers(self) -> list[int]:
        """Number of tokens under the loss, by row."""
        return [len(i) - p for i, p in zip(self.ids, self.prompt, strict=True)]


def read(files: Iterable[str | Path]) -> list[tuple[str, str]]:
    """(prompt, answer) of prepared training sets (mofe/stages/prepare.py), one after the other."""
    tables = [pq.read_table(file) for file in files]
    return [
        pair
        for table in tables
        for pair in zip(table["prompt"].to_pylist(), table["answer"].to_pylist(), strict=True)
    ]


def tokenize(pairs: Sequence[tuple[str, str]], tokenizer, max_length: int) -> Rows:
    """Tokenise (prompt, answer) pairs; raw text has an empty prompt.

    A row is the tokens of prompt + answer, split where the prompt's own tokens end, as lm-eval
    splits a question from its continuation. A row longer than `max_length` tokens is dropped and
    counted, so that no answer is ever cut; raw text is cut into pieces instead.
    Raises ValueError where no row is left.
    """
    prompts = [prompt for prompt, _ in pairs]
    whole = tokenizer([prompt + answer for prompt, answer in pairs])["input_ids"]
    heads = tokenizer(prompts)["input_ids"]
    ids, starts, dropped = [], [], 0
    for prompt, head, row in zip(prompts, heads, whole, strict=True):
        if not prompt:
            pieces = [row[i : i + max_length] for i in range(0, len(row), max_length)]
            ids += [p for p in pieces if len(p) > 1]
            starts += [1 for p in pieces if len(p) > 1]  # the first token has nothing before it
        elif len(row) > max_length:
            dropped += 1
        else:
            ids.append(row)
            starts.append(len(head))
    if not ids:
        raise ValueError(
            f"training.max_length: none of the {len(pairs)} rows has {max_length} tokens or fewer; "
            "raise max_length"
        )
    return Rows(ids, starts, dropped)


def collate(
    rows: Rows, indices: Sequence[int], pad: int, counts: bool = True
) -> dict[str, torch.Tensor]:
    """A right-padded batch: `input_ids`, `attention_mask` and `labels`, int64 (rows, length);
    labels are -100 outside the answer, and everywhere where the rows do not count."""
    length = max(len(rows.ids[i]) for i in indices)
    ids = torch.full((len(indices), length), pad)
    mask = torch.zeros((len(indices), length), dtype=torch.int64)
    labels = torch.full((len(indices), length), IGNORED)
    for at, index in enumerate(indices):
        row, start = torch.tensor(rows.ids[index]), rows.prompt[index]
        ids[at, : len(row)] = row
        mask[at, : len(row)] = 1
        if counts:
            labels[at, start : len(row)] = row[start:]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def schedule(
    lengths: Sequence[int],
    seed: int,
    epochs: int,
    global_batch: int,
    most_tokens: int,
    processes: int = 1,
    starting: int = 0,
) -> Iterator[list[list[int]]]:
    """The micro-batches of every optimiser step, as row indices.

    Each epoch visits every row once in an order that `seed` gives, `global_batch` rows a step (the
    epoch's last step may have fewer). Within a step rows are cut into micro-batches by length, of
    `most_tokens` tokens with padding (or one longer row); `processes`, `starting`: as in shared_out.
    That saves padding and time, and changes nothing else: the step's gradient is that of all its rows.
    """
    random = np.random.default_rng(seed)
    for _ in range(epochs):
        order = random.permutation(len(lengths)).tolist()
        for start in range(0, len(order), global_batch):
            step = sorted(order[start : start + global_batch], key=lengths.__getitem__)
            yield shared_out(step, lengths, most_tokens, processes, starting)


def shared_out(
    step: Sequence[int], lengths: Sequence[int], most_tokens: int, processes: int, starting: int = 0
) -> list[list[int]]:
    """A step's rows, in order of length, in micro_batches for so many processes: they compute theirs
    at the same time, in rounds, so the batches are made small enough that the last round is as full as
    the others, and no larger."""
    if processes == 1:
        return micro_batches(step, lengths, most_tokens, starting)
    total = sum(lengths[row] for row in step)
    for rounds in itertools.count(max(1, math.ceil(total / (processes * most_tokens)))):
        for padding in (1.0, 1.05, 1.1, 1.2, 1.4):
            even = math.ceil(padding * total / (processes * rounds))
            batches = micro_batches(step, lengths, min(even, most_tokens), starting)
            if len(batches) <= processes * rounds:
                return batches


def micro_batches(
    step: Sequence[int], lengths: Sequence[int], most_tokens: int, starting: int = 0
) -> list[list[int]]:
    """Rows in order of length, cut into batches that take the least time: of at most `most_tokens`
    tokens with padding (or one longer row), where a batch costs its tokens and `starting` more."""
    long = np.array([lengths[row] for row in step])
    least, begins = np.zeros(len(step) + 1), np.zeros(len(step) + 1, dtype=int)
    for end in range(1, len(step) + 1):  # the best way to cut the first `end` rows
        longest = long[end - 1]
        first = min(max(0, end - most_tokens // longest), end - 1)
        rows = np.arange(end - first, 0, -1)
        costs = least[first:end] + rows * longest + starting
        begins[end] = first + costs.argmin()
        least[end] = costs.min()
    batches, end = [], len(step)
    while end:
        batches.append(list(step[begins[end] : end]))
        end = begins[end]
    return batches[::-1]


def count_steps(rows: int, epochs: int, global_batch: int) -> int:
    """The number of optimiser steps that `schedule` yields."""
    return epochs * math.ceil(rows / global_batch)
