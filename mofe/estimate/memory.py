"""What a training holds in memory at its peak, as the sum of its parts.

The model of mofe/stages/train.py: trained parameters are float32 with float32 gradients and two moments of
Adam. On a GPU frozen parameters are bfloat16 and products are computed in bfloat16 (autocast); on a
CPU everything is float32. Nothing is recomputed: every activation that backward needs is kept.
benchmarks/memory.py holds these estimates against measured peaks. Bytes throughout.
"""

import math
from collections.abc import Mapping
from typing import Any

from mofe.study.methods import Method
from mofe.study.shapes import ROUTER, Shape

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

Training = Mapping[str, Any]  # the resolved `training` keys
Parts = dict[str, float]  # bytes, by what they hold


def on_gpu(
    shape: Shape,
    method: Method,
    training: Training,
    labelled: float,
    gpus: int = 1,
    sharding: str = "none",
) -> Parts:
    """The peak on each of `gpus` GPUs, during the backward pass.

    training: the resolved `training` keys. labelled: the share of a micro-batch's tokens under the
    loss. sharding: as in mofe.estimate.cost.Needs.
    """
    trained = method.trainable(shape)
    weights, states = 4 * trained + _frozen(shape, method, 2), 12 * trained
    copies = 2 * _cast(shape, method)  # autocast's, kept from forward to backward
    if sharding == "fsdp":
        # Each layer is gathered when it is used, the next one meanwhile; what is outside of the
        # layers is one unit. Gathered weights are bfloat16, a layer's gradient float32.
        outside = shape.embeddings if method.trains_base else 0
        layer_trained = (trained - outside) / shape.num_hidden_layers
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
        "activations": total(activations(shape, method, training, labelled, mixed=True)),
        "logits": _logits(shape, training, labelled, 14),
        "backward": total(backward(shape, method, training, mixed=True)),
    }
    if sharding == "ddp":
        parts["DDP's buckets"] = 4 * trained
    return parts


def on_cpu(
    shape: Shape, method: Method, training: Training, labelled: float, stored: int = 4
) -> Parts:
    """The peak of resident memory of a process that trains on the CPU. stored: bytes a parameter
    of the dense checkpoints that are read."""
    trained = method.trainable(shape)
    passing = {
        "activations": total(activations(shape, method, training, labelled, mixed=False)),
        "logits": _logits(shape, training, labelled, 12),
        "backward": total(backward(shape, method, training, mixed=False)),
    }
    fitting = {
        "process": PROCESS + (PEFT if method.uses_peft else 0),
        "weights": 4 * trained + _frozen(shape, method, 4),
        "gradients and Adam's moments": 12 * trained,
        **passing,
        "malloc's holes": (HEAP - 1) * total(passing),
    }
    # what was quantised, or parted into stacks, is freed, but stays the process's
    if method.quantized(shape):
        fitting["loaded weights"] = 4 * shape.parameters
    elif 0 < method.trained_ffns(shape) < shape.number_of_ffns:
        fitting["loaded weights"] = 4 * shape.num_hidden_layers * shape.ffns
    loading = {"process": PROCESS, "loading": loading_bytes(shape, stored)}
    return max(fitting, loading, key=total)


def evaluating(shape: Shape, method: Method, on_cpu: bool) -> Parts:
    """The peak of an evaluation: what was trained is float32, the rest as in training. A forward
    pass keeps one layer's activations."""
    width, tokens = (4, QUESTION_TOKENS["cpu"]) if on_cpu else (2, QUESTION_TOKENS["cuda"])
    parts = {
        "weights": 4 * method.trainable(shape) + _frozen(shape, method, width),
        "bfloat16 copies": 0 if on_cpu else 2 * _cast(shape, method),
        "activations": tokens
        * width
        * (4 * shape.active * shape.intermediate_size + 8 * shape.hidden_size),
    }
    return parts | ({"process": PROCESS} if on_cpu else {})


def at_once(
    shape: Shape,
    method: Method,
    training: Training,
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
            return fixed, on_cpu(shape, method, fixed, labelled)
        parts = on_gpu(shape, method, fixed, labelled, gpus, sharding)
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


# --------------------------------------------------------------------------------- the weights


def _frozen(shape: Shape, method: Method, width: int) -> float:
    """Bytes of the weights that are not trained, of `width` bytes each where not quantised."""
    frozen = method.total(shape) - method.trainable(shape)
    quantized = shape.num_hidden_layers * method.quantized(shape)
    return NF4 * quantized + width * (frozen - quantized)


def _cast(shape: Shape, method: Method) -> int:
    """Trained weights of products, which autocast copies: not the embeddings, not the norms."""
    norms = (2 * shape.num_hidden_layers + 1) * shape.hidden_size
    uncopied = shape.vocab_size * shape.hidden_size + norms if method.trains_base else 0
    return method.trainable(shape) - uncopied


# ------------------------------------------------------------------ what backward needs, by term

# Layers of one input keep it once. That of o_proj is attention's output, which attention keeps; that
# of down_proj is kept_by_ffn's.
INPUTS = {"q_proj": 0, "k_proj": 0, "v_proj": 0, "gate_proj": 1, "up_proj": 1, ROUTER: 1}


def activations(
    shape: Shape, method: Method, training: Training, labelled: float, mixed: bool
) -> Parts:
    """What a forward pass keeps for backward, of a micro-batch whose rows all have the greatest
    length. mixed: products in bfloat16, as on GPUs."""
    tokens, layers = _tokens(training), shape.num_hidden_layers
    in_layer, in_ffn = kept_by_layer(shape, method, mixed), kept_by_ffn(shape, method, mixed)
    read = layers - 1 + labelled  # the last layer's FFN has the labelled tokens only
    return {
        **{name: tokens * layers * per_token for name, per_token in in_layer.items()},
        **{name: tokens * read * per_token for name, per_token in in_ffn.items()},
        # float32: its input; where it is trained, the normalised input too
        "last norm": tokens * 4 * shape.hidden_size * (2 if method.trains_base else 1),
    }


def kept_by_layer(shape: Shape, method: Method, mixed: bool) -> Parts:
    """Bytes per token that a decoder layer keeps for backward, without its FFN's own."""
    width = 2 if mixed else 4
    # Hidden states between layers are of the embeddings' dtype: float32 where these are trained.
    stream = 4 if method.trains_base or not mixed else 2
    # On a CPU a trained norm keeps its normalised input besides (on GPUs mofe/layers/norms.py).
    normalised = 4 if method.trains_base and not mixed else 0
    inputs = {INPUTS[name] for name in method.kept_inputs(shape) if name in INPUTS}
    return {
        "norms": 2 * (stream + normalised) * shape.hidden_size,
        # queries and attention's output, keys and values; a float32 log-sum per head
        "attention": 2 * width * (shape.query_size + shape.key_size)
        + 4 * shape.num_attention_heads,
        "inputs of linear layers": width * len(inputs) * shape.hidden_size,
        "adapters": method.kept_by_adapters(shape, width),
    }


def kept_by_ffn(shape: Shape, method: Method, mixed: bool) -> Parts:
    """Bytes per token that a layer's FFN keeps for backward, of the tokens that pass through it."""
    width, ffn = 2 if mixed else 4, shape.intermediate_size
    if shape.num_local_experts:  # mofe/layers/experts.py
        trained = method.trained_ffns(shape) / shape.number_of_ffns
        return {
            "gate and up": width * shape.active * 2 * ffn,
            # a pair of token and expert has a row of its own
            "inputs of trained experts": width * shape.active * trained * shape.hidden_size,
        }
    return {
        "gate and up": width * 2 * ffn,
        "gate's activation": width * ffn,
        "input of down_proj": width * ffn * ("down_proj" in method.kept_inputs(shape)),
    }


def backward(shape: Shape, method: Method, training: Training, mixed: bool) -> Parts:
    """The gradients that are alive at once, in bytes."""
    width, tokens = 2 if mixed else 4, _tokens(training)
    hidden, ffn = shape.hidden_size, shape.intermediate_size
    mixture = bool(shape.num_local_experts)
    parts = {
        # Of a dense FFN the gradients of gate, up, activation and product; of an expert those of
        # gate, up and product, beside sigmoid and activation, which are computed anew
        # (mofe/layers/swiglu.py). Then those of its input and its output.
        "FFN's gradients": tokens
        * width
        * shape.active
        * ((5 if mixture else 4) * ffn + 2 * hidden),
        # of the stream of hidden states, before and after the layer: float32
        "hidden states' gradients": tokens * 2 * 4 * hidden,
    }
    if method.quantized(shape):
        # the largest matrices of the layer's frozen FFNs (gate_up), all expanded
        frozen = shape.number_of_ffns - method.trained_ffns(shape)
        parts["expanded NF4"] = frozen * width * 2 * ffn * hidden
    if method.trains_base:
        # of the largest weight, before it is added to what earlier micro-batches left: float32, under
        # autocast in bfloat16 besides. Experts are stacked, gate and up are one tensor there.
        stacked = method.trained_ffns(shape) * (2 if mixture else 1) * ffn * hidden
        parts["largest weight's gradient"] = (6 if mixed else 4) * max(
            shape.vocab_size * hidden, stacked
        )
    return parts


def _logits(shape: Shape, training: Training, labelled: float, width: int) -> float:
    """Logits, their log-softmax and their gradient, at the labelled positions."""
    positions = _tokens(training) * labelled
    return positions * shape.vocab_size * width


def _tokens(training: Training) -> int:
    return training["micro_batch"] * training["max_length"]
