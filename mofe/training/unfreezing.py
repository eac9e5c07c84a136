"""Progressive unfreezing: parameters that a training leaves as they are until a part of its steps
is done.

Until then they require no gradient, so that AdamW changes neither them nor their moments, which are
zero. That they are bit-identical until then is checked by their hash.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from mofe import provenance, records


@dataclass(frozen=True)
class Unfrozen:
    """Experts that are trained from a part of the training on: after which share of its optimiser
    steps, their slots, and the names of their parameters."""

    after: float
    slots: tuple[int, ...]
    names: tuple[str, ...]

    def start(self, steps: int) -> int:
        """After how many of the training's steps that is. Raises ValueError where it has one step,
        which leaves none."""
        if steps < 2:
            raise ValueError(
                f"recipes: 'unfreeze' after {self.after:g} of the training needs 2 steps, and it "
                "has 1; lower training.global_batch, or leave 'unfreeze' out"
            )
        return max(1, math.floor(self.after * steps + 1e-9))


class Schedule:
    """What is trained at each step of a training.

    parts: what is trained later, in order. trained: all parameters that are trained in the end, by
    name, as they were before the first step. steps: of the whole training. All processes must make
    one, and call its methods.
    """

    def __init__(self, parts: Sequence[Unfrozen], trained: Mapping[str, nn.Parameter], steps: int):
        self._parts = [(part.start(steps), part, _of(part, trained)) for part in parts]
        self._hashes = [provenance.hash_tensors(held) for _, _, held in self._parts]

    def reach(self, done: int) -> bool:
        """Have the model's parameters require gradients as the step after `done` needs it. Returns
        whether that changes any of them.

        Raises RuntimeError where one is not as it was before the training and is trained from here
        on.
        """
        changed = False
        for (start, part, held), before in zip(self._parts, self._hashes, strict=True):
            if done == start and (now := provenance.hash_tensors(held)) != before:
                raise RuntimeError(
                    f"a parameter changed before step {start + 1}, which is the first to update "
                    f"slots {list(part.slots)}: {before} became {now}"
                )
            for parameter in held.values():
                changed |= parameter.requires_grad != (done >= start)
                parameter.requires_grad_(done >= start)
        return changed

    def records(self) -> tuple[records.Unfrozen, ...]:
        """What train.json says of each part."""
        return tuple(
            records.Unfrozen(
                first_step=start + 1,
                slots=part.slots,
                parameters=sum(parameter.numel() for parameter in held.values()),
                sha256=before,
            )
            for (start, part, held), before in zip(self._parts, self._hashes, strict=True)
        )


def _of(part: Unfrozen, trained: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    return {name: trained[name] for name in part.names}
