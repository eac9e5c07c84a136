"""Continuations of one context, read in one forward pass.

A question's options share its context, which is computed once. Behind it lie the options' tokens, one
option after the other, each at the positions that follow the context, and each seeing the context
and its own option alone. An option of one token is read off the context and adds nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch.nn.utils.rnn import pad_sequence

PADDING = -1  # the branch of what fills a row up


@dataclass
class Tree:
    """A context with its continuations, all of at least one token.

    Of each token: `ids`; `positions`, where it stands in its text; `branches`, 0 for the context, else
    the number of its continuation, from 1. A continuation's last token is not among them: nothing is
    read from it. `read[c]`: where the logits of continuation c's tokens are, counted from the context's
    last token on.
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
    trees: Sequence[Tree], device: torch.device
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """What a causal language model of transformers is given, and where it is read.

    The inputs: input_ids (rows, length) int64, padded on the right; where there are branches also
    position_ids of that shape and attention_mask (rows, 1, length, length) bool, who sees whom. Read
    (rows, length) bool: from each context's last token to the row's end.
    """

    def padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
        rows = [torch.tensor(row) for row in rows]
        return pad_sequence(rows, batch_first=True, padding_value=value).to(device)

    branches = padded([tree.branches for tree in trees], PADDING)
    places = torch.arange(branches.shape[1], device=device)
    last = torch.tensor([[len(tree.context) - 1] for tree in trees], device=device)
    read = (places >= last) & (branches != PADDING)
    inputs = {"input_ids": padded([tree.ids for tree in trees], 0)}
    if (branches > 0).any():
        seen, seeing = branches[:, None, None, :], branches[:, None, :, None]
        before = places[:, None] >= places
        inputs["attention_mask"] = before & ((seen == 0) | (seen == seeing))
        inputs["position_ids"] = padded([tree.positions for tree in trees], 0)
    return inputs, read
