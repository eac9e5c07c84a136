"""The routers of a mixture over its training (`training.record_router`).

They are seen in the forward passes that the training makes anyway, in the steps that are recorded.
A step's record is a part of its line in the log, so that it is kept, and goes on after an
interruption, as the losses do.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from mofe.layers import routers
from mofe.records import LossStep, RouterLayer, TokenShare
from mofe.training import parallel, tokens


class Recorder:
    """What the routers of a training do, step by step.

    decoder: the Mixtral's `model`. rows: those of the training. every: of how many steps one is
    recorded, and the first and the last besides; None for none. steps: of the whole training.
    everywhere: whether the last layer's FFN is computed at all positions, and not only where the
    loss reads it (mofe/layers/positions.py).
    """

    def __init__(
        self,
        decoder: nn.Module,
        rows: tokens.Rows,
        every: int | None,
        steps: int,
        everywhere: bool,
    ):
        self.routers = routers.of(decoder) if every else []
        self.every, self.steps, self.everywhere = every, steps, everywhere
        self.set_of = rows.sets
        self.sums: routers.Sums | None = None  # of the step, where it is recorded

    def begin(self, number: int, device: torch.device) -> None:
        """Begin an optimiser step, or begin it anew."""
        recorded = self.every and (number % self.every == 0 or number in (1, self.steps))
        self.sums = None
        if self.routers and recorded:
            slots, sets = self.routers[0].num_experts, 1 + max(self.set_of)
            self.sums = routers.Sums(len(self.routers), slots, sets, device)

    @contextmanager
    def seeing(self, batch: Sequence[int], inputs: Mapping[str, torch.Tensor]) -> Iterator[None]:
        """A forward pass in this context is recorded, if the step is. batch: the rows' numbers.
        inputs: tokens.collate's, still on the CPU."""
        if self.sums is None:
            yield
            return
        of_set = torch.tensor([self.set_of[row] for row in batch])[:, None]
        everywhere = of_set.where(inputs["attention_mask"].bool(), -1)
        read = everywhere if self.everywhere else everywhere[tokens.predicting(inputs["labels"])]
        device, last = self.sums.values.device, len(self.routers) - 1
        of_most, of_last = everywhere.flatten().to(device), read.flatten().to(device)

        def see(layer: int, *given: torch.Tensor) -> None:
            self.sums.add(layer, *given, of_last if layer == last else of_most)

        with routers.seeing(self.routers, see):
            yield

    def found(self) -> dict[str, tuple[RouterLayer, ...]]:
        """The field of the step's line in the log, over all processes; none where the step is not
        recorded. All processes must call this."""
        if self.sums is None:
            return {}
        return {"router": self.sums.described(parallel.summed_up(self.sums.values.cpu()))}


def token_share(steps: Iterable[LossStep], updated: Sequence[int]) -> dict[str, TokenShare]:
    """The field of train.json on a training's log: over the recorded steps, each token alike; none
    where no step is recorded. updated: the slots of a layer whose experts are updated."""
    recorded = [step.router for step in steps if step.router]
    if not recorded:
        return {}
    shares = [_share(layers) for layers in zip(*recorded, strict=True)]
    to_updated = sum(layer[slot] for layer in shares for slot in updated) / len(shares)
    found = TokenShare(slots=shares, updated=min(1.0, round(to_updated, routers.DIGITS)))
    return {"token_share": found}


def _share(layers: Sequence[RouterLayer]) -> tuple[float, ...]:
    """The share of choices that went to each slot of a layer, over its steps."""
    total = sum(layer.tokens for layer in layers)
    by_slot = zip(*(layer.chosen for layer in layers), strict=True)
    sums = (
        sum(share * layer.tokens for share, layer in zip(shares, layers, strict=True))
        for shares in by_slot
    )
    return tuple(min(1.0, round(found / total, routers.DIGITS)) for found in sums)
