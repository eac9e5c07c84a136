"""Merging: mergekit-moe's Mixtral of a base model and its experts (section 3.1).

mergekit decides what the Mixtral is, its configuration and its router; all its other weights are
the dense models' own and stay where they are (mofe/models/manifest.py).
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mergekit.common import dtype_from_name
from mergekit.moe import ALL_OUTPUT_ARCHITECTURES
from mergekit.moe.config import MoEMergeConfig
from mergekit.moe.mixtral import MixtralMoE
from mergekit.options import MergeOptions
from mergekit.scripts.moe import build
from safetensors.torch import load_file, save_file

from mofe.models import manifest, preflight
from mofe.models.files import TOKENIZER_FILES


class Router(MixtralMoE):
    """mergekit's Mixtral without the weights that its sources hold: configuration and router."""

    def name(self) -> str:
        return "Router"

    def write_model(
        self, out_path, config, merge_options, router_weights, shared_router_weights=None
    ):
        """router_weights: (experts, hidden) for each layer."""
        base, dtype = config.base_model.config(), dtype_from_name(config.dtype)
        mixtral = self._generate_config(base, len(config.experts), None, config.experts_per_token)
        mixtral.torch_dtype = dtype
        mixtral.save_pretrained(out_path)
        gates = {
            self._router_weight_name(layer): gate.to(dtype).contiguous()
            for layer, gate in enumerate(router_weights)
        }
        save_file(gates, Path(out_path) / manifest.ROUTER, {"format": "pt"})


ALL_OUTPUT_ARCHITECTURES.append(Router())  # `build` looks architectures up there


def merge(params: Mapping[str, Any], out: Path) -> str:
    """Store a Mixtral in `out`: its configuration, router, manifest, and the base's tokenizer.

    params: Plan.params.merge. Attention, embeddings and norms are the base's, each slot's FFN its
    expert's, as the merge's dtype rounds them; the router starts from the hidden states of the
    slots' prompts ("hidden" gates, section 3.2). Returns a line for the user. Raises
    IncompatibleModels before anything is merged where the models do not fit together, and
    ValueError where two slots get the same gate, or a slot none: mergekit only warns, and the
    router could not tell those experts apart.
    """
    preflight.check(
        [(params["base"], slot["model"]) for slot in params["slots"]],
        params.get("names", {}),
        weights=True,
    )
    if params["gate_mode"] == "random":
        torch.manual_seed(params["seed"])
    # Identical experts are meant: the model is trained after merging.
    options = MergeOptions(copy_tokenizer=False)
    build(mergekit_config(params), str(out), options, device="cpu", allow_all_same=True)
    if params["gate_mode"] != "random":
        _refuse_equal_gates(out)
    # mergekit would save the tokenizer as it used it, padding on the left.
    for name in TOKENIZER_FILES:
        if (file := Path(params["base"]) / name).exists():
            shutil.copy(file, out / name)
    manifest.write(params, out)
    return f"{len(params['slots'])} experts on {Path(params['base']).name}"


def mergekit_config(params: Mapping[str, Any], architecture: str = "router") -> MoEMergeConfig:
    """What mergekit is asked for. architecture: "mixtral" stands for the whole checkpoint."""
    return MoEMergeConfig.model_validate(
        {
            "base_model": params["base"],
            "gate_mode": params["gate_mode"],
            "dtype": params["dtype"],
            "experts_per_token": params["experts_per_token"],
            "architecture": architecture,
            "experts": [
                {
                    "source_model": slot["model"],
                    "positive_prompts": slot["positive"],
                    "negative_prompts": slot["negative"],
                }
                for slot in params["slots"]
            ],
        }
    )


def _refuse_equal_gates(out: Path) -> None:
    for name, gates in load_file(out / manifest.ROUTER).items():
        gates = gates.float()
        if len(gates.unique(dim=0)) < len(gates) or not gates.any(dim=1).all():
            raise ValueError(
                f"models.*.gates: {out.name} has equal or empty gates in {name}; give each slot "
                "prompts that end in words of its own"
            )
