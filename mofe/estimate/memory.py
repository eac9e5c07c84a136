"""What a training holds in memory at its peak, as the sum of its parts, in bytes.

The estimates describe mofe/stages/train.py. Trained parameters are float32, with float32 gradients
and Adam's two moments. On a GPU, frozen parameters are bfloat16 and products are computed in
bfloat16 (autocast); on a CPU everything is float32. Nothing is recomputed: every activation that
backward needs is kept. benchmarks/memory.py compares these estimates with measured peaks.
"""

import math
from collections.abc import Mapping
from typing import Any

from mofe.study.methods import Method
from mofe.study.shapes import ATTENTION, EMBEDDINGS, HEAD, NORMS, ROUTER, Shape

# Resident after importing torch, transformers, accelerate and peft. Measured: 900 to 1,108 MB,
# which depends on how much of their files happened to be in memory.
PROCESS = 1000e6
PEFT = 70e6  # added where adapters are trained

# Memory that is allocated and freed in each step takes this many times its size: malloc under
# KEEP_MEMORY (mofe/jobs/warm.py) gives nothing back, and an aligned block does not fit the hole
# that a block of its size left. Fitted to the trainings of benchmarks/results/memory-cpu.json.
HEAP = 1.7

# The largest share of labelled tokens (those under the loss) in a micro-batch. Multiple choice: two
# tokens of a row of 32. Answers in words: rows that are mostly answer. Raw text: all tokens.
CHOICES, WORDS, TEXT = 1 / 16, 1 / 2, 1.0

# Tokens per forward pass of an evaluation (mofe/stages/evaluate.py), padding included. They affect
# speed and memory only; fewer suit a CPU's caches better.
QUESTION_TOKENS = {"cuda": 16384, "cpu": 4096}
# Tokens of prompts and answers in words that are decoded together, as far as their keys and values
# take no more than CACHE bytes. A GPU gives a hundred answers their next token as fast as ten.
DECODED_TOKENS = {"cuda": 65536, "cpu": 4096}
CACHE = 2 * 2**30

# Tokens per forward pass of a training under micro_batch "auto": the first number that fits. With
# TinyLlama's shape and 8 experts, an H200 spends its time on launching kernels at 4,096 tokens and
# is full at 16,384; a CPU's core is fastest at about 1,000.
TRAINING_TOKENS = {"cuda": (16384, 8192, 4096, 2048, 1024), "cpu": (1024,)}

CUDA_PROCESS = 3e9  # main memory of a process that uses a GPU, without the model

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

    training: the resolved `training` keys. labelled: the share of a micro-batch's tokens that the
    loss is computed on. sharding: as in mofe.estimate.cost.Needs.
    """
    trained = method.trainable(shape)
    weights, states = 4 * trained + _frozen(shape, method, 2), 12 * trained
    copies = 2 * _cast(shape, method)  # made by autocast, kept from forward to backward
    if sharding == "fsdp":
        # While one layer is used, the next one is gathered; everything outside the layers is
        # gathered as one unit. Gathered weights are bfloat16, a layer's gradient is float32.
        copies = 2 * (2 * shape.layer + shape.embeddings) + 4 * method.trained_per_layer(shape)
        share = 1 / gpus
        # experts that cannot be divided evenly go to one process each
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
    """The peak of resident memory of a process that trains on the CPU. stored: bytes per parameter
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
    # weights that were quantised or split into stacks are freed, but malloc keeps their memory
    if method.quantized(shape):
        fitting["loaded weights"] = 4 * shape.parameters
    elif method.splits_experts(shape):
        fitting["loaded weights"] = 4 * shape.num_hidden_layers * shape.ffns
    loading = {"process": PROCESS, "loading": loading_bytes(shape, stored)}
    return max(fitting, loading, key=total)


def decoded_tokens(shape: Shape, on_cpu: bool) -> int:
    """How many tokens of prompts and answers are decoded together."""
    most = DECODED_TOKENS["cpu" if on_cpu else "cuda"]
    return min(most, CACHE // _cached(shape, on_cpu))


def _cached(shape: Shape, on_cpu: bool) -> int:
    """Bytes of a token's keys and values."""
    return (4 if on_cpu else 2) * 2 * shape.num_hidden_layers * shape.key_size


def evaluating(
    shape: Shape, method: Method, on_cpu: bool, in_words: bool = False, every_token: bool = False
) -> Parts:
    """The peak of an evaluation. Trained parameters are float32, all others as in training. A
    forward pass keeps the activations of one layer; answers in words are decoded with a cache. Of
    raw text (every_token) all tokens have logits, which are float32, and their log-softmax."""
    width, tokens = (4, QUESTION_TOKENS["cpu"]) if on_cpu else (2, QUESTION_TOKENS["cuda"])
    parts = {
        "weights": 4 * method.trainable(shape) + _frozen(shape, method, width),
        "bfloat16 copies": 0 if on_cpu else 2 * _cast(shape, method),
        "activations": tokens
        * width
        * (4 * shape.active * shape.intermediate_size + 8 * shape.hidden_size),
    }
    if every_token:
        parts["logits"] = tokens * shape.vocab_size * 2 * 4
    if in_words:
        parts["cache"] = decoded_tokens(shape, on_cpu) * _cached(shape, on_cpu)
    return parts | ({"process": PROCESS} if on_cpu else {})


def choose_micro_batch(
    shape: Shape,
    method: Method,
    training: Training,
    labelled: float,
    usable: float | None,
    gpus: int = 1,
    sharding: str = "none",
) -> tuple[dict[str, Any], Parts]:
    """`training` with a number for micro_batch, and the peak with that number. "auto" becomes the
    most rows of TRAINING_TOKENS that fit, or the fewest where none fit; a number stays as it is.

    usable: bytes that a training may use per GPU (mofe.study.hardware.usable); None on a CPU. The
    other arguments are those of `on_gpu`.
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


def terms(
    shape: Shape, method: Method, training: Training, labelled: float, mixed: bool
) -> dict[str, Parts]:
    """The terms of those parts of a training's peak that are sums, by the part. The arguments are
    those of `activations`."""
    return {
        "activations": activations(shape, method, training, labelled, mixed),
        "backward": backward(shape, method, training, mixed),
    }


def total(parts: Parts) -> float:
    """The sum of a peak's parts."""
    return sum(parts.values())


def loading_bytes(shape: Shape, stored: int = 4) -> float:
    """Memory while a model is read: the model in float32, and one dense checkpoint's pages, since a
    mixture's sources are read one after the other. stored: bytes per parameter of a checkpoint."""
    return 4 * shape.parameters + stored * shape.dense.parameters


# --------------------------------------------------------------------------------- the weights


def _frozen(shape: Shape, method: Method, width: int) -> float:
    """Bytes of the weights that are not trained. width: bytes per weight that is not quantised."""
    frozen = method.total(shape) - method.trainable(shape)
    layers = shape.num_hidden_layers
    plain = width * (frozen - layers * method.quantized(shape))
    return layers * method.quantized_bytes(shape) + plain


def _cast(shape: Shape, method: Method) -> int:
    """The number of trained weights that autocast copies: those of products, so neither the
    embeddings nor the norms."""
    norms = (2 * shape.num_hidden_layers + 1) * shape.hidden_size
    uncopied = shape.table if EMBEDDINGS in method.parts else 0
    return method.trainable(shape) - uncopied - (norms if NORMS in method.parts else 0)


# ------------------------------------------------------------------ what backward needs, by term

# The input of each linear layer, by number: layers with the same input keep it once. The input of
# o_proj is attention's output, which attention keeps; that of down_proj is counted in kept_by_ffn.
INPUTS = {"q_proj": 0, "k_proj": 0, "v_proj": 0, "gate_proj": 1, "up_proj": 1, ROUTER: 1}


def activations(
    shape: Shape, method: Method, training: Training, labelled: float, mixed: bool
) -> Parts:
    """Bytes that a forward pass keeps for backward, with a micro-batch whose rows all have
    `max_length` tokens. mixed: whether products are computed in bfloat16, as on GPUs."""
    tokens, layers = _tokens(training), shape.num_hidden_layers
    in_layer, in_ffn = kept_by_layer(shape, method, mixed), kept_by_ffn(shape, method, mixed)
    read = layers - 1 + labelled  # the last layer's FFN computes the labelled tokens only
    return {
        **{name: tokens * layers * per_token for name, per_token in in_layer.items()},
        **{name: tokens * read * per_token for name, per_token in in_ffn.items()},
        # in float32 the input; if the norm is trained, the normalised input too
        "last norm": tokens * 4 * shape.hidden_size * (2 if NORMS in method.parts else 1),
    }


def kept_by_layer(shape: Shape, method: Method, mixed: bool) -> Parts:
    """Bytes per token that a decoder layer keeps for backward, without those of its FFN."""
    width = 2 if mixed else 4
    # Hidden states between layers have the embeddings' dtype: float32 if these are trained.
    stream = 4 if method.trains_stream(shape) or not mixed else 2
    # On a CPU a trained norm also keeps its normalised input; on GPUs mofe/layers/norms.py avoids
    # it.
    normalised = 4 if NORMS in method.parts and not mixed else 0
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
    """Bytes that a layer's FFN keeps for backward, per token that it computes."""
    width, ffn = 2 if mixed else 4, shape.intermediate_size
    if shape.num_local_experts:  # mofe/layers/experts.py
        trained = method.trained_ffns(shape) / shape.number_of_ffns
        return {
            "gate and up": width * shape.active * 2 * ffn,
            # one row per pair of a token and an expert
            "inputs of trained experts": width * shape.active * trained * shape.hidden_size,
            "experts' adapters": shape.active * method.kept_in_experts(shape, width),
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
        # Dense FFN: the gradients of gate, up, activation and product. Expert: the gradients of
        # gate, up and product, and sigmoid and activation, which are computed again
        # (mofe/layers/swiglu.py). Both: the gradients of input and output.
        "FFN's gradients": tokens
        * width
        * shape.active
        * ((5 if mixture else 4) * ffn + 2 * hidden),
        # before and after the layer, in float32
        "hidden states' gradients": tokens * 2 * 4 * hidden,
    }
    if method.quantized(shape):
        # the largest matrices of the layer's frozen FFNs (gate_up), all of them expanded
        frozen = shape.number_of_ffns - method.trained_ffns(shape)
        parts["expanded weights"] = frozen * width * 2 * ffn * hidden
    # Before it is added to the sum over earlier micro-batches: in float32, and under autocast in
    # bfloat16 too. Trained experts are one tensor, and so are their gates and ups.
    largest = max(
        shape.table if {EMBEDDINGS, HEAD} & method.parts else 0,
        shape.query_size * hidden if ATTENTION in method.parts else 0,
        method.trained_ffns(shape) * (2 if mixture else 1) * ffn * hidden,
    )
    if largest:
        parts["largest weight's gradient"] = (6 if mixed else 4) * largest
    return parts


def _logits(shape: Shape, training: Training, labelled: float, width: int) -> float:
    """Bytes of the logits, their log-softmax and their gradient, at the labelled positions. width:
    bytes of all three per logit."""
    positions = _tokens(training) * labelled
    return positions * shape.vocab_size * width


def _tokens(training: Training) -> int:
    return training["micro_batch"] * training["max_length"]
