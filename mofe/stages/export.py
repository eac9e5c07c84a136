"""A trained variant as a standard checkpoint that others can load."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mofe import records
from mofe.files import write_atomic
from mofe.layers.experts import AdaptedStack, SplitExperts
from mofe.layers.fp8 import Fp8Linear
from mofe.layers.nf4 import expanded
from mofe.models import load, manifest, methods, store
from mofe.stages.card import card
from mofe.study.methods import Method, parse

SHARD_SIZE = "5GB"


def export(
    *,
    merge: str,
    trained: Sequence[str],
    params: Mapping[str, Any],
    names: Mapping[str, Any],
    out: Path,
) -> str:
    """Write a variant as the checkpoint of a Mixtral or a dense model: sharded safetensors,
    configuration, tokenizer, card.

    merge, trained: as in evaluate_variant. params: Plan.params.export. names: of merge, stages and
    seed. Weights are stored in the merge's dtype. Returns a line for the user.
    """
    model = plain(merge, [parse(stage) for stage in params["chain"]], trained)
    total = sum(p.numel() for p in model.parameters())
    out.mkdir(parents=True, exist_ok=True)
    store.checkpoint(model.to(getattr(torch, params["dtype"])), out, SHARD_SIZE)
    load.save_tokenizer(merge, out)
    merged = manifest.read(merge) if manifest.exists(merge) else None
    write_atomic(out / "README.md", card(params, names, total, merged))
    return f"{total:,} parameters in {params['dtype']}"


def plain(merge: str, chain: Sequence[Method], trained: Sequence[str]) -> nn.Module:
    """The variant as a plain model, without adapters or split experts, in float32, on the CPU.

    If the last stage is quantised, its weights are expanded, which changes no value. Its trained
    parameters then replace or are merged into these. Under FP8 the plain model's products read
    their inputs as they are, where the variant's round them.
    """
    if not (chain and chain[-1].is_quantized):
        return methods.merge_and_unload(load.variant(merge, chain, trained))
    model = load.variant(merge, chain[:-1], trained[:-1])
    model = with_held_values(methods.merge_and_unload(model), chain[-1])
    model = methods.apply(model, chain[-1].unquantized())
    load.copy_trained(model, trained[-1])
    return methods.merge_and_unload(model)


def with_held_values(model: nn.Module, method: Method) -> nn.Module:
    """The model with its weights' values after the method has quantised them."""
    import bitsandbytes as bnb  # costs seconds to import, and only quantised models need it

    weights = dict(model.named_parameters())
    quantised = methods.apply(model, method)
    if hasattr(quantised, "get_base_model"):
        quantised = quantised.get_base_model()
    for name, module in quantised.named_modules():
        # peft wraps a targeted layer: "...q_proj.base_layer" is "...q_proj" in the plain model
        name = name.removesuffix(".base_layer")
        if isinstance(module, SplitExperts):
            for part in ("gate_up", "down"):
                stored = torch.cat([_plain_stack(stack, part) for stack in module.stacks])
                weights[f"{name}.{part}_proj"] = stored[module.expert_map]
        elif isinstance(module, bnb.nn.Linear4bit) and f"{name}.weight" in weights:
            weights[f"{name}.weight"] = expanded(module)
        elif isinstance(module, Fp8Linear):
            weights[f"{name}.weight"] = module.matrices.weight[0]
    return _filled(quantised.config, weights)


def _plain_stack(stack: nn.Module, part: str) -> torch.Tensor:
    """A stack's matrices of one part (gate_up or down), (experts, out, in)."""
    if isinstance(stack, AdaptedStack):  # the weights below the adapters, which come later
        stack = stack.stack
    return getattr(stack, part).detach()


def _filled(config, weights: Mapping[str, torch.Tensor]) -> nn.Module:
    """A Mixtral of this configuration with these weights. Raises ValueError where weights are
    missing or unknown."""
    model = load.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    missing, unexpected = model.load_state_dict(dict(weights), strict=False)
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    if set(missing) - tied or unexpected:
        raise ValueError(f"export: weights missing {missing[:3]} or unknown {unexpected[:3]}")
    return model


# --------------------------------------------------------------------------------------- push


def push(*, model: str, repo: str, out: Path) -> str:
    """Upload an exported model to a private repository of the user, with the user's token.

    Raises PermissionError where there is no token.
    """
    from huggingface_hub import HfApi, get_token

    if get_token() is None:
        raise PermissionError(
            f"export.push: no token to push {repo} with; log in with `hf auth login` or set "
            "HF_TOKEN"
        )
    api = HfApi()
    api.create_repo(repo, private=True, exist_ok=True)
    commit = api.upload_folder(repo_id=repo, folder_path=model, commit_message="Exported by mofe")
    records.write(out, records.PushRecord(repo=repo, commit=commit.oid))
    return f"{repo} at {commit.oid}"
