"""Merging: mergekit-moe's Mixtral of a base model and its experts (section 3.1).

mergekit makes the configuration and the router, whose weights are replaced where mergekit has no
such gates (mofe/study/gates.py). All other weights are those of the dense models and stay in their
files (mofe/models/manifest.py).
"""

from collections.abc import Mapping, Sequence
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
from mofe.models import load, manifest, preflight, ridge, store
from mofe.models.files import link_into, weight_files
from mofe.study.gates import GATES, NONE
from mofe.training import encoding, tokens


class Router(MixtralMoE):
    """mergekit's Mixtral without the weights that its sources have: configuration and router."""

    def name(self) -> str:
        return "Router"

    def write_model(
        self, out_path, config, merge_options, router_weights, shared_router_weights=None
    ):
        """router_weights: one tensor (experts, hidden) per layer."""
        base, dtype = config.base_model.config(), dtype_from_name(config.dtype)
        mixtral = self._generate_config(base, len(config.experts), None, config.experts_per_token)
        if base.model_type == "mistral":  # mergekit drops it; a Llama has none
            mixtral.sliding_window = base.sliding_window
        mixtral.torch_dtype = dtype
        mixtral.save_pretrained(out_path)
        self.write_router(Path(out_path), router_weights, dtype)

    def write_router(
        self, out: Path, router_weights: Sequence[torch.Tensor], dtype: torch.dtype
    ) -> None:
        """Write the router alone."""
        router = {
            self._router_weight_name(layer): weight.to(dtype).contiguous()
            for layer, weight in enumerate(router_weights)
        }
        store.save(router, out / manifest.ROUTER)


ALL_OUTPUT_ARCHITECTURES.append(Router())  # `build` looks architectures up there


def merge(params: Mapping[str, Any], out: Path) -> str:
    """Store a Mixtral in `out`: its configuration, router, manifest, and the base's tokenizer.

    params: Plan.params.merge. Attention, embeddings and norms are those of the base, and each
    slot's FFN is that of its expert, rounded to the merge's dtype. What the router starts from, its
    gate_mode says (mofe.study.gates): "hidden" gates are the hidden states of the slots' prompts
    (section 3.2), as are "shuffled" ones, whose prompts come in another order. A mixture of one
    expert has the gate_mode "none": a router of zeros, which nothing reads. Returns a line for the
    user.

    Raises IncompatibleModels where the models do not fit together, before anything is merged.
    Raises ValueError where the router could not tell experts apart that it should (_refuse_equal):
    mergekit only warns.
    """
    preflight.check(
        [(params["base"], slot["model"]) for slot in params["slots"]],
        params.get("names", {}),
    )
    gates = GATES[params["gate_mode"]]
    if params["gate_mode"] == "random":
        torch.manual_seed(params["seed"])
    # Identical experts are intended: the model is trained after merging.
    options = MergeOptions(copy_tokenizer=False)
    with TemporaryDirectory() as view:
        _link_base(Path(params["base"]), Path(view))
        config = mergekit_config({**params, "base": view})
        build(config, str(out), options, device="cpu", allow_all_same=True)
    slots = [slot["model"] for slot in params["slots"]]
    if gates.learned or gates.equal or params["gate_mode"] == NONE:
        rows = _fitted(params, slots) if gates.learned else _zeros(out)
        Router().write_router(out, rows, dtype_from_name(params["dtype"]))
    if gates.prompted:
        told = "models.*.gates: {} has equal or empty gates in {}; give each slot prompts that end "
        _refuse_equal(out, range(len(slots)), told + "in words of its own")
    if gates.learned:
        told = "gate_mode ridge: {} has equal or empty gates of different experts in {}; choose "
        _refuse_equal(out, slots, told + "another gate_mode for this mixture")
    # mergekit would save the tokenizer with the padding that it used, on the left.
    load.save_tokenizer(params["base"], out)
    if (settings := Path(params["base"]) / load.GENERATION).is_file():
        write_atomic(out / load.GENERATION, settings.read_bytes())
    manifest.write(params, out)
    base = params.get("names", {}).get(params["base"], Path(params["base"]).name)
    return f"{len(params['slots'])} experts on {base}"


def _zeros(out: Path) -> list[torch.Tensor]:
    """A router of zeros, as large as the stored one: one tensor (experts, hidden) per layer."""
    return [torch.zeros_like(weight) for weight in load_file(out / manifest.ROUTER).values()]


def _fitted(params: Mapping[str, Any], slots: Sequence[str]) -> list[torch.Tensor]:
    """Gates that tell the prompts of the experts' training rows apart: one tensor (experts, hidden)
    per layer. Slots of one model have the same gates."""
    how, folders = params["ridge"], {name: folder for folder, name in params["names"].items()}
    models = [folders[name] for name in how["data"]]
    prompts = [
        ridge.prompts(tokens.read(files), how["rows"], how["seed"])
        for files in how["data"].values()
    ]
    base, tokenizer = load.checkpoint(params["base"]), load.tokenizer(params["base"])
    ids = [encoding.texts(tokenizer, t, how.get("add_bos_token", True)) for t in prompts]
    fitted = ridge.gates(base, ids, how["penalty"])
    return [rows[[models.index(slot) for slot in slots]] for rows in fitted]


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
            # mergekit must make a router where another takes its place, too; it is not kept
            "gate_mode": GATES[params["gate_mode"]].mergekit,
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


def _refuse_equal(out: Path, owners: Sequence[object], told: str) -> None:
    """Raise ValueError where a layer's router has an empty row, or equal rows of different owners.

    owners: whose each row is, in the order of slots. told: the sentence, with places for the folder
    and the layer.
    """
    firsts = [list(owners).index(owner) for owner in dict.fromkeys(owners)]
    for name, weight in load_file(out / manifest.ROUTER).items():
        rows = weight.float()[firsts]
        if len(rows.unique(dim=0)) < len(rows) or not rows.any(dim=1).all():
            raise ValueError(told.format(out, name))
