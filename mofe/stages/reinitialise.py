"""A dense model whose FFNs know nothing: the control for knowledge in the experts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mofe.models import load, store


def reinitialise(*, origin: str, params: Mapping[str, Any], seed: int, out: Path) -> str:
    """Store a dense model with the matrices of every FFN drawn anew, and all else as in its parent.

    origin: the parent's folder. params: Plan.params.model. As transformers begins a Llama, each
    matrix is normal with mean 0 and the standard deviation `initializer_range` of the parent's
    config.json. Layer by layer, `gate_proj`, `up_proj` and `down_proj` are drawn in float32 on the
    CPU, by one generator with the seed; a study's second such model has another seed from it, and
    so on, so that no two models have the same matrices. Returns a line for the user.
    """
    draw = params.get("draw", 0)
    own = np.random.SeedSequence([seed, draw]).generate_state(1)[0] if draw else seed
    model, generator = load.checkpoint(origin), torch.Generator().manual_seed(int(own))
    spread, drawn = model.config.initializer_range, 0
    for layer in model.model.layers:
        for part in (layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj):
            part.weight.data.normal_(0.0, spread, generator=generator)
            drawn += part.weight.numel()
    out.mkdir(parents=True, exist_ok=True)
    store.checkpoint(model.to(getattr(torch, params["dtype"])), out)
    load.save_tokenizer(origin, out)
    return f"{drawn:,} parameters drawn with a standard deviation of {spread:g}"
