"""Weight drift: how far a training moved each group of a model's weights.

It is ||after - before|| / ||before||, with Frobenius norms over all weights of a group, added up in
float64. The values before the training are kept on disk, so that it needs no more memory: of the
trained parameters alone, and by each process of what it holds of them.
"""

import math
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mofe import records
from mofe.training import parallel

# What the names of a group's parameters have; the first one that fits counts.
GROUPS = {
    "embeddings": re.compile(r"\b(embed_tokens|lm_head)\b"),
    "router": re.compile(r"\bmlp\.gate\."),
    "attention": re.compile(r"\bself_attn\."),
    "experts": re.compile(r"\bmlp\."),
    "norms": re.compile(r"norm\b"),
}
ADDED = re.compile(r"lora_|ia3_|\.adapters\.")  # parameters that a method adds to the model's own
CHUNK = 2**22  # weights that are compared at once


class Before:
    """The trained parameters of a model as they were before a training, in a file without a name
    in `folder`.

    model: with its trained parameters marked (`requires_grad`), as this process holds it. sharded:
    whether each process holds a part of every parameter.
    """

    def __init__(self, model: nn.Module, folder: Path, sharded: bool):
        self._model, self._sharded = model, sharded
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - it lasts as long as this
        self._trained = {n for n, p in model.named_parameters() if p.requires_grad}
        for name, parameter in self._own():
            for chunk in _chunks(parameter) if name in self._trained else ():
                self._file.write(chunk.numpy().tobytes())

    def drift(self) -> records.Drift:
        """The drift of every group that has weights and no adapters. All processes must call this,
        once: the file is then gone."""
        moved, size = defaultdict(float), defaultdict(float)
        with self._file:
            self._file.seek(0)
            for name, parameter in self._own():
                if name not in self._trained:
                    continue
                group = self._group(name)
                for after in _chunks(parameter):
                    before = np.frombuffer(self._file.read(4 * len(after)), np.float32)
                    before, after = before.astype(np.float64), after.numpy().astype(np.float64)
                    moved[group] += np.square(after - before).sum()
                    size[group] += np.square(before).sum()
        for name, parameter in self._own():
            group = self._group(name)
            if name not in self._trained and group in size:  # a group that is trained in part
                for chunk in _chunks(parameter):
                    size[group] += np.square(chunk.numpy().astype(np.float64)).sum()
        there = {self._group(name) for name, _ in self._own()} - self._adapted()
        found = {group: self._ratio(moved[group], size[group]) for group in sorted(there)}
        return records.Drift(**{group: r for group, r in found.items() if r is not None})

    def _own(self) -> list[tuple[str, nn.Parameter]]:
        """The parameters that no method added."""
        return [(n, p) for n, p in self._model.named_parameters() if not ADDED.search(n)]

    def _adapted(self) -> set[str]:
        """The groups that have adapters."""
        names = [name for name, _ in self._model.named_parameters() if ADDED.search(name)]
        groups = {self._group(name) for name in names}
        return groups | ({"experts_frozen"} if "experts_updated" in groups else set())

    def _group(self, name: str) -> str:
        """The key of records.Drift that a parameter belongs to."""
        group = next(group for group, pattern in GROUPS.items() if pattern.search(name))
        if group == "experts":
            return "experts_updated" if name in self._trained else "experts_frozen"
        return group

    def _ratio(self, moved: float, size: float) -> float | None:
        """None where weights that were all 0, as those of uniform gates, have moved."""
        if self._sharded:
            moved, size = parallel.summed(moved), parallel.summed(size)
        if moved and not size:
            return None
        return math.sqrt(moved / size) if moved else 0.0


def _chunks(parameter: nn.Parameter) -> Iterator[torch.Tensor]:
    """What this process holds of a parameter, in pieces on the CPU, float32."""
    held = parameter.detach()
    held = held.to_local() if hasattr(held, "to_local") else held
    return (part.to("cpu", torch.float32) for part in held.flatten().split(CHUNK))
