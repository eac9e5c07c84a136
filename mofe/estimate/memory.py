"""What a training holds in memory at its peak, as the sum of its parts.

The model of mofe/stages/train.py: trained parameters are float32 with float32 gradients and two moments of
Adam. On a GPU frozen parameters are bfloat16 and products are computed in bfloat16 (autocast); on a
CPU everything is float32. Nothing is recomputed: every activation that backward needs is kept.
benchmarks/memory.py holds these estimates against measured peaks. Bytes throughout.
"""

import math
from collections.abc import Mapping
from typing import Any

from mofe.study.shapes import Shape

NF4 = 0.5 + 4 / 64  # bytes a weight: four bits, and a float32 scale for every 64 weights
# Resident after importing torch, transformers, accelerate and peft: 900 to 1,108 MB, by what of their
# files happened to be in memory.
PROCESS = 1000e6
PEFT = 70e6  # more of it, where adapters are trained

# malloc under KEEP_MEMORY (mofe/jobs/warm.py) gives nothing back, and an aligned block does not fit the hole
# that one of its size left: what comes and goes takes so many times its size. Fitted to the trainings of
# benchmarks/results/memory-cpu.json.
HEAP = 1.7

# The largest share of a row's tokens under the loss: two of a row of 32, where options are chosen from;
# where answers are in words, micro-batches of rows that are mostly answer; of raw text, all.
CHOICES, WORDS, TEXT = 1 / 16, 1 / 2, 1.0

# Tokens of an evaluation's forward pass (mofe/stages/evaluate.py), with padding. They change speed and memory
# only; a CPU's caches like fewer.
QUESTION_TOKENS = {"cuda": 16384, "cpu": 4096}

# Tokens of a training's forward pass under micro_batch "auto": the most that fit. At TinyLlama's shape
# with 8 experts, 4,096 are bound by launching kernels on an H200 and 16,384 fill it; a CPU's core is
# fastest at about 1,000.
TRAINING_TOKENS = {"cuda": (16384, 8192, 4096, 2048, 1024), "cpu": (1024,)}

CUDA_PROCESS = 3e9  # main memory of a process that uses a GPU, beside the model

Settings = Mapping[str, Any]
Parts = dict[str, float]  # bytes, by what they hold


def on_gpu(
    shape: Shape,
    settings: Settings,
    training: Settings,
    labelled: float,
    gpus: int = 1,
    sharding: str = "none",
) -> Parts:
    """The peak on each of `gpus` GPUs, during the backward pass.

    settings: Plan.params.method; training: the resolved `training` keys. labelled: the share of a
    micro-batch's tokens under the loss. sharding: as in mofe.cost.Needs.
    """
    trained, states = shape.trainable(settings), 12 * shape.trainable(settings)
    weights = 4 * trained + _frozen(shape, settings, 2)
    copies = 2 * _cast(shape, settings)  # autocast's, kept from forward to backward
    if sharding == "fsdp":
        # Each layer is gathered when it is used, the next one meanwhile; what is outside of the
        # layers is one unit. Gathered weights are bfloat16, a layer's gradient float32.
        layer_trained = (trained - _outside(shape, settings)) / shape.num_hidden_layers
        copies = 2 * (2 * shape.layer + shape.embeddings) + 4 * layer_trained
        share = 1 / gpus
        # experts that cannot be cut evenly go to processes whole
        if shape.num_local_experts and not shape.shared_evenly(gpus):
            share = math.ceil(shape.num_local_experts / gpus) / shape.num_local_experts
        weights, states = weights * share, states * share
    parts = {
        "weights": weights,
        "gradients and Adam's moments": states,
        "bfloat16 copies": copies,
        "activations": _activations(shape, settings, training, labelled, mixed=True),
        "logits": _logits(shape, training, labelled, 14),
        "backward": _backward(shape, settings, training, mixed=True),
    }
    if sharding == "ddp":
        parts["DDP's buckets"] = 4 * trained
    return parts


def on_cpu(
    shape: Shape, settings: Settings, training: Settings, labelled: float, stored: int = 4
) -> Parts:
    """The peak of resident memory of a process that trains on the CPU. stored: bytes a parameter
    of the dense checkpoints that are read."""
    trained = shape.trainable(settings)
    passing = {
        "activations": _activations(shape, settings, training, labelled, mixed=False),
        "logits": _logits(shape, training, labelled, 12),
        "backward": _backward(shape, settings, training, mixed=False),
    }
    fitting = {
        "process": PROCESS + (PEFT if settings["method"] == "lora" else 0),
        "weights": 4 * trained + _frozen(shape, settings, 4),
        "gradients and Adam's moments": 12 * trained,
        **passing,
        "malloc's holes": (HEAP - 1) * total(passing),
    }
    # what was quantised, or parted into stacks, is freed, but stays the process's
    if settings.get("quantize"):
        fitting["loaded weights"] = 4 * shape.parameters
    elif 0 < shape.frozen_experts(settings) < shape.num_local_experts:
        fitting["loaded weights"] = 4 * shape.num_hidden_layers * shape.ffns
    loading = {"process": PROCESS, "loading": loading_bytes(shape, stored)}
    return max(fitting, loading, key=total)


def evaluating(shape: Shape, settings: Settings, on_cpu: bool) -> Parts:
    """The peak of an evaluation: what was trained is float32, the rest as in training. A forward
    pass keeps one layer's activations."""
    width, tokens = (4, QUESTION_TOKENS["cpu"]) if on_cpu else (2, QUESTION_TOKENS["cuda"])
    trained = shape.trainable(settings)
    parts = {
        "weights": 4 * trained + _frozen(shape, settings, width),
        "bfloat16 copies": 0 if on_cpu else 2 * _cast(shape, settings),
        "activations": tokens
        * width
        * (4 * shape.active * shape.intermediate_size + 8 * shape.hidden_size),
    }
    return parts | ({"process": PROCESS} if on_cpu else {})


def at_once(
    shape: Shape,
    settings: Settings,
    training: Settings,
    labelled: float,
    usable: float | None,
    gpus: int = 1,
    sharding: str = "none",
) -> tuple[dict[str, Any], Parts]:
    """`training` with a number for micro_batch "auto", and the peak with it: the most rows of
    TRAINING_TOKENS that fit, or the fewest where none do. A number that is given stays.

    usable: bytes that each GPU has for it (mofe.hardware.usable), None on a CPU. The other
    arguments are on_gpu's.
    """
    rows = [training["micro_batch"]]
    if rows == ["auto"]:
        choices = TRAINING_TOKENS["cpu" if usable is None else "cuda"]
        rows = [max(1, tokens // training["max_length"]) for tokens in choices]
    for micro_batch in rows:
        fixed = {**training, "micro_batch": micro_batch}
        if usable is None:
            return fixed, on_cpu(shape, settings, fixed, labelled)
        parts = on_gpu(shape, settings, fixed, labelled, gpus, sharding)
        if total(parts) <= usable:
            break
    return fixed, parts


def total(parts: Parts) -> float:
    """The sum of a peak's parts."""
    return sum(parts.values())


def loading_bytes(shape: Shape, stored: int = 4) -> float:
    """A model being read: in float32, beside a dense checkpoint's own pages; a mixture's sources
    are read one after the other. stored: bytes a parameter of a dense checkpoint."""
    return 4 * shape.parameters + stored * shape.dense.parameters


# --------------------------------------------------------------------------------------- parts


def _frozen(shape: Shape, settings: Settings, width: int) -> float:
    """Bytes of the weights that are not trained, of `width` bytes each where not quantised."""
    frozen = shape.total(settings) - shape.trainable(settings)
    if settings.get("quantize") != "nf4":
        return width * frozen
    per_layer = shape.attention + shape.ffns
    if settings["method"] == "freeze":
        per_layer = shape.frozen_experts(settings) * shape.ffn
    quantised = shape.num_hidden_layers * per_layer
    return NF4 * quantised + width * (frozen - quantised)


def _outside(shape: Shape, settings: Settings) -> int:
    """Trained parameters outside of the layers."""
    return 0 if settings["method"] == "lora" else shape.embeddings


def _cast(shape: Shape, settings: Settings) -> int:
    """Trained weights of products, which autocast copies: not the embeddings, not the norms."""
    if settings["method"] == "lora":
        return shape.adapters(settings)
    norms = (2 * shape.num_hidden_layers + 1) * shape.hidden_size
    return shape.trainable(settings) - shape.vocab_size * shape.hidden_size - norms


def _tokens(training: Settings) -> int:
    return training["micro_batch"] * training["max_length"]


def _activations(
    shape: Shape, settings: Settings, training: Settings, labelled: float, mixed: bool
) -> float:
    """What is kept for backward of a micro-batch whose rows all have the greatest length."""
    hidden, layers = shape.hidden_size, shape.num_hidden_layers
    lora = settings["method"] == "lora"
    norm = 4 * hidden * (1 if lora else 2)  # its input, and its input over its norm: float32
    # the last layer's FFN has the labelled tokens only
    unread = 1 - labelled
    kept = layers * _layer(shape, settings, mixed) - unread * _ffn(shape, settings, mixed)
    return _tokens(training) * (kept + norm)


def _layer(shape: Shape, settings: Settings, mixed: bool) -> float:
    """Bytes that a decoder layer keeps for each token."""
    hidden = shape.hidden_size
    query, key = shape.query_size, shape.key_size
    width = 2 if mixed else 4
    lora = settings["method"] == "lora"
    targets = {n: io for n, io in shape.linears.items() if lora and n in settings["targets"]}

    # An input, and where torch has it in pieces (mofe/layers/norms.py) what its norm leaves of it. On GPUs the
    # stream of hidden states is float32 where embeddings are trained.
    norms = 2 * hidden * ((2 if lora else 4) if mixed else (4 if lora else 8))
    attention = 2 * width * (query + key) + 4 * shape.num_attention_heads
    # products of one input share it
    shared = {"q_proj": 0, "k_proj": 0, "v_proj": 0, "gate_proj": 1, "up_proj": 1}
    inputs = width * hidden * (len({shared[t] for t in targets if t in shared}) if lora else 2)
    adapters = sum(
        width * (settings["rank"] + (o if settings.get("dora") else 0)) for _, o in targets.values()
    )
    return norms + attention + inputs + _ffn(shape, settings, mixed) + adapters


def _ffn(shape: Shape, settings: Settings, mixed: bool) -> float:
    """Bytes that a layer's FFN keeps for each of its tokens."""
    width, ffn, lora = 2 if mixed else 4, shape.intermediate_size, settings["method"] == "lora"
    frozen = shape.frozen_experts(settings) / max(1, shape.num_local_experts)
    share = 0.0 if lora else 1 - frozen
    if shape.num_local_experts:
        # what gate and up gave; an expert's input where it is trained (mofe/layers/experts.py)
        return width * shape.active * (2 * ffn + share * shape.hidden_size)
    # gate and up, the gate's activation; their product where down_proj is trained
    return width * ffn * (3 + (1.0 if lora and "down_proj" in settings["targets"] else share))


def _logits(shape: Shape, training: Settings, labelled: float, width: int) -> float:
    """Logits, their log-softmax and their gradient, at the labelled positions."""
    positions = _tokens(training) * labelled
    return positions * shape.vocab_size * width


def _backward(shape: Shape, settings: Settings, training: Settings, mixed: bool) -> float:
    """The gradients that are alive at once: of one layer's activations, and of the largest weight
    before it is added to what earlier micro-batches left."""
    width = 2 if mixed else 4
    hidden, ffn = shape.hidden_size, shape.intermediate_size
    passing = (5 if shape.num_local_experts else 4) * ffn + 2 * hidden
    flowing = _tokens(training) * (width * shape.active * passing + 8 * hidden)
    if settings.get("quantize"):  # the largest matrices of a layer's frozen experts, expanded
        flowing += max(1, shape.frozen_experts(settings)) * 2 * ffn * hidden * width
    if settings["method"] == "lora":
        return flowing
    stack = max(1, shape.num_local_experts) - shape.frozen_experts(settings)
    per = 2 if shape.num_local_experts else 1  # gate and up are one tensor in a mixture
    largest = max(shape.vocab_size * hidden, stack * per * ffn * hidden)
    return flowing + largest * (6 if mixed else 4)
