"""Continuations of one context, read in one forward pass.

A question's options share its context, which is computed once. The options' tokens follow it, one
option after the other. Each option has the positions that follow the context, and sees only the
context and itself. An option of one token needs no computation of its own: the context's logits
score it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch.nn.utils.rnn import pad_sequence

PADDING = -1  # the branch of padding


@dataclass
class Tree:
    """A context with its continuations, each of at least one token.

    One entry per token in `ids`; in `positions`, where the token stands in its text; and in
    `branches`, 0 for the context, else the number of the continuation, from 1. A continuation's
    last token is left out: its logits would score nothing. `read[c]`: where the logits that score
    continuation c's tokens are, counted from the context's last token.
    """

    context: Sequence[int]
    continuations: Sequence[Sequence[int]]
    ids: list[int] = field(init=False)
    positions: list[int] = field(init=False)
    branches: list[int] = field(init=False)
    read: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.ids, self.read, length = [*self.context], [], len(self.context)
        self.positions, self.branches = [*range(length)], [0] * length
        for number, tokens in enumerate(self.continuations, 1):
            begin, more = len(self.ids), len(tokens) - 1
            self.read.append([0, *range(begin - length + 1, begin - length + 1 + more)])
            self.ids += tokens[:-1]
            self.positions += range(length, length + more)
            self.branches += [number] * more

    def __len__(self) -> int:
        return len(self.ids)


def collate(
    trees: Sequence[Tree], device: torch.device, window: int | None = None
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The inputs of a causal language model of transformers, and where its logits are needed.

    The inputs are input_ids (rows, length) int64, padded on the right. Where there are branches,
    there are also position_ids of that shape and attention_mask (rows, 1, length, length) bool: who
    sees whom; with a sliding window, only what is fewer than `window` tokens before. The second
    result (rows, length) bool is true from each context's last token to the row's end.
    """

    def padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
        rows = [torch.tensor(row) for row in rows]
        return pad_sequence(rows, batch_first=True, padding_value=value).to(device)

    branches = padded([tree.branches for tree in trees], PADDING)
    columns = torch.arange(branches.shape[1], device=device)
    last = torch.tensor([[len(tree.context) - 1] for tree in trees], device=device)
    read = (columns >= last) & (branches != PADDING)
    inputs = {"input_ids": padded([tree.ids for tree in trees], 0)}
    if (branches > 0).any():
        key, query = branches[:, None, None, :], branches[:, None, :, None]
        causal = columns[:, None] >= columns
        seen = causal & ((key == 0) | (key == query))
        positions = padded([tree.positions for tree in trees], 0)
        if window is not None:
            distance = positions[:, None, :, None] - positions[:, None, None, :]
            seen = seen & (distance < window)
        inputs |= {"attention_mask": seen, "position_ids": positions}
    return inputs, read
