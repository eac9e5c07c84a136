"""Gradients of the vocabulary's two matrices, added up where they lie.

Of the embeddings a micro-batch touches the rows of its tokens, of the output layer's gradient it needs
one product with a few rows. Autograd makes a matrix of the vocabulary's size for each, with zeros in
most of it, and adds that to the gradient: on a CPU a tenth of a training step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable


@contextmanager
def summed_in_place(model: nn.Module) -> Iterator[None]:
    """Within it backward adds to `grad` of the embeddings' and output layer's weights, if these are
    trained, directly. For one process on a CPU: others wait for autograd's gradients, and a GPU would
    add up tokens' in an order of its own.

    model: a causal language model of transformers. Equal to autograd's but for rounding.
    """
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    replaced = {embeddings: partial(_embed, embeddings), head: partial(_project, head)}
    replaced = {module: by for module, by in replaced.items() if module.weight.requires_grad}
    for module, by in replaced.items():
        module.forward = by
    try:
        yield
    finally:
        for module in replaced:
            del module.forward


def _embed(module: nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
    return Lookup.apply(ids, module.weight, module.padding_idx)


def _project(module: nn.Linear, hidden: torch.Tensor) -> torch.Tensor:
    return Projection.apply(hidden, module.weight)


class Lookup(torch.autograd.Function):
    """Rows of an embedding: ids int64 of any shape, weight (vocabulary, hidden) -> (*ids, hidden)."""

    @staticmethod
    def forward(ctx, ids: torch.Tensor, weight: nn.Parameter, padding: int | None):
        ctx.save_for_backward(ids)
        ctx.weight, ctx.padding = weight, padding
        return F.embedding(ids, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, dout: torch.Tensor):
        (ids,) = ctx.saved_tensors
        if ctx.padding is not None:  # nn.Embedding gives this token no gradient
            dout = dout.masked_fill((ids == ctx.padding)[..., None], 0)
        _gradient(ctx.weight).index_add_(0, ids.flatten(), dout.flatten(0, -2))
        return None, None, None


class Projection(torch.autograd.Function):
    """hidden (rows, hidden) times a weight (vocabulary, hidden) -> logits (rows, vocabulary)."""

    @staticmethod
    def forward(ctx, hidden: torch.Tensor, weight: nn.Parameter):
        ctx.save_for_backward(hidden)
        ctx.weight = weight
        return F.linear(hidden, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, dout: torch.Tensor):
        (hidden,) = ctx.saved_tensors
        _gradient(ctx.weight).addmm_(dout.mT, hidden)
        return dout @ ctx.weight, None


def _gradient(weight: nn.Parameter) -> torch.Tensor:
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad
