"""What a router's first weights are made from: the gate modes of `merge`, and what follows from
each for prompts, training rows, slots and mergekit. Imports neither torch nor transformers."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

GateMode = Literal["hidden", "cheap_embed", "random", "uniform", "shuffled", "ridge", "oracle"]


@dataclass(frozen=True)
class Gates:
    """A gate mode.

    prompted: gates are made from the slots' prompts, so these must differ. listed: slots have
    prompts, whether they are read or not. learned: gates are fitted to the rows that the experts
    were fine-tuned on. between_models: it tells models apart, so a mixture must have several.
    by_data: it tells them apart by what they were fine-tuned on. equal: it gives equal weights, so
    every token must be computed by all slots. routed: rows are routed by their domain, and the
    router's weights are not read. mergekit: the mode that mergekit is asked for; it makes some
    router even where another one takes its place.
    """

    prompted: bool = False
    listed: bool = False
    learned: bool = False
    between_models: bool = False
    by_data: bool = False
    equal: bool = False
    routed: bool = False
    mergekit: str = "random"


NONE = "none"  # the mode of a mixture of one expert, whose router chooses nothing
GATES: dict[str, Gates] = {
    "hidden": Gates(prompted=True, listed=True, mergekit="hidden"),
    "cheap_embed": Gates(prompted=True, listed=True, mergekit="cheap_embed"),
    "random": Gates(listed=True),
    "uniform": Gates(equal=True),
    "shuffled": Gates(prompted=True, listed=True, between_models=True, mergekit="hidden"),
    "ridge": Gates(learned=True, between_models=True, by_data=True),
    "oracle": Gates(between_models=True, by_data=True, equal=True, routed=True),
    NONE: Gates(),
}


def shuffled(models: Sequence[str]) -> list[int]:
    """For every slot, the slot whose gates it gets where gates are shuffled. models: by slot.

    The slots are put in the order of their models, and the gates are moved on by as many places as
    the most frequent model has slots. That gives as many slots as possible the gates of a slot of
    another model: all of them, unless one model has more than half of the slots. A model with m of
    n slots then gets n - m gates of others, which is all that there are.
    """
    if not models:
        return []
    order = sorted(range(len(models)), key=lambda slot: (models[slot], slot))
    (_, most), *_ = Counter(models).most_common(1)
    moved = [order[(place + most) % len(order)] for place in range(len(order))]
    return [gates for _, gates in sorted(zip(order, moved, strict=True))]
