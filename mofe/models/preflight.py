"""Whether dense models can be experts of one mixture, before anything is merged or trained.

mergekit-moe compares only `model_type`: it merges experts of other sizes, of another tokenizer or
with weights that are not numbers, and exits with 0. What matters here is what the merge uses.
Attention, embeddings and tokenizer come from the base, and an expert gives its FFNs. So these must
have the base's sizes and have been trained on its kind of hidden states. An expert may differ in
its dtype, its longest sequence, its generation settings, and in tokens that were added after the
base's.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
)
from transformers.activations import ACT2FN

from mofe import units
from mofe.files import write_atomic
from mofe.models import finite, tokenizers
from mofe.models.files import IncompatibleModels, weight_files
from mofe.study.shapes import WINDOWED

FAMILIES = ("llama", "mistral")  # mergekit can make a Mixtral of these
ROPE = ("default", "linear", "dynamic", "yarn", "llama3")  # whatever the other rows of a batch
FLOATS = ("F32", "F16", "BF16")
SHARED = (  # keys of config.json in which an expert must be like its base
    "model_type",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "rms_norm_eps",
    "rope_parameters",
    "sliding_window",
    "tie_word_embeddings",
    "vocab_size",
)
REMEDY = (
    "experts of one mixture must share the base's shape and tokens: take experts that were "
    "fine-tuned from this base, or the base that they were fine-tuned from"
)


class Checkpoint(NamedTuple):
    """What a dense model's folder says without reading the weights themselves.

    tensors: name -> (shape, dtype as safetensors spells it). vocabulary: token -> id.
    """

    name: str
    folder: Path
    config: PretrainedConfig
    tensors: dict[str, tuple[tuple[int, ...], str]]
    vocabulary: dict[str, int]


def check(pairs: Iterable[tuple[str, str]], names: Mapping[str, str]) -> str:
    """Refuse models that mergekit would merge into nonsense.

    pairs: (base's folder, expert's folder). names: folder -> the model's name in the study. Every
    file of weights is read once. Returns a line for the user. Raises IncompatibleModels with every
    fault of every pair.
    """
    pairs = [(Path(base), Path(expert)) for base, expert in pairs]
    folders = list(dict.fromkeys(folder for pair in pairs for folder in pair))
    named = {Path(folder): name for folder, name in names.items()}
    checkpoints: dict[Path, Checkpoint] = {}
    problems: list[str] = []
    for folder in folders:
        name = f"models.{named.get(folder, folder.name)}"
        try:
            checkpoints[folder] = model = _read(folder, name)
        except IncompatibleModels as error:
            problems += error.problems
            continue
        problems += [*_own_problems(model), *_not_finite(model)]
    for base, expert in dict.fromkeys(pairs):
        if base != expert and base in checkpoints and expert in checkpoints:
            problems += _pair(checkpoints[base], checkpoints[expert])
    if problems:
        raise IncompatibleModels(problems)
    return f"{len(folders)} models fit together" if len(folders) > 1 else "the model can be merged"


def record(params: Mapping[str, Any], out: Path) -> str:
    """Check a dense expert's mixtures (Plan.params.preflight), and write to `out` what was checked.
    Returns a line for the user; raises what `check` raises."""
    line = check(params["pairs"], params["names"])
    write_atomic(out, json.dumps(params, indent=2) + "\n")
    return line


# ------------------------------------------------------------------------------------- reading


def _read(folder: Path, name: str) -> Checkpoint:
    if not (file := folder / "config.json").is_file():
        raise IncompatibleModels([f"{name}: {folder} has no config.json; give a model's folder"])
    family = json.loads(file.read_text()).get("model_type")
    # before transformers reads the folder, so that no checkpoint's code is ever run
    if family not in FAMILIES:
        why = f"its model_type is {family!r}, and mergekit makes a Mixtral only of"
        remedy = "choose a model of one of these families"
        raise IncompatibleModels([f"{name}: {why} {' or '.join(FAMILIES)}; {remedy}"])
    try:
        config = AutoConfig.from_pretrained(folder)
    except Exception as error:  # transformers has no exception class for a wrong configuration
        why = " ".join(str(error.__cause__ or error).split())
        raise IncompatibleModels(
            [f"{name}: transformers cannot read {file} ({why}); correct it"]
        ) from error
    if getattr(config, "quantization_config", None):
        raise IncompatibleModels(
            [f"{name}: its weights are quantised; give the model that it was made from"]
        )
    return Checkpoint(name, folder, config, _headers(folder, name), _tokenizer(folder, name))


def _headers(folder: Path, name: str) -> dict[str, tuple[tuple[int, ...], str]]:
    found: dict[str, tuple[tuple[int, ...], str]] = {}
    for file in weight_files(folder, name):
        try:
            with safe_open(file, "pt") as tensors:
                for key in tensors.keys():  # noqa: SIM118 - it is no dictionary
                    header = tensors.get_slice(key)
                    found[key] = (tuple(header.get_shape()), header.get_dtype())
        except Exception as error:  # safetensors has no exception class for a damaged file
            raise IncompatibleModels(
                [f"{name}: {file} cannot be read ({error}); get the model again"]
            ) from error
    return found


def _tokenizer(folder: Path, name: str) -> dict[str, int]:
    if faults := tokenizers.faults(folder):
        raise IncompatibleModels([f"{name}: {fault}" for fault in faults])
    return tokenizers.read(folder).get_vocab()


# ---------------------------------------------------------------------------------- one model


def _own_problems(model: Checkpoint) -> list[str]:
    """What keeps this model from being merged with any other, one sentence per fault."""
    config = model.config
    if problems := [f"{model.name}: {told}" for told in _not_computed(config)]:
        return problems
    wanted = _expected(config)
    if config.tie_word_embeddings:
        wanted.pop("lm_head.weight", None)
    missing = sorted(wanted.keys() - model.tensors.keys())
    # older checkpoints store RoPE's frequencies, which follow from the configuration
    spare = sorted(
        key
        for key in model.tensors.keys() - wanted.keys()
        if not key.endswith("rotary_emb.inv_freq") and key != "lm_head.weight"
    )
    for text, keys in (("lacks", missing), ("has, but its configuration does not know,", spare)):
        if keys:
            problems.append(
                f"{model.name}: the checkpoint {text} {units.first(keys)}; give a whole "
                f"{config.model_type} checkpoint"
            )
    for key in sorted(wanted.keys() & model.tensors.keys()):
        shape, dtype = model.tensors[key]
        if shape != wanted[key]:
            problems.append(
                f"{model.name}: {key} is {list(shape)} in its weights, {list(wanted[key])} by its "
                "config.json; give a checkpoint whose files belong together"
            )
        if dtype not in FLOATS:
            problems.append(
                f"{model.name}: {key} is stored as {dtype}, not as one of {', '.join(FLOATS)}; "
                "give the model that was not quantised"
            )
    token, index = max(model.vocabulary.items(), key=lambda item: item[1])
    if index >= config.vocab_size:
        problems.append(
            f"{model.name}: its tokenizer gives {token!r} the id {index}, and vocab_size is "
            f"{config.vocab_size}; give the tokenizer that belongs to the model"
        )
    return problems


def _not_computed(config: PretrainedConfig) -> list[str]:
    """One sentence for each key of a config.json that a Mixtral, or transformers itself, would not
    follow. tests/test_configurations.py has the keys that are followed."""
    told = [
        f"{key} is true, and Mixtral has no such biases: mergekit would drop them; choose a model "
        "without"
        for key in ("attention_bias", "mlp_bias")
        if getattr(config, key, False)
    ]
    if config.hidden_act not in ACT2FN:
        told.append(f"transformers knows no hidden_act {config.hidden_act!r}; correct config.json")
    elif list(ACT2FN[config.hidden_act].parameters()):
        told.append(
            f"hidden_act is {config.hidden_act!r}, which has parameters of its own, and Mixtral's "
            "experts have none; choose a model with another activation"
        )
    rope = config.rope_parameters or {}
    if (kind := rope.get("rope_type", "default")) not in ROPE:
        why = " (longrope's positions depend on the batch)" if kind == "longrope" else ""
        told.append(
            f"rope_type is {kind!r}, and what can be computed is {', '.join(ROPE)}{why}; choose "
            "another model"
        )
    if (share := rope.get("partial_rotary_factor") or 1.0) != 1.0:
        told.append(
            f"partial_rotary_factor is {share}, which transformers' {config.model_type} does not "
            "compute; choose a model whose heads are rotated whole"
        )
    heads, key_heads = config.num_attention_heads, config.num_key_value_heads
    if heads % key_heads:
        told.append(
            f"num_attention_heads is {heads}, no multiple of num_key_value_heads, {key_heads}; "
            "correct config.json"
        )
    if len(set(kinds := getattr(config, "layer_types", None) or ())) > 1:
        told.append(
            f"layer_types are {', '.join(sorted(set(kinds)))}, and a Mixtral's layers are all "
            "alike; choose a model whose layers are alike"
        )
    if not config.return_dict:
        told.append(
            "return_dict is false, with which transformers itself fails; leave it out of "
            "config.json"
        )
    if name := getattr(config, "transformers_weights", None):
        told.append(
            f"transformers_weights names {name}, and only model.safetensors and its index are "
            "read; leave the key out of config.json"
        )
    return told


def _expected(config: PretrainedConfig) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that the configuration asks for, by name."""
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(config)
    return {name: tuple(tensor.shape) for name, tensor in empty.state_dict().items()}


def _not_finite(model: Checkpoint) -> list[str]:
    """One sentence for each file that holds NaN or infinity."""
    found = {file: finite.fault_in(file) for file in weight_files(model.folder, model.name)}
    how = "get or train the model again"
    return [f"{model.name}: {file}: {told}; {how}" for file, told in found.items() if told]


# --------------------------------------------------------------------------- a base, an expert


def _pair(base: Checkpoint, expert: Checkpoint) -> list[str]:
    """One sentence with every difference that rules a merge out, or none."""
    tokens = _tokens(base, expert)
    ours, theirs = _comparable(base.config), _comparable(expert.config)
    differences = []
    for key in SHARED:
        if ours[key] == theirs[key]:
            continue
        # tokens added after the base's never occur: the mixture has the base's tokenizer
        added = len(expert.vocabulary) > len(base.vocabulary) and not tokens
        if key == "vocab_size" and added and theirs[key] > ours[key]:
            continue
        differences.append(f"{key} is {theirs[key]}, the base {base.name} has {ours[key]}")
    differences += tokens
    return [f"{expert.name}: {'; '.join(differences)}; {REMEDY}"] if differences else []


def _comparable(config: PretrainedConfig) -> dict[str, Any]:
    """The values of SHARED with defaults filled in, so that equal models compare equal."""
    values = {key: getattr(config, key, None) for key in SHARED}
    values["head_dim"] = values["head_dim"] or config.hidden_size // config.num_attention_heads
    rope = {k: v for k, v in (values["rope_parameters"] or {}).items() if v is not None}
    if config.model_type not in WINDOWED:
        values["sliding_window"] = None
    values["rope_parameters"] = dict(sorted(rope.items()))
    return values


def _tokens(base: Checkpoint, expert: Checkpoint) -> list[str]:
    """A sentence on the first token, by id, to which the expert gives another id or none; or
    nothing."""
    for token, index in sorted(base.vocabulary.items(), key=lambda item: item[1]):
        theirs = expert.vocabulary.get(token)
        if theirs != index:
            has = "no such token" if theirs is None else f"the id {theirs}"
            return [f"the tokenizer has {has} for {token!r}, the base {base.name} the id {index}"]
    return []
