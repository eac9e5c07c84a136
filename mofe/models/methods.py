"""Fine-tuning methods: each turns a loaded model into one whose trained part is marked.

A method is a function `(model, settings) -> model` under its name in `METHODS`; a new kind of
method is a new function here. What `requires_grad` marks afterwards is what is trained, stored and
laid over the merge again, so training and evaluation rebuild the very same model.
"""

from collections.abc import Callable
from typing import Any

from torch import nn
from transformers.models.mixtral.modeling_mixtral import MixtralExperts

from mofe.layers.experts import SplitExperts
from mofe.layers.nf4 import nf4

Settings = dict[str, Any]


def full(model: nn.Module, settings: Settings) -> nn.Module:
    """Full fine-tuning: every parameter is trained."""
    return model.requires_grad_(True)


def freeze(model: nn.Module, settings: Settings) -> nn.Module:
    """MoFE (section 3): the first `frozen` experts of every layer, or "all", keep their weights
    (with `quantize: nf4` in 4 bits); embeddings, attention, norms, lm_head, router and the other
    experts are trained.

    Raises ValueError for a dense model and for one with fewer experts than are to be frozen.
    """
    model.requires_grad_(True)
    layers = _expert_layers(model)
    if not layers:
        raise ValueError("recipes: method 'freeze' needs a mixture of experts, the model is dense")
    for parent, experts in layers:
        frozen = experts.num_experts if settings["frozen"] == "all" else settings["frozen"]
        if frozen > experts.num_experts:
            raise ValueError(
                f"recipes: frozen is {frozen}, the mixture has {experts.num_experts} experts"
            )
        quantized = settings.get("quantize") == "nf4"
        if frozen == experts.num_experts and not quantized:
            experts.requires_grad_(False)
        else:
            parent.experts = SplitExperts.partly(experts, frozen, quantized)
    return model


def lora(model: nn.Module, settings: Settings) -> nn.Module:
    """LoRA, DoRA (`dora: true`) or QLoRA (`quantize: nf4`) by peft: adapters on the `targets`.

    QLoRA first quantises the decoder's linear layers and its experts to NF4, as the QLoRA paper
    does with all of a model's linear layers; embeddings, norms, router and lm_head stay.
    """
    from peft import LoraConfig, get_peft_model  # costs seconds to import, as mofe.dora does
    from peft.tuners.lora import LoraLayer

    from mofe.layers.dora import Scaled

    if settings.get("quantize") == "nf4":
        _quantize(model)
    config = LoraConfig(
        r=settings["rank"],
        lora_alpha=settings["alpha"],
        target_modules=settings["targets"],
        lora_dropout=settings.get("dropout", 0.0),
        use_dora=settings.get("dora", False),
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(model, config)
    for module in model.modules():
        if isinstance(module, LoraLayer):
            # inputs have the dtype that products are computed in; peft's float32 copies of them would
            # be cast back
            module.cast_input_dtype_enabled = False
    if config.use_dora:
        Scaled.put_in(model)
    return model


METHODS: dict[str, Callable[[nn.Module, Settings], nn.Module]] = {
    "full": full,
    "freeze": freeze,
    "lora": lora,
}


def apply(model: nn.Module, settings: Settings) -> nn.Module:
    """The model under a method: `settings` is Plan.params.method."""
    return METHODS[settings["method"]](model, settings)


def merge_and_unload(model: nn.Module) -> nn.Module:
    """The trained model as a plain Mixtral (or Llama) again, ready for the next stage.

    Adapters are merged into their layers and split experts are packed. Raises ValueError for a
    quantised model, which has no plain form of equal weights.
    """
    if any(isinstance(m, SplitExperts) and m.is_quantized for m in model.modules()):
        raise ValueError("tables: a stage cannot follow a quantised one; make it the last")
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    for module in list(model.modules()):
        if isinstance(experts := getattr(module, "experts", None), SplitExperts):
            module.experts = experts.packed(like=MixtralExperts(model.config))
    return model.requires_grad_(True)


def _expert_layers(model: nn.Module) -> list[tuple[nn.Module, MixtralExperts]]:
    return [
        (parent, parent.experts)
        for parent in model.modules()
        if isinstance(getattr(parent, "experts", None), MixtralExperts)
    ]


def _quantize(model: nn.Module) -> None:
    for layer in model.model.layers:
        for parent in list(layer.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear):
                    bias = None if child.bias is None else child.bias.detach()
                    setattr(parent, name, nf4(child.weight.detach(), bias))
                elif isinstance(child, MixtralExperts):
                    split = SplitExperts.partly(child, child.num_experts, quantized=True)
                    setattr(parent, name, split)
