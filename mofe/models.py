"""Models on disk: dense checkpoints, merges, and trained deltas laid over a merge."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    MixtralForCausalLM,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from mofe import experts, files, manifest, methods, mirror, norms, parallel
from mofe.plan import MODEL_FILES

MATRIX = 1_000_000  # elements of a matrix that is large on disk

logging.disable_progress_bar()


def device() -> torch.device:
    """This process's GPU if there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", parallel.local_rank())
    return torch.device("cpu")


def place(model: nn.Module, sharded: bool = False) -> nn.Module:
    """The model on its device. On a GPU what is frozen becomes bfloat16: only what is trained
    needs a float32 master, without which a small learning rate is rounded away. 4-bit weights are
    then expanded to bfloat16, and norms are fused. What will be sharded stays where it is: it would
    not fit."""
    if device().type == "cuda":
        for parameter in methods.frozen(model).values():
            if parameter.dtype == torch.float32:
                parameter.data = parameter.data.bfloat16()
        experts.compute_4bit_in(model, torch.bfloat16)
        norms.fuse(model)
    return model if sharded else model.to(device())


def fetch(params: Mapping[str, Any], out: Path) -> str:
    """Link a hub model's weights (safetensors only), configuration and tokenizer into `out`.

    params: Plan.model_params. Raises FileNotFoundError where the mirror lacks the model or its
    weights are not safetensors.
    """
    source = mirror.repository(params["mirror"], params["hub"], params["revision"])
    if not any(source.glob("*.safetensors")):
        raise FileNotFoundError(
            f"{source} has no weights as safetensors; convert them, or choose "
            "a revision that has them"
        )
    out.mkdir(parents=True, exist_ok=True)
    for pattern in MODEL_FILES:
        for file in source.glob(pattern):
            (out / file.name).symlink_to(file.resolve())
    return f"{params['hub']} from {params['mirror']}"


def load(folder: str | Path) -> nn.Module:
    """A checkpoint, or the Mixtral that a merge stands for, in float32, on the CPU. Raises
    ValueError where weights are missing, which transformers would fill at random, and where a
    merge's sources are no longer those that were merged."""
    options = {"dtype": torch.float32, "output_loading_info": True}
    if manifest.exists(folder):
        config = AutoConfig.from_pretrained(folder)
        weights = manifest.weights(folder)  # which become the model's parameters, uncopied
        model, info = MixtralForCausalLM.from_pretrained(
            None, config=config, state_dict=weights, **options
        )
    else:
        model, info = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, **options)
    for kind in ("missing_keys", "mismatched_keys"):
        if info[kind]:
            raise ValueError(f"{folder}: the checkpoint's {kind} are {sorted(info[kind])[:5]}")
    if hasattr(model.config, "num_local_experts"):
        model.set_experts_implementation(experts.GROUPED)
    return model


def tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer, padding on the right; its padding token is never seen by a
    loss, so where there is none the end of text serves.

    A tokenizer.json is taken as it is, as transformers did when the paper was written: transformers 5
    would build a tokenizer of the class that tokenizer_config.json names, and its LlamaTokenizer
    treats leading and double spaces otherwise.
    """
    whole = (Path(folder) / "tokenizer.json").exists()
    kind = PreTrainedTokenizerFast if whole else AutoTokenizer
    it = kind.from_pretrained(folder, padding_side="right")
    if it.pad_token is None:
        it.pad_token = it.eos_token
    return it


def load_variant(
    merge: str | Path, chain: Sequence[Mapping[str, Any]], deltas: Sequence[str | Path]
) -> nn.Module:
    """A merge with the deltas of its stages laid over it, first stage first.

    chain: the stages' methods (Plan.chain_params), one a delta. The last stage stays in its
    method's form, so that it is evaluated exactly as it was trained.
    """
    model = load(merge)
    for number, (settings, delta) in enumerate(zip(chain, deltas, strict=True)):
        if number:
            model = methods.fold(model)
        model = methods.apply(model, settings)
        lay(model, delta)
    return model


def lay(model: nn.Module, delta: str | Path) -> None:
    """Copy a delta's tensors over the model's trained parameters, which must be the same ones.

    Raises ValueError naming the first difference.
    """
    stored, wanted = load_file(delta), methods.trained(model)
    if different := stored.keys() ^ wanted.keys():
        raise ValueError(f"{delta}: differs from the model's trained part in {min(different)}")
    for name, tensor in stored.items():
        if tensor.shape != wanted[name].shape:
            raise ValueError(
                f"{delta}: {name} is {tuple(tensor.shape)}, the model's {tuple(wanted[name].shape)}"
            )
        wanted[name].data.copy_(tensor)


def store_delta(model: nn.Module, file: Path) -> None:
    """Write what was trained, as safetensors: float32, on GPUs the large matrices bfloat16. Called
    by all processes, which put their shards together; the first one writes."""
    tensors = gathered(model, _stored)
    if parallel.rank() == 0:
        with files.atomic(file) as temporary:
            save_file(tensors, temporary)


def _stored(parameter: torch.Tensor) -> torch.dtype:
    # Norms, routers and adapters are next to nothing on a disk, and what training did to a weight
    # near 1 is less than bfloat16 can tell.
    large = device().type == "cuda" and parameter.numel() >= MATRIX
    return torch.bfloat16 if large else torch.float32


def gathered(
    model: nn.Module, dtype: Callable[[torch.Tensor], torch.dtype]
) -> dict[str, torch.Tensor]:
    """The trained parameters by name, whole, each as its `dtype` on the CPU; in all processes but
    the first, which do not need them, nothing."""
    tensors = {}
    for name, parameter in methods.trained(model).items():
        tensor = parallel.whole(parameter.detach())
        if parallel.rank() == 0:
            tensors[name] = tensor.to("cpu", dtype(tensor)).contiguous()
    return tensors


def unsharded(model: nn.Module, make: Callable[[], nn.Module]) -> nn.Module:
    """A sharded model's trained parameters in a whole model, which `make` gives (the one that
    training began with). In all processes but the first the model as it is."""
    tensors = gathered(model, lambda _: torch.float32)
    if parallel.rank() != 0:
        return model
    fresh = make()
    for name, parameter in methods.trained(fresh).items():
        parameter.data.copy_(tensors[name])
    return fresh
