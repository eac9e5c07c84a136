"""The last layer's FFN at the positions that are read, and nowhere else.

A loss on the answer reads one or two positions of a row. Attention needs all positions of the layers
before, but what the last layer's FFN makes of the others nobody reads: leaving it out changes neither
loss nor gradients, and saves a layer's experts but for a few tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def only_at(decoder: nn.Module, read: torch.Tensor) -> Iterator[None]:
    """Within it a forward pass of the decoder (a Llama's or Mixtral's `model`) is right at the
    positions that `read` (rows, length) bool marks; at the others its result means nothing."""
    ffn = decoder.layers[-1].mlp

    def select(module, inputs: tuple[torch.Tensor]) -> tuple[torch.Tensor]:
        (hidden,) = inputs
        return (hidden[read][None],)

    def lay(module, inputs, result: torch.Tensor) -> torch.Tensor:
        everywhere = result.new_zeros(*read.shape, result.shape[-1])
        return everywhere.masked_scatter(read[..., None], result)

    hooks = [ffn.register_forward_pre_hook(select), ffn.register_forward_hook(lay)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
