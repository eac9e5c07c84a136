"""FLOPs of training and evaluation: those of matrix products, two per multiplication with its
addition.

Norms, softmax, AdamW and dequantising NF4 are left out.
"""

from mofe.study.methods import Method
from mofe.study.shapes import ATTENTION, ROUTER, Shape


def forward(shape: Shape, context: float, labelled: float) -> float:
    """FLOPs per token of a forward pass.

    context: the length of a row in tokens; attention is causal, so a token attends to half of them
    on average. labelled: the share of tokens whose logits are computed
    (mofe.training.loop.AnswerLoss).
    """
    return sum(_products(shape, context, labelled).values())


def step(shape: Shape, method: Method, context: float, labelled: float) -> float:
    """FLOPs per token of a training by a method: of a step's forward and backward, on average over
    all steps where the method trains more later."""
    phases = method.phases(shape.number_of_ffns)
    return sum(share * _step(shape, phase, context, labelled) for share, phase in phases)


def _step(shape: Shape, method: Method, context: float, labelled: float) -> float:
    """FLOPs per token of a training step: forward and backward.

    Backward computes every product once more for the gradient of its input, and again for the
    gradient of its weight if that is trained. So a frozen expert costs two thirds of a trained one.
    """
    trained = {
        "attention": float(ATTENTION in method.parts),
        "scores": 1.0,  # queries times keys: both are activations and need a gradient
        "router": float(ROUTER in method.parts),
        "ffn": method.trained_ffns(shape) / shape.number_of_ffns,
        "lm_head": float(method.trains_head(shape)),
    }
    products = _products(shape, context, labelled)
    flops = sum(amount * (2 + trained[part]) for part, amount in products.items())
    added = shape.num_hidden_layers * method.multiplied(shape)
    return flops + 3 * 2 * (added + labelled * method.added_outside(shape))


def _products(shape: Shape, context: float, labelled: float) -> dict[str, float]:
    """FLOPs per token of a forward pass, by part of the model."""
    layers = shape.num_hidden_layers
    return {
        "attention": 2 * layers * 2 * shape.hidden_size * (shape.query_size + shape.key_size),
        "scores": 2 * layers * 2 * shape.query_size * context / 2,
        # in the last layer at the labelled tokens only (mofe/layers/positions.py)
        "router": 2 * (layers - 1 + labelled) * shape.router,
        "ffn": 2 * (layers - 1 + labelled) * shape.active * shape.ffn,
        "lm_head": 2 * labelled * shape.vocab_size * shape.hidden_size,
    }
