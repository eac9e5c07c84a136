"""Training rows as token ids with the loss on the answer only, and how they are cut into
batches."""

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F

from mofe.training import encoding

IGNORED = -100  # the label of a token that the loss leaves out

# What starting a forward pass costs, as the number of tokens that take as long: less padding than
# that is cheaper than one more pass.
STARTING = {"cuda": 2048, "cpu": 256}


@dataclass(frozen=True)
class Rows:
    """Tokenised training rows. `ids[i]` are a row's token ids, of which the first `prompt[i]` are
    the prompt. `dropped` counts rows longer than the limit. `sets[i]` is the number of the training
    set that a row comes from. `domains`: by number of a set, its domain, where rows are routed by
    it (mofe.layers.domains). The last `replayed` rows come from other training sets than the mix's
    own (`with_replay`)."""

    ids: list[list[int]]
    prompt: list[int]
    dropped: int
    sets: list[int]
    domains: Sequence[int] | None = None
    replayed: int = 0

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def lengths(self) -> list[int]:
        return [len(i) for i in self.ids]

    @property
    def digest(self) -> str:
        """SHA-256 of all rows, in their order."""
        digest = hashlib.sha256()
        for ids, prompt in zip(self.ids, self.prompt, strict=True):
            digest.update(np.array([len(ids), prompt, *ids], dtype="<i8").tobytes())
        if self.domains is not None:
            of_rows = [self.domains[number] for number in self.sets]
            digest.update(np.array(of_rows, dtype="<i8").tobytes())
        return digest.hexdigest()

    @property
    def answers(self) -> list[int]:
        """The number of tokens per row that the loss counts."""
        return [len(i) - p for i, p in zip(self.ids, self.prompt, strict=True)]


def read(files: Iterable[str | Path]) -> list[tuple[str, str]]:
    """The (prompt, answer) pairs of prepared training sets (mofe/stages/prepare.py), in order."""
    tables = [pq.read_table(file) for file in files]
    return [
        pair
        for table in tables
        for pair in zip(table["prompt"].to_pylist(), table["answer"].to_pylist(), strict=True)
    ]


def sets(files: Iterable[str | Path]) -> list[int]:
    """By pair of `read`, the number of its file among the files."""
    rows = (pq.read_metadata(file).num_rows for file in files)
    return [number for number, count in enumerate(rows) for _ in range(count)]


def tokenize(
    pairs: Sequence[tuple[str, str]],
    tokenizer,
    max_length: int,
    add_bos_token: bool = True,
    sets: Sequence[int] | None = None,
) -> Rows:
    """Tokenise (prompt, answer) pairs; raw text has an empty prompt. sets: the number of each
    pair's training set; None where there is one set.

    A row is the tokens of prompt + answer, and the answer begins where an evaluation has it
    (mofe.training.encoding, also for add_bos_token). A row longer than `max_length` tokens is
    dropped and counted, so that no answer is ever cut; raw text is cut into pieces instead. Raises
    ValueError where no row is left, and as encoding.pairs.
    """
    asked = encoding.pairs(tokenizer, [pair for pair in pairs if pair[0]], "data", add_bos_token)
    told = encoding.texts(tokenizer, [text for prompt, text in pairs if not prompt], add_bos_token)
    rows, documents = iter(asked), iter(told)
    ids, starts, of_set, dropped = [], [], [], 0
    for number, (prompt, _) in enumerate(pairs):
        before = len(ids)
        if not prompt:
            row = next(documents)
            cut = pieces(row, max_length)
            ids += cut
            starts += [1] * len(cut)
        else:
            row, start = next(rows)
            if len(row) > max_length:
                dropped += 1
            else:
                ids.append(row)
                starts.append(start)
        of_set += [sets[number] if sets else 0] * (len(ids) - before)
    if not ids:
        raise ValueError(
            f"training.max_length: none of the {len(pairs)} rows has {max_length} tokens or fewer; "
            "raise max_length"
        )
    return Rows(ids, starts, dropped, of_set)


def pieces(ids: Sequence[int], max_length: int) -> list[list[int]]:
    """The tokens of raw text in pieces of at most so many. Nothing precedes a piece's first token,
    so nothing predicts it, and a piece of one token is left out."""
    cut = (list(ids[i : i + max_length]) for i in range(0, len(ids), max_length))
    return [piece for piece in cut if len(piece) > 1]


def with_replay(rows: Rows, others: Rows, share: float, seed: int) -> Rows:
    """A mix's own rows, and so many rows of other sets that they are this share of all.

    They are drawn by `seed`, once for all epochs; a larger share takes the rows of a smaller one
    too. No row comes a second time before all have come once, and so on. Rows that are too long to
    be drawn count as dropped, like the mix's own. Raises ValueError where the other sets have no
    row.
    """
    if not len(others):
        raise ValueError("mixes: the data sets of 'replay' have no row; name others")
    number = max(1, round(len(rows) * share / (1 - share)))
    order = np.random.default_rng(seed).permutation(len(others))
    drawn = np.resize(order, number).tolist()
    return Rows(
        rows.ids + [others.ids[i] for i in drawn],
        rows.prompt + [others.prompt[i] for i in drawn],
        rows.dropped + others.dropped,
        rows.sets + [others.sets[i] for i in drawn],
        replayed=number,
    )


def collate(
    rows: Rows, indices: Sequence[int], pad: int, counts: bool = True
) -> dict[str, torch.Tensor]:
    """A right-padded batch: `input_ids`, `attention_mask` and `labels`, each int64 (rows, length),
    and where rows have domains `domains`, int64 (rows,). Labels are -100 outside the answer, and
    everywhere if the rows do not count."""
    lengths = np.array([[len(rows.ids[i])] for i in indices])
    starts = np.array([[rows.prompt[i]] for i in indices])
    ids = np.full((len(indices), lengths.max()), pad)
    for row, index in zip(ids, indices, strict=True):
        row[: len(rows.ids[index])] = rows.ids[index]
    at = np.arange(ids.shape[1])
    mask = at < lengths
    labels = np.where(mask & (at >= starts) & counts, ids, IGNORED)
    found = {"input_ids": ids, "attention_mask": mask.astype(np.int64), "labels": labels}
    batch = {name: torch.from_numpy(values) for name, values in found.items()}
    if rows.domains is not None:
        of_rows = [rows.domains[rows.sets[index]] for index in indices]
        batch["domains"] = torch.tensor(of_rows)
    return batch


def predicting(labels: torch.Tensor) -> torch.Tensor:
    """(rows, length) bool: the positions whose next token the loss counts. labels: of `collate`."""
    return F.pad(labels[:, 1:] != IGNORED, (0, 1))


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

    Each epoch visits every row once, in an order that `seed` gives, `global_batch` rows per step
    (the epoch's last step may have fewer). Within a step, rows are sorted by length and cut into
    micro-batches; most_tokens, processes, starting: as in balanced_batches. Sorting saves padding
    and time, and changes nothing else: the step's gradient is that of all its rows.
    """
    random = np.random.default_rng(seed)
    for _ in range(epochs):
        order = random.permutation(len(lengths)).tolist()
        for start in range(0, len(order), global_batch):
            step = sorted(order[start : start + global_batch], key=lengths.__getitem__)
            yield balanced_batches(step, lengths, most_tokens, processes, starting)


def balanced_batches(
    step: Sequence[int], lengths: Sequence[int], most_tokens: int, processes: int, starting: int = 0
) -> list[list[int]]:
    """A step's rows, sorted by length, in micro_batches that keep all processes busy.

    The processes compute one batch each per round, so the last round should be as full as the
    others. Tried are the fewest rounds first, and for each number of rounds batches of its even
    share of the tokens, with more and more allowance for padding, until there are enough batches
    for the rounds and no more.
    """
    if processes == 1:
        return micro_batches(step, lengths, most_tokens, starting)
    total = sum(lengths[row] for row in step)
    fewest_rounds = max(1, math.ceil(total / (processes * most_tokens)))
    for rounds in itertools.count(fewest_rounds):
        for padding in (1.0, 1.05, 1.1, 1.2, 1.4):
            even_share = math.ceil(padding * total / (processes * rounds))
            batches = micro_batches(step, lengths, min(even_share, most_tokens), starting)
            if len(batches) <= processes * rounds:
                return batches


def micro_batches(
    step: Sequence[int], lengths: Sequence[int], most_tokens: int, starting: int = 0
) -> list[list[int]]:
    """Rows, sorted by length, cut into batches that take the least time together.

    A batch has at most `most_tokens` tokens with padding, or one longer row. It costs these tokens,
    and `starting` more. The best cut is found by dynamic programming over the number of rows: with
    cost[0] = 0, the first `end` rows cost

        cost[end] = min over begin of cost[begin] + (end - begin) * length[end - 1] + starting

    where the last batch holds the rows from `begin` on, and the longest row, `end - 1`, sets its
    width.
    """
    length = np.array([lengths[row] for row in step])
    cost = np.zeros(len(step) + 1)
    begin_of = np.zeros(len(step) + 1, dtype=int)  # where the best last batch of `end` rows begins
    for end in range(1, len(step) + 1):
        width = length[end - 1]
        lowest = min(max(0, end - most_tokens // width), end - 1)  # an earlier begin is too large
        rows = np.arange(end - lowest, 0, -1)
        costs = cost[lowest:end] + rows * width + starting
        begin_of[end] = lowest + costs.argmin()
        cost[end] = costs.min()
    batches, end = [], len(step)
    while end:
        begin = begin_of[end]
        batches.append(list(step[begin:end]))
        end = begin
    return batches[::-1]


def count_steps(rows: int, epochs: int, global_batch: int) -> int:
    """The number of optimiser steps that `schedule` yields."""
    return epochs * math.ceil(rows / global_batch)
