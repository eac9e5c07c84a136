"""Merging: mergekit-moe makes a Mixtral of a base model and its experts (section 3.1)."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mergekit.moe.config import MoEMergeConfig
from mergekit.options import MergeOptions
from mergekit.scripts.moe import build
from safetensors import safe_open

from mofe import preflight

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
TOKENIZER_FILES += ("special_tokens_map.json", "added_tokens.json")


def merge(params: Mapping[str, Any], out: Path) -> str:
    """Build a Mixtral checkpoint in `out`.

    params: Plan.merge_params. Attention, embeddings and norms are the base's, each slot's FFN its
    expert's, bit by bit; the router starts from the hidden states of the slots' prompts ("hidden"
    gates, section 3.2). Returns a line for the user. Raises IncompatibleModels before anything is
    merged where the models do not fit together, and ValueError where two slots get the same gate,
    or a slot none: mergekit only warns, and the router could not tell those experts apart.
    """
    preflight.check(
        [(params["base"], slot["model"]) for slot in params["slots"]],
        params.get("names", {}),
        weights=True,
    )
    config = MoEMergeConfig.model_validate(
        {
            "base_model": params["base"],
            "gate_mode": params["gate_mode"],
            "dtype": params["dtype"],
            "experts_per_token": params["experts_per_token"],
            "architecture": "mixtral",
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
    torch.manual_seed(0)  # for `random` gates
    # Identical experts are meant: the model is trained after merging.
    build(config, str(out), MergeOptions(copy_tokenizer=False), device="cpu", allow_all_same=True)
    if params["gate_mode"] != "random":
        _refuse_equal_gates(out)
    # mergekit would save the tokenizer as it used it, padding on the left.
    for name in TOKENIZER_FILES:
        if (file := Path(params["base"]) / name).exists():
            shutil.copy(file, out / name)
    return f"{len(params['slots'])} experts on {Path(params['base']).name}"


def _refuse_equal_gates(out: Path) -> None:
    for file in sorted(out.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no dictionary
                if not name.endswith(".gate.weight"):
                    continue
                gates = tensors.get_tensor(name).float()
                if len(gates.unique(dim=0)) < len(gates) or not gates.any(dim=1).all():
                    raise ValueError(
                        f"models.*.gates: {out.name} has equal or empty gates in {name}; give each "
                        "slot prompts that end in words of its own"
                    )
