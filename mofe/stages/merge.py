"""Merging: mergekit-moe's Mixtral of a base model and its experts (section 3.1).

mergekit makes the configuration and the router. All other weights are those of the dense models and
stay in their files (mofe/models/manifest.py).
"""

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from mergekit.common import dtype_from_name
from mergekit.moe import ALL_OUTPUT_ARCHITECTURES
from mergekit.moe.config import MoEMergeConfig
from mergekit.moe.mixtral import MixtralMoE
from mergekit.options import MergeOptions
from mergekit.scripts.moe import build
from safetensors.torch import load_file

from mofe.files import write_atomic
from mofe.models import load, manifest, preflight, store
from mofe.models.files import link_into, weight_files


class Router(MixtralMoE):
    """mergekit's Mixtral without the weights that its sources have: configuration and router."""

    def name(self) -> str:
        return "Router"

    def write_model(
        self, out_path, config, merge_options, router_weights, shared_router_weights=None
    ):
        """router_weights: one tensor (experts, hidden) per layer. One expert's row, which nothing
        reads, is stored as zeros."""
        base, dtype = config.base_model.config(), dtype_from_name(config.dtype)
        mixtral = self._generate_config(base, len(config.experts), None, config.experts_per_token)
        if base.model_type == "mistral":  # mergekit drops it; a Llama has none
            mixtral.sliding_window = base.sliding_window
        mixtral.torch_dtype = dtype
        mixtral.save_pretrained(out_path)
        router = {
            self._router_weight_name(layer): (
                weight.to(dtype).contiguous()
                if len(weight) > 1
                else torch.zeros(weight.shape, dtype=dtype)
            )
            for layer, weight in enumerate(router_weights)
        }
        store.save(router, Path(out_path) / manifest.ROUTER)


ALL_OUTPUT_ARCHITECTURES.append(Router())  # `build` looks architectures up there


def merge(params: Mapping[str, Any], out: Path) -> str:
    """Store a Mixtral in `out`: its configuration, router, manifest, and the base's tokenizer.

    params: Plan.params.merge. Attention, embeddings and norms are those of the base, and each
    slot's FFN is that of its expert, rounded to the merge's dtype. The router starts from the
    hidden states of the slots' prompts ("hidden" gates, section 3.2). A mixture of one expert has
    the gate_mode "none": a router of zeros, which nothing reads. Returns a line for the user.

    Raises IncompatibleModels where the models do not fit together, before anything is merged.
    Raises ValueError where two slots get the same row of the router, or a slot gets an empty one:
    mergekit only warns, and the router could not distinguish those experts.
    """
    preflight.check(
        [(params["base"], slot["model"]) for slot in params["slots"]],
        params.get("names", {}),
    )
    if params["gate_mode"] == "random":
        torch.manual_seed(params["seed"])
    # Identical experts are intended: the model is trained after merging.
    options = MergeOptions(copy_tokenizer=False)
    with TemporaryDirectory() as view:
        _link_base(Path(params["base"]), Path(view))
        config = mergekit_config({**params, "base": view})
        build(config, str(out), options, device="cpu", allow_all_same=True)
    if params["gate_mode"] not in ("random", "none"):
        _refuse_equal_rows(out)
    # mergekit would save the tokenizer with the padding that it used, on the left.
    load.save_tokenizer(params["base"], out)
    if (settings := Path(params["base"]) / load.GENERATION).is_file():
        write_atomic(out / load.GENERATION, settings.read_bytes())
    manifest.write(params, out)
    base = params.get("names", {}).get(params["base"], Path(params["base"]).name)
    return f"{len(params['slots'])} experts on {base}"


def _link_base(base: Path, view: Path) -> None:
    """Give mergekit the base without weights that are not the checkpoint's: it would read the index
    before model.safetensors."""
    files = {file.name: file for file in base.iterdir() if file.is_file()}
    link_into(view, files, [file.name for file in weight_files(base, str(base))])


def mergekit_config(params: Mapping[str, Any], architecture: str = "router") -> MoEMergeConfig:
    """mergekit's configuration of a merge. architecture: "mixtral" gives the complete
    checkpoint."""
    return MoEMergeConfig.model_validate(
        {
            "base_model": params["base"],
            # mergekit must make a router for one expert too, from no prompts; it is not kept
            "gate_mode": "random" if params["gate_mode"] == "none" else params["gate_mode"],
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


def _refuse_equal_rows(out: Path) -> None:
    """Raises ValueError where a layer's router has equal or empty rows; each row is one
    expert's."""
    for name, weight in load_file(out / manifest.ROUTER).items():
        rows = weight.float()
        if len(rows.unique(dim=0)) < len(rows) or not rows.any(dim=1).all():
            raise ValueError(
                f"models.*.gates: {out} has equal or empty gates in {name}; give each slot "
                "prompts that end in words of its own"
            )
