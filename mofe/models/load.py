"""Models read from disk: dense checkpoints, merges, and merges with their trained parameters."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedTokenizerBase,
)
from transformers.conversion_mapping import get_checkpoint_conversion_mapping
from transformers.utils import logging

from mofe import checksums
from mofe.layers import domains, experts, parameters
from mofe.models import manifest, methods, tokenizers
from mofe.study.gates import GATES
from mofe.study.methods import Method, Untuned

logging.disable_progress_bar()

GENERATION = "generation_config.json"  # how a model's texts end, among other things


def know_names() -> None:
    """Have transformers compile its patterns for the names of weights. Otherwise it does so when it
    loads a process's first model, which takes longer than loading a small one."""
    get_checkpoint_conversion_mapping(MixtralConfig.model_type)


def checkpoint(folder: str | Path) -> nn.Module:
    """A dense checkpoint, or the Mixtral that a merge's folder describes, in float32 on the CPU.

    Raises ValueError where weights are missing, which transformers would draw at random, and where
    a merge's sources have changed since they were merged.
    """
    with checksums.settled():
        return _checkpoint(folder)


def _checkpoint(folder: str | Path) -> nn.Module:
    # what a config.json may ask to be returned, and no caller here expects
    config = AutoConfig.from_pretrained(
        folder, return_dict=True, output_hidden_states=False, output_attentions=False
    )
    # masks are made for this attention, whatever a config.json asks for
    options = {"dtype": torch.float32, "attn_implementation": "sdpa", "output_loading_info": True}
    if manifest.exists(folder):
        weights = manifest.weights(folder)  # they become the model's parameters without a copy
        model, info = MixtralForCausalLM.from_pretrained(
            None, config=config, state_dict=weights, **options
        )
        if (Path(folder) / GENERATION).is_file():
            model.generation_config = GenerationConfig.from_pretrained(folder)
    else:
        model, info = AutoModelForCausalLM.from_pretrained(
            folder, config=config, use_safetensors=True, **options
        )
    for kind in ("missing_keys", "mismatched_keys"):
        if info[kind]:
            raise ValueError(f"{folder}: the checkpoint's {kind} are {sorted(info[kind])[:5]}")
    if hasattr(model.config, "num_local_experts"):
        model.set_experts_implementation(experts.GROUPED)
    if manifest.exists(folder):
        merged = manifest.read(folder)
        if GATES[merged.gate_mode].routed:
            models = list(dict.fromkeys(merged.slots))
            domains.route(model, [models.index(slot) for slot in merged.slots])
    return model


def tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer (mofe.models.tokenizers)."""
    return tokenizers.read(folder)


def save_tokenizer(source: str | Path, out: Path) -> None:
    """Write the tokenizer of one checkpoint into the folder of another (mofe.models.tokenizers)."""
    tokenizers.save(source, out)


def variant(merge: str | Path, chain: Sequence[Method], trained: Sequence[str | Path]) -> nn.Module:
    """A merge with the parameters that its stages trained, first stage first.

    chain: the stages' methods, one per file of `trained`. The last stage keeps the form that its
    method gave the model, so that it is evaluated exactly as it was trained.
    """
    with checksums.settled():
        model = _checkpoint(merge)
        if not chain:
            model = methods.apply(model, Untuned())
        for number, (method, file) in enumerate(zip(chain, trained, strict=True)):
            if number:
                model = methods.merge_and_unload(model)
            model = methods.apply(model, method)
            copy_trained(model, file)
    return model


def copy_trained(model: nn.Module, file: str | Path) -> None:
    """Copy a file's tensors into the model's trained parameters. Raises ValueError, naming the
    first difference, where the two have other names or shapes."""
    stored, wanted = load_file(file), parameters.trained(model)
    if different := stored.keys() ^ wanted.keys():
        raise ValueError(f"{file}: differs from the model's trained part in {min(different)}")
    for name, tensor in stored.items():
        if tensor.shape != wanted[name].shape:
            raise ValueError(
                f"{file}: {name} is {tuple(tensor.shape)}, the model's {tuple(wanted[name].shape)}"
            )
        wanted[name].data.copy_(tensor)
