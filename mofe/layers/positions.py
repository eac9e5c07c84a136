"""The last layer's FFN, computed only at the positions that are read.

A loss on the answer reads one or two positions of a row. Attention needs all positions of the
earlier layers, but nothing reads the last layer's FFN at the other positions. Leaving it out there
changes neither loss nor gradients, and saves almost all of one layer's experts.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def only_at(decoder: nn.Module, read: torch.Tensor) -> Iterator[None]:
    """Within this context, a forward pass of the decoder (a Llama's or Mixtral's `model`) is right
    at the positions that `read` (rows, length) bool marks; at the others its output is
    meaningless."""
    ffn = decoder.layers[-1].mlp

    def gather(module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        (hidden,) = inputs
        return (hidden[read][None],)

    def scatter(module, inputs, output: torch.Tensor) -> torch.Tensor:
        everywhere = output.new_zeros(*read.shape, output.shape[-1])
        return everywhere.masked_scatter(read[..., None], output)

    hooks = [ffn.register_forward_pre_hook(gather), ffn.register_forward_hook(scatter)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
