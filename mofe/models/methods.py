"""Fine-tuning methods on modules: each prepares a loaded model and marks what is trained.

There is one function per class of mofe/study/methods.py. The parameters with `requires_grad` are
then trained, stored, and loaded into the merge again, so training and evaluation build the same
model.
"""

from collections.abc import Callable
from itertools import chain
from typing import TypeVar

from torch import nn
from transformers.models.mixtral.modeling_mixtral import MixtralExperts

from mofe.layers import parameters
from mofe.layers.experts import SplitExperts
from mofe.layers.fp8 import Fp8Linear
from mofe.layers.nf4 import nf4
from mofe.study.formats import Format
from mofe.study.methods import Freeze, Full, Ia3, Lora, Method, Partial, RsLora, Untuned
from mofe.study.shapes import ATTENTION, EMBEDDINGS, HEAD, NORMS, ROUTER, Shape
from mofe.training.unfreezing import Unfrozen

M = TypeVar("M", bound=Method)
LINEAR = {"nf4": nf4, "fp8": Fp8Linear}  # frozen linear layers, by the format of their weights
APPLY: dict[type[Method], Callable[[nn.Module, Method], nn.Module]] = {}


def apply(model: nn.Module, method: Method) -> nn.Module:
    """The model prepared for a method. The model that is given may be changed. Raises ValueError
    where the method cannot train such a model."""
    experts = _number_of_experts(model)
    named, tied = "the mixture" if experts else "the model", model.config.tie_word_embeddings
    if reason := method.misfit(experts, named, tied):
        raise ValueError(f"recipes: method '{method.method}' {reason}")
    return APPLY[type(method)](model, method)


def _of(kind: type[M]):
    """Register the function that applies a class of methods. A subclass needs a function of its
    own."""

    def register(function: Callable[[nn.Module, M], nn.Module]):
        APPLY[kind] = function
        return function

    return register


@_of(Untuned)
def untuned(model: nn.Module, method: Untuned) -> nn.Module:
    return model.requires_grad_(False)


@_of(Full)
def full(model: nn.Module, method: Full) -> nn.Module:
    return model.requires_grad_(True)


@_of(Freeze)
def freeze(model: nn.Module, method: Freeze) -> nn.Module:
    """Put frozen experts into a stack of their own, and those that are updated later too. A dense
    model's FFNs are frozen where they are."""
    model.requires_grad_(True)
    if not _number_of_experts(model) and method.frozen_slots(1):
        for layer in model.model.layers:
            layer.mlp.requires_grad_(False)
            if method.held_in:
                _quantize(layer.mlp, method.held_in)
    for parent, experts in _expert_layers(model):
        frozen = method.frozen_slots(experts.num_experts)
        if len(frozen) == experts.num_experts and not method.held_in:
            experts.requires_grad_(False)
        else:
            later = [slots for _, slots in method.unfrozen_slots(experts.num_experts)]
            parent.experts = SplitExperts.partly(experts, frozen, later, method.held_in)
    return model


def unfrozen(model: nn.Module, method: Method) -> list[Unfrozen]:
    """The parameters of a model to which the method is applied that are to stay as they are until
    a part of the training is done. All of them are marked as trained (`requires_grad`)."""
    number = _number_of_experts(model)
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = []
    for after, slots in method.unfrozen_slots(number or 1):
        parts = (
            layer.mlp.experts.holders(slots) if number else [layer.mlp]
            for layer in model.model.layers
        )
        held = [p for part in chain.from_iterable(parts) for p in part.parameters()]
        found.append(Unfrozen(after, slots, tuple(names[parameter] for parameter in held)))
    return found


@_of(Partial)
def partial(model: nn.Module, method: Partial) -> nn.Module:
    """Mark the parameters of the parts that are trained, and no others."""
    model.requires_grad_(False)
    _train_parts(model, method)
    if not method.frozen_slots(1):
        for layer in model.model.layers:
            (layer.mlp.experts if _number_of_experts(model) else layer.mlp).requires_grad_(True)
    return model


@_of(Lora)
def lora(model: nn.Module, method: Lora) -> nn.Module:
    """Add LoRA's adapters, with peft but for those of experts. QLoRA first quantises the decoder's
    linear layers and its experts to NF4, as the QLoRA paper does with all linear layers of a model.
    Embeddings, norms, router and lm_head are not quantised."""
    return _with_products(model, method)


@_of(RsLora)
def rslora(model: nn.Module, method: RsLora) -> nn.Module:
    return _with_products(model, method, use_rslora=True)


@_of(Ia3)
def ia3(model: nn.Module, method: Ia3) -> nn.Module:
    from peft import IA3Config, get_peft_model

    config = IA3Config(
        target_modules=method.targets,
        feedforward_modules=method.feedforward or [],
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, config)
    _train_parts(model, method)
    return model


def _with_products(model: nn.Module, method: Lora, **more: bool) -> nn.Module:
    """The model with LoRA's adapters; those of experts are ours (mofe/layers/experts.py).

    more: further arguments of peft's LoraConfig.
    """
    from peft import LoraConfig, get_peft_model  # costs seconds to import, as mofe.layers.dora does
    from peft.tuners.lora import LoraLayer

    from mofe.layers.dora import Scaled

    if method.held_in:
        for layer in model.model.layers:
            _quantize(layer, method.held_in)
    shape = Shape.of(model.config.to_dict())
    config = LoraConfig(
        r=method.rank,
        lora_alpha=method.alpha,
        target_modules=[*method.targeted(shape), *method.outside(shape)],
        lora_dropout=method.dropout or 0.0,
        use_dora=method.dora or False,
        task_type="CAUSAL_LM",
        **more,
    )
    if config.target_modules:
        model = get_peft_model(model, config)
    else:  # only experts are adapted, which peft cannot find
        model.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, LoraLayer):
            # inputs already have the dtype of the products; peft would copy them to float32, and
            # the copies would be cast back
            module.cast_input_dtype_enabled = False
    if config.use_dora:
        Scaled.put_in(model)
    if method.adapts_experts(shape):
        root = method.rank**0.5 if config.use_rslora else method.rank
        for module in list(model.modules()):
            if isinstance(getattr(module, "experts", None), MixtralExperts | SplitExperts):
                module.experts = SplitExperts.adapted(
                    module.experts,
                    method.in_experts(shape),
                    rank=method.rank,
                    scaling=method.alpha / root,
                    dropout=config.lora_dropout,
                )
    _train_parts(model, method)
    return model


def merge_and_unload(model: nn.Module) -> nn.Module:
    """The trained model as a plain Mixtral (or Llama) again, ready for the next stage.

    Adapters are merged into their layers, and split experts are packed. Raises ValueError for a
    quantised model, because no plain model has the same weights.
    """
    if parameters.is_quantized(model):
        raise ValueError("tables: a stage cannot follow a quantised one; make it the last")
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    for module in list(model.modules()):
        if isinstance(experts := getattr(module, "experts", None), SplitExperts):
            module.experts = experts.packed(like=MixtralExperts(model.config))
    return model.requires_grad_(True)


def _train_parts(model: nn.Module, method: Method) -> None:
    """Mark what the method trains of the model itself, but for FFNs."""
    plain = model.get_base_model() if hasattr(model, "get_base_model") else model
    decoder = plain.model
    modules = {EMBEDDINGS: [decoder.embed_tokens], HEAD: [plain.lm_head], NORMS: [decoder.norm]}
    for layer in decoder.layers:
        modules[NORMS] += [layer.input_layernorm, layer.post_attention_layernorm]
        modules.setdefault(ATTENTION, []).append(layer.self_attn)
        if hasattr(layer.mlp, "gate"):
            modules.setdefault(ROUTER, []).append(layer.mlp.gate)
    for part in method.parts:
        for module in modules[part]:
            module.requires_grad_(True)


def _number_of_experts(model: nn.Module) -> int:
    """The experts per layer of a loaded model; 0 for a dense one."""
    return getattr(model.config, "num_local_experts", 0)


def _expert_layers(model: nn.Module) -> list[tuple[nn.Module, MixtralExperts]]:
    return [
        (parent, parent.experts)
        for parent in model.modules()
        if isinstance(getattr(parent, "experts", None), MixtralExperts)
    ]


def _quantize(part: nn.Module, held_in: Format) -> None:
    """Hold the linear layers and the experts of a decoder layer, or of a part of it, in a
    format."""
    for parent in list(part.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                bias = None if child.bias is None else child.bias.detach()
                setattr(parent, name, LINEAR[held_in](child.weight.detach(), bias))
            elif isinstance(child, MixtralExperts):
                split = SplitExperts.partly(child, range(child.num_experts), held_in=held_in)
                setattr(parent, name, split)
