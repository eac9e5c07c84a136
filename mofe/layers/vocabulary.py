"""Gradients of embeddings and output layer, accumulated in place.

A micro-batch's gradient of the embeddings has only the rows of its tokens, and that of the output
layer is one product with a few rows. For each, autograd makes a matrix of the vocabulary's size,
mostly zeros, and adds it to the gradient: on a CPU this takes a tenth of a training step.
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
    """Within this context, backward adds directly to `grad` of the embeddings' and the output
    layer's weights, if these are trained. The gradients are autograd's up to rounding.

    Only for one process on a CPU: several processes wait for autograd's gradients, and a GPU would
    add up tokens in an order that changes. model: a causal language model of transformers.
    """
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    forwards = {embeddings: partial(_embed, embeddings), head: partial(_project, head)}
    replaced = [module for module in forwards if module.weight.requires_grad]
    for module in replaced:
        module.forward = forwards[module]
    try:
        yield
    finally:
        for module in replaced:
            del module.forward


def _embed(module: nn.Embedding, ids: torch.Tensor) -> torch.Tensor:
    return EmbeddingWithGradAccumulation.apply(ids, module.weight, module.padding_idx)


def _project(module: nn.Linear, hidden: torch.Tensor) -> torch.Tensor:
    return LinearWithGradAccumulation.apply(hidden, module.weight)


class EmbeddingWithGradAccumulation(torch.autograd.Function):
    """ids int64 of any shape, weight (vocabulary, hidden) -> the ids' rows (*ids, hidden)."""

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
        _grad(ctx.weight).index_add_(0, ids.flatten(), dout.flatten(0, -2))
        return None, None, None


class LinearWithGradAccumulation(torch.autograd.Function):
    """hidden (rows, hidden), weight (vocabulary, hidden) -> logits (rows, vocabulary)."""

    @staticmethod
    def forward(ctx, hidden: torch.Tensor, weight: nn.Parameter):
        ctx.save_for_backward(hidden)
        ctx.weight = weight
        return F.linear(hidden, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, dout: torch.Tensor):
        (hidden,) = ctx.saved_tensors
        _grad(ctx.weight).addmm_(dout.mT, hidden)
        return dout @ ctx.weight, None


def _grad(weight: nn.Parameter) -> torch.Tensor:
    if weight.grad is None:
        weight.grad = torch.zeros_like(weight)
    return weight.grad
