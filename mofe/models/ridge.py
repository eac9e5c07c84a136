"""A router's first weights in closed form: ridge regression of domains on hidden states, as in
Dynamic Upcycling MoE (arXiv 2603.29765). No gradient is computed.

Every token of an expert's training prompts is a sample. Its features are the base's hidden state
at the input of a layer's FFN, behind `post_attention_layernorm`, which is what the router of that
layer gets; its label is the expert. With samples X (N, D), one-hot labels Y (N, M) and a penalty c,
a layer's gates are the rows of

    W (M, D) = [(X'X + c I)^-1 X'Y]'

in float64. Samples are added up row by row, so that memory does not grow with their number.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from mofe.progress import Progress


def prompts(pairs: Sequence[tuple[str, str]], rows: int, seed: int) -> list[str]:
    """The prompts of `rows` of these (prompt, answer) pairs, drawn by the seed; of all of them
    where there are fewer. Raw text, which has no prompt, is taken itself."""
    drawn = np.random.default_rng(seed).permutation(len(pairs))[:rows]
    return [pairs[i][0] or pairs[i][1] for i in drawn]


@torch.no_grad()
def gates(
    base: nn.Module, ids: Sequence[Sequence[Sequence[int]]], penalty: float
) -> list[torch.Tensor]:
    """One tensor (models, hidden) per layer of the base, float64.

    base: a dense model in float32. ids: by expert model, the token ids of its prompts; what is
    longer than the base's positions is cut.
    """
    layers, hidden = base.model.layers, base.config.hidden_size
    products = torch.zeros(len(layers), hidden, hidden, dtype=torch.float64)
    labelled = torch.zeros(len(layers), hidden, len(ids), dtype=torch.float64)
    states: dict[int, torch.Tensor] = {}  # of the row that was read last, by layer: (1, T, D)
    hooks = [
        layer.mlp.register_forward_pre_hook(lambda _, args, n=n: states.update({n: args[0]}))
        for n, layer in enumerate(layers)
    ]
    most = base.config.max_position_embeddings
    with Progress(total=sum(map(len, ids)), unit="prompts", leave=False) as told:
        for model, rows in enumerate(ids):
            for row in rows:
                base.model(torch.tensor([row[:most]]))
                for layer, state in states.items():
                    x = state[0].double()
                    products[layer].addmm_(x.T, x)
                    labelled[layer, :, model] += x.sum(0)
                told.update(1)
    for hook in hooks:
        hook.remove()
    ridged = products + penalty * torch.eye(hidden, dtype=torch.float64)
    return list(torch.linalg.solve(ridged, labelled).mT)
