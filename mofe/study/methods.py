"""Fine-tuning methods: each is a class with its settings and what follows from them.

A recipe of config.yaml is an object of one of these classes, chosen by its `method`. The plan asks
it for counts of parameters and for what a training keeps in memory. mofe/models/methods.py applies
it to modules, with one function per class. No other file compares the names of methods. Imports
neither torch nor transformers.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from mofe.study.formats import FORMATS, Format
from mofe.study.shapes import ATTENTION, EMBEDDINGS, HEAD, NORMS, ROUTER, Shape
from mofe.study.training import TrainingOverride
from mofe.study.values import Count, Experts, Part, SearchName
from mofe.study.words import quoted

NAMED = "The method of fine-tuning."
TARGETS = "The linear layers that get adapters."
IN_EXPERTS = " In a mixture, `gate_proj`, `up_proj` and `down_proj` are those of each expert."
IN_ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
IN_FFN = ("gate_proj", "up_proj", "down_proj")
Targets = Annotated[list[Literal[*IN_ATTENTION, *IN_FFN]], Field(min_length=1)]
Products = Annotated[list[Literal[*IN_ATTENTION, *IN_FFN, HEAD]], Field(min_length=1)]
SHARED = {"training", "search"}  # keys of every recipe that are no setting of its method

EVERYTHING = frozenset({EMBEDDINGS, HEAD, ATTENTION, NORMS, ROUTER})  # besides FFNs
# what `train` of method "partial" names: parts of the model besides FFNs
GROUPS = {
    "attention": {ATTENTION},
    "embeddings": {EMBEDDINGS, HEAD},
    "router": {ROUTER},
    "norms": {NORMS},
    "experts": set(),
}


class Method(Part):
    """A way to fine-tune.

    This base class describes a method that trains nothing; each method overrides what differs.
    `shape` is always the shape of the model that is fine-tuned.

    uses_peft: whether its modules are peft's, which then has to be imported.
    """

    uses_peft: ClassVar[bool] = False

    method: str = Field(description=NAMED)
    training: TrainingOverride = Field(
        default_factory=TrainingOverride, description="Settings of `training` that differ."
    )
    search: SearchName | None = Field(
        None, description="The search that finds this recipe's learning rate, variant by variant."
    )

    @model_validator(mode="wrap")
    @classmethod
    def _name_the_methods_of_a_setting(cls, value: Any, validate):
        try:
            return validate(value)
        except ValidationError as error:
            faults = [_with_methods(cls, e) for e in error.errors()]
            raise ValidationError.from_exception_data("recipe", faults) from None

    def settings(self) -> dict[str, Any]:
        """The method's name and the settings that were given, as plain data. `parse` reads it."""
        return self.model_dump(mode="json", exclude=SHARED, exclude_none=True)

    def in_slots(self, experts: Sequence[str]) -> "Method":
        """The method for a mixture whose slots these models fill, none for a dense model: what it
        says of models, it then says of slots, by their numbers."""
        return self

    def misfit(self, experts: int, named: str, tied: bool = False) -> str | None:
        """Why the method cannot train a model with so many experts per layer (0: a dense one), and
        what to do; None where it can. named: the model as the user knows it, "mixture 'small'".
        tied: whether lm_head is the embeddings' matrix; False where that is not known yet. The
        sentence goes on after "recipe 'x' "."""
        return None

    @property
    def parts(self) -> frozenset[str]:
        """The parts of the model (mofe/study/shapes.py) that are trained, besides its FFNs."""
        return frozenset()

    def frozen_slots(self, experts: int) -> tuple[int, ...]:
        """The experts of a layer that keep their weights to the end, by their slots, from 0.
        experts: FFNs per layer, so 1 for a dense model."""
        return tuple(range(experts))

    def unfrozen_slots(self, experts: int) -> tuple[tuple[float, tuple[int, ...]], ...]:
        """The experts of a layer that are frozen at first and updated later: after which share of
        the optimiser steps, and their slots. experts: as above."""
        return ()

    def phases(self, experts: int) -> tuple[tuple[float, "Method"], ...]:
        """How the method trains one part of the steps after the other: each part's share of them,
        and a method that trains the same from beginning to end. experts: as above."""
        return ((1.0, self),)

    def added(self, shape: Shape) -> int:
        """Parameters that the method adds per layer, all of them trained."""
        return 0

    def added_outside(self, shape: Shape) -> int:
        """Parameters that the method adds outside the layers, all of them trained."""
        return 0

    def multiplied(self, shape: Shape) -> int:
        """How many of the added parameters of a layer each token is multiplied by."""
        return self.added(shape)

    def adapts_experts(self, shape: Shape) -> bool:
        """Whether a mixture's experts get adapters, so that equal ones become different."""
        return False

    @property
    def adapts_any_expert(self) -> bool:
        """The same of any mixture, whatever its shape."""
        return False

    @property
    def held_in(self) -> Format | None:
        """The format of fewer bits in which weights are held; None where all are as they were."""
        return None

    def quantized(self, shape: Shape) -> int:
        """Weights per layer that are held in that format."""
        return 0

    def quantized_rows(self, shape: Shape) -> int:
        """The rows of their matrices, one per output."""
        return 0

    def quantized_bytes(self, shape: Shape) -> float:
        """The bytes that these weights take per layer, with their scales."""
        if self.held_in is None:
            return 0
        return FORMATS[self.held_in].bytes(self.quantized(shape), self.quantized_rows(shape))

    @property
    def is_quantized(self) -> bool:
        """Whether weights are held in a format of fewer bits. Such a model cannot be sharded, and
        no stage can follow it, because no plain model has the same weights."""
        return self.held_in is not None

    def unquantized(self) -> "Method":
        """The same method with all weights as they were."""
        return self.model_copy(update={"quantize": None}) if self.is_quantized else self

    def kept_inputs(self, shape: Shape) -> set[str]:
        """The linear layers of a decoder layer (Shape.linears, and shapes.ROUTER) whose input is
        kept, because backward computes the gradient of a weight from it."""
        kept = {*IN_ATTENTION} if ATTENTION in self.parts else set()
        if shape.num_local_experts:
            return kept | ({ROUTER} & self.parts)
        return kept | ({*shape.in_ffn} if self.trained_ffns(shape) else set())

    def kept_by_adapters(self, shape: Shape, width: int) -> int:
        """Bytes per token that a decoder layer's adapters keep for backward, without those of
        experts. width: bytes of an activation."""
        return 0

    def kept_in_experts(self, shape: Shape, width: int) -> int:
        """Bytes that adapters of experts keep for backward, per token that an expert computes."""
        return 0

    # ------------------------------------------------------------- what follows from the above

    def trained_ffns(self, shape: Shape) -> int:
        """How many FFNs per layer (the experts, or the one of a dense model) are trained."""
        return shape.number_of_ffns - len(self.frozen_slots(shape.number_of_ffns))

    def splits_experts(self, shape: Shape) -> bool:
        """Whether a mixture's experts are held in several stacks, because they are not all trained,
        or not all at once."""
        apart = 0 < self.trained_ffns(shape) < shape.number_of_ffns
        return apart or bool(shape.num_local_experts and self.unfrozen_slots(1))

    def updated_experts(self, shape: Shape) -> tuple[int, ...]:
        """The slots of a layer whose experts a training changes."""
        ffns = shape.number_of_ffns
        still = () if self.adapts_experts(shape) else self.frozen_slots(ffns)
        return tuple(slot for slot in range(ffns) if slot not in still)

    def makes_experts_differ(self, shape: Shape) -> bool:
        """Whether a training makes equal FFNs of a layer different."""
        return bool(self.updated_experts(shape))

    def trains_stream(self, shape: Shape) -> bool:
        """Whether the embeddings are trained, and so the hidden states are in their float32."""
        return EMBEDDINGS in self.parts or (HEAD in self.parts and shape.tie_word_embeddings)

    def trains_head(self, shape: Shape) -> bool:
        """Whether lm_head is trained."""
        return HEAD in self.parts or (EMBEDDINGS in self.parts and shape.tie_word_embeddings)

    def trained_outside(self, shape: Shape) -> int:
        """The trained parameters outside the layers: of embeddings, lm_head and the last norm, and
        those that the method adds there."""
        tables = len({EMBEDDINGS, HEAD} & self.parts)
        if shape.tie_word_embeddings:  # training either one trains both
            tables = min(tables, 1)
        own = tables * shape.table + (shape.hidden_size if NORMS in self.parts else 0)
        return own + self.added_outside(shape)

    def trained_per_layer(self, shape: Shape) -> int:
        """The trained parameters of a layer, those that the method adds among them."""
        sizes = {ATTENTION: shape.attention, NORMS: 2 * shape.hidden_size, ROUTER: shape.router}
        own = sum(size for part, size in sizes.items() if part in self.parts)
        return own + self.trained_ffns(shape) * shape.ffn + self.added(shape)

    def trainable(self, shape: Shape) -> int:
        """The parameters that are trained."""
        layers = shape.num_hidden_layers * self.trained_per_layer(shape)
        return layers + self.trained_outside(shape)

    def total(self, shape: Shape) -> int:
        """All parameters, as train.json counts them."""
        layers = shape.num_hidden_layers * self.added(shape)
        return shape.parameters + layers + self.added_outside(shape)


class Untuned(Method):
    """No training: the merge or the model as it is. No recipe names this method."""

    method: Literal["untuned"] = Field("untuned", description=NAMED)


class Full(Method):
    """Full fine-tuning: every parameter is trained."""

    method: Literal["full"] = Field("full", description=NAMED)

    @property
    def parts(self) -> frozenset[str]:
        return EVERYTHING

    def frozen_slots(self, experts: int) -> tuple[int, ...]:
        return ()


class Unfreezing(Part):
    """A step of progressive unfreezing: experts that are updated from then on."""

    after: Annotated[float, Field(gt=0, lt=1)] = Field(
        description="The share of the training's optimiser steps after which they are updated, "
        "rounded down to whole steps, but at least one."
    )
    experts: Experts = Field(
        description="Which of the frozen experts: `all`, the last so many slots of them, or those "
        "of the models in a list."
    )

    def among(self, frozen: Sequence[int]) -> tuple[int, ...]:
        """Those of the frozen slots that it unfreezes."""
        if isinstance(self.experts, int):
            return tuple(frozen[-self.experts :])
        return tuple(s for s in frozen if self.experts == "all" or s in self.experts)


class Freeze(Method):
    """MoFE (section 3): the `frozen` experts of every layer keep their weights; embeddings,
    attention, norms, lm_head, router and the other experts are trained. In a dense model `all`
    freezes the FFN of every layer."""

    method: Literal["freeze"] = Field("freeze", description=NAMED)
    frozen: Experts = Field(
        description="The experts that keep their weights, in every layer: `all`; the first so many "
        "slots; or those of the models in a list, `[medical]`, which may also have numbers of "
        "slots, from 0. A dense model's one FFN per layer is frozen by `all`."
    )
    quantize: Format | None = Field(
        None,
        description="Hold the frozen experts in fewer bits: `nf4`, 4 bits by bitsandbytes; `fp8`, "
        "8 bits, whose products round their inputs to 8 bits too.",
    )
    unfreeze: Annotated[list[Unfreezing], Field(min_length=1)] | None = Field(
        None,
        description="Progressive unfreezing: frozen experts that are updated after a part of the "
        "training, in the order of the steps.",
    )

    @model_validator(mode="after")
    def _unfreezes_in_order(self):
        shares = [step.after for step in self.unfreeze or ()]
        if shares != sorted(set(shares)):
            raise PydanticCustomError(
                "unfreeze",
                "'unfreeze' has 'after' {shares}; give each step a larger share than the last one",
                {"shares": ", ".join(f"{share:g}" for share in shares)},
            )
        if shares and self.quantize:
            raise PydanticCustomError(
                "unfreeze",
                "'unfreeze' updates experts that 'quantize' holds in fewer bits; leave one of them "
                "out",
            )
        return self

    def in_slots(self, experts: Sequence[str]) -> "Freeze":
        chosen = [self.frozen, *(step.experts for step in self.unfreeze or ())]
        if not any(isinstance(some, list) for some in chosen):
            return self

        def numbered(chosen: int | str | list[int | str]) -> int | str | list[int | str]:
            if not isinstance(chosen, list):
                return chosen
            slots = {s for s, e in enumerate(experts) if e in chosen}
            slots |= {s for s in chosen if isinstance(s, int)}
            return sorted(slots) + [e for e in chosen if isinstance(e, str) and e not in experts]

        found = self.model_copy(update={"frozen": numbered(self.frozen)})
        left, steps = found._frozen_at_first(len(experts)), []
        for step in self.unfreeze or ():
            slots = numbered(step.experts)
            if isinstance(slots, list):
                # a model stands for those of its slots that are frozen
                slots = [s for s in slots if s in left or s in step.experts] or slots
            steps.append(step.model_copy(update={"experts": slots}))
            left = tuple(s for s in left if s not in steps[-1].among(left))
        return found.model_copy(update={"unfreeze": steps or None})

    def misfit(self, experts: int, named: str, tied: bool = False) -> str | None:
        if not experts:
            return self._misfit_of_a_dense_model(named)
        if isinstance(self.frozen, int) and self.frozen > experts:
            return f"freezes {self.frozen} experts, {named} has {experts}; freeze fewer"
        if lacking := _lacking(self.frozen, range(experts)):
            return f"freezes {lacking}, which {named} has not; name models that fill its slots"
        left = self._frozen_at_first(experts)
        for step in self.unfreeze or ():
            if isinstance(step.experts, int) and step.experts > len(left):
                return (
                    f"unfreezes {step.experts} experts after {step.after:g} of its steps, but "
                    f"{len(left)} of {named} are frozen then; unfreeze fewer"
                )
            if not left or (lacking := _lacking(step.experts, left)):
                return (
                    f"unfreezes {lacking if left else 'experts'} after {step.after:g} of its "
                    f"steps, but {named} has no such frozen expert then; leave that out of "
                    "'unfreeze'"
                )
            left = tuple(s for s in left if s not in step.among(left))
        return None

    def _misfit_of_a_dense_model(self, named: str) -> str | None:
        if self.frozen != "all":
            return (
                f"freezes {_told(self.frozen)}, but {named} is dense and has one FFN per layer; "
                "write 'frozen: all' to freeze that"
            )
        if [s.experts for s in self.unfreeze or ()] in ([], ["all"]):
            return None
        return (
            f"unfreezes some experts, but {named} is dense and has one FFN per layer; write "
            "'experts: all' once"
        )

    @property
    def parts(self) -> frozenset[str]:
        return EVERYTHING

    def _frozen_at_first(self, experts: int) -> tuple[int, ...]:
        if isinstance(self.frozen, list):
            return tuple(self.frozen)
        return tuple(range(experts if self.frozen == "all" else self.frozen))

    def frozen_slots(self, experts: int) -> tuple[int, ...]:
        later = {slot for _, slots in self.unfrozen_slots(experts) for slot in slots}
        return tuple(slot for slot in self._frozen_at_first(experts) if slot not in later)

    def unfrozen_slots(self, experts: int) -> tuple[tuple[float, tuple[int, ...]], ...]:
        left, found = self._frozen_at_first(experts), []
        for step in self.unfreeze or ():
            found.append((step.after, step.among(left)))
            left = tuple(slot for slot in left if slot not in found[-1][1])
        return tuple(found)

    def phases(self, experts: int) -> tuple[tuple[float, Method], ...]:
        if not self.unfreeze:
            return ((1.0, self),)
        left, began, found = self._frozen_at_first(experts), 0.0, []
        for after, slots in (*self.unfrozen_slots(experts), (1.0, ())):
            still = self.model_copy(update={"frozen": list(left), "unfreeze": None})
            found.append((after - began, still))
            left, began = tuple(slot for slot in left if slot not in slots), after
        return tuple(found)

    @property
    def held_in(self) -> Format | None:
        return self.quantize

    def quantized(self, shape: Shape) -> int:
        frozen = shape.number_of_ffns - self.trained_ffns(shape)
        return frozen * shape.ffn if self.is_quantized else 0

    def quantized_rows(self, shape: Shape) -> int:
        frozen = shape.number_of_ffns - self.trained_ffns(shape)
        outputs = sum(outputs for _, outputs in shape.in_ffn.values())
        return frozen * outputs if self.is_quantized else 0


def _lacking(chosen: int | str | list[int | str], there: Sequence[int]) -> str:
    """In words, the experts of a list that a mixture has not `there`; empty where it has all."""
    missing = [e for e in chosen if e not in there] if isinstance(chosen, list) else []
    return _told(missing) if missing else ""


def _told(chosen: int | str | list[int | str]) -> str:
    """Chosen experts, in words."""
    if isinstance(chosen, list):
        return ", ".join(f"slot {e}" if isinstance(e, int) else f"'{e}'" for e in chosen)
    return f"{chosen} experts"


class Partial(Method):
    """Training of the named parts of the model alone; all others keep their weights. MoFE with all
    experts frozen is attention, embeddings, router and norms."""

    method: Literal["partial"] = Field("partial", description=NAMED)
    train: Annotated[list[Literal[*GROUPS]], Field(min_length=1)] = Field(
        description="The parts that are trained: the projections of attention, the embeddings with "
        "lm_head, the router, all norms, or the experts (in a dense model, the FFNs)."
    )

    def misfit(self, experts: int, named: str, tied: bool = False) -> str | None:
        if experts or "router" not in self.train:
            return None
        return (
            f"trains the router, but {named} is dense and has none; leave 'router' out of 'train'"
        )

    @property
    def parts(self) -> frozenset[str]:
        return frozenset().union(*(GROUPS[group] for group in self.train))

    def frozen_slots(self, experts: int) -> tuple[int, ...]:
        return () if "experts" in self.train else super().frozen_slots(experts)


class Adapters(Method):
    """Methods that train small modules on some of the model's linear layers, which `targets` names,
    and leave the model itself as it is, but for what `also` names."""

    uses_peft = True

    also: Annotated[list[Literal[EMBEDDINGS, HEAD]], Field(min_length=1)] | None = Field(
        None,
        description="Modules that are trained in full beside the adapters. Where a model ties "
        "lm_head to its embeddings, either name trains their one matrix.",
    )

    def misfit(self, experts: int, named: str, tied: bool = False) -> str | None:
        rest = [name for name in self.targets if name in IN_FFN]
        if not (experts and rest) or self._reaches_experts:
            return None
        return (
            f"has targets ({', '.join(rest)}) in the experts of {named}, which only LoRA and "
            "rsLoRA without 'dora' can adapt; leave them out of 'targets'"
        )

    @property
    def _reaches_experts(self) -> bool:
        """Whether the method can adapt a mixture's experts."""
        return False

    @property
    def parts(self) -> frozenset[str]:
        return frozenset(self.also or ())

    def targeted(self, shape: Shape) -> dict[str, tuple[int, int]]:
        """The linear layers of a decoder layer that get an adapter of peft's, with (inputs,
        outputs)."""
        return {name: sizes for name, sizes in shape.linears.items() if name in self.targets}


def _nf4_alone(value: Any) -> Any:
    if isinstance(value, str) and value in FORMATS and value != "nf4":
        raise PydanticCustomError(
            "held_in",
            "adapters are trained on weights in 'nf4' or unquantised, and {value} is for frozen "
            "experts (method 'freeze'); write nf4",
            {"value": quoted(value)},
        )
    return value


class Lora(Adapters):
    """LoRA: a product of two small matrices is added to each targeted layer. DoRA trains the norms
    of the adapted weight's rows too; QLoRA holds what is not trained in 4 bits."""

    method: Literal["lora"] = Field("lora", description=NAMED)
    rank: Count = Field(description="The rank of the adapters.")
    alpha: Count = Field(description="The scale: adapters are multiplied by `alpha / rank`.")
    targets: Products = Field(
        description=TARGETS + IN_EXPERTS + " `lm_head` can be one where it is not tied."
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="The dropout before the adapters."
    )
    dora: bool | None = Field(
        None, description="Whether to train the weights' magnitudes too (DoRA)."
    )
    quantize: Annotated[Literal["nf4"], BeforeValidator(_nf4_alone)] | None = Field(
        None, description="Hold the linear layers and the experts in 4 bits (QLoRA)."
    )

    @property
    def held_in(self) -> Format | None:
        return self.quantize

    @model_validator(mode="after")
    def _head_is_trained_once(self):
        if HEAD in self.targets and HEAD in (self.also or ()):
            raise PydanticCustomError(
                "head",
                "'also' trains lm_head in full, so it needs no adapter; leave it out of 'targets'",
            )
        return self

    def misfit(self, experts: int, named: str, tied: bool = False) -> str | None:
        if tied and HEAD in self.targets:
            return (
                f"has the target lm_head, which {named} ties to its embeddings, so the adapter "
                "would change both; leave it out of 'targets', or train it in full ('also')"
            )
        return super().misfit(experts, named, tied)

    def added(self, shape: Shape) -> int:
        return self._products(shape, shape.num_local_experts)

    def added_outside(self, shape: Shape) -> int:
        return sum(self._size(*sizes) for sizes in self.outside(shape).values())

    def outside(self, shape: Shape) -> dict[str, tuple[int, int]]:
        """The linear layers outside the decoder layers that get an adapter, with (inputs,
        outputs)."""
        sizes = {HEAD: (shape.hidden_size, shape.vocab_size)}
        return {name: sizes[name] for name in sizes if name in self.targets}

    def multiplied(self, shape: Shape) -> int:
        return self._products(shape, shape.num_experts_per_tok)

    def _products(self, shape: Shape, experts: int) -> int:
        """Two matrices per target, with DoRA also a norm per output; of the experts' targets, for
        so many experts."""
        in_each = sum(map(sum, self.in_experts(shape).values()))
        return experts * self.rank * in_each + sum(
            self._size(*sizes) for sizes in self.targeted(shape).values()
        )

    def _size(self, inputs: int, outputs: int) -> int:
        return self.rank * (inputs + outputs) + (outputs if self.dora else 0)

    @property
    def _reaches_experts(self) -> bool:
        return not self.dora

    def in_experts(self, shape: Shape) -> dict[str, tuple[int, int]]:
        """The matrices of each expert that get an adapter, with (inputs, outputs); none where the
        model is dense, because its FFN is among `targeted`."""
        targets = self.targets if shape.num_local_experts and self._reaches_experts else ()
        return {name: sizes for name, sizes in shape.in_ffn.items() if name in targets}

    def adapts_experts(self, shape: Shape) -> bool:
        return bool(self.in_experts(shape))

    @property
    def adapts_any_expert(self) -> bool:
        return self._reaches_experts and not set(IN_FFN).isdisjoint(self.targets)

    def quantized(self, shape: Shape) -> int:
        return shape.attention + shape.ffns if self.is_quantized else 0

    def kept_inputs(self, shape: Shape) -> set[str]:
        return set(self.targeted(shape))

    def kept_by_adapters(self, shape: Shape, width: int) -> int:
        """The vector between the two matrices; with DoRA also the output that it scales."""
        outputs = [outputs for _, outputs in self.targeted(shape).values()]
        return sum(width * (self.rank + (n if self.dora else 0)) for n in outputs)

    def kept_in_experts(self, shape: Shape, width: int) -> int:
        """The vector between the two matrices of each target, and each different input."""
        adapted = self.in_experts(shape)  # the inputs of gate_proj and up_proj are the same
        inputs = {name == "down_proj": ins for name, (ins, _) in adapted.items()}
        return width * (sum(inputs.values()) + self.rank * len(adapted))


class RsLora(Lora):
    """rsLoRA (arXiv 2312.03732): LoRA whose product is multiplied by alpha / sqrt(rank), so that a
    larger rank does not learn less."""

    method: Literal["rslora"] = Field("rslora", description=NAMED)
    alpha: Count = Field(description="The scale: adapters are multiplied by `alpha / sqrt(rank)`.")


class Ia3(Adapters):
    """(IA)^3 (arXiv 2205.05638): a vector scales each targeted layer's outputs, or its inputs where
    it is named under `feedforward`."""

    method: Literal["ia3"] = Field("ia3", description=NAMED)
    targets: Targets = Field(description=TARGETS)
    feedforward: Targets | None = Field(
        None, description="The targets whose inputs are scaled; other targets' outputs are."
    )

    @model_validator(mode="after")
    def _feedforward_is_targeted(self):
        if rest := sorted(set(self.feedforward or ()) - set(self.targets)):
            raise PydanticCustomError(
                "feedforward",
                "'feedforward' names {rest}, which 'targets' lacks; add it there",
                {"rest": ", ".join(rest)},
            )
        return self

    def added(self, shape: Shape) -> int:
        """One vector per target."""
        return sum(length for length, _ in self._vectors(shape))

    def kept_by_adapters(self, shape: Shape, width: int) -> int:
        """The vectors that are scaled. peft converts inputs to float32 first, and keeps those."""
        return sum((4 if of_input else width) * length for length, of_input in self._vectors(shape))

    def _vectors(self, shape: Shape) -> list[tuple[int, bool]]:
        """The length of each vector of a layer, and whether it scales an input."""
        by_input, sizes = self.feedforward or (), self.targeted(shape).items()
        return [(ins, True) if name in by_input else (outs, False) for name, (ins, outs) in sizes]


# ---------------------------------------------------------------------------------- recipes

AnyMethod = Full | Freeze | Partial | Lora | RsLora | Ia3
METHODS: dict[str, type[Method]] = {
    kind.model_fields["method"].default: kind for kind in get_args(AnyMethod)
}


def _with_methods(kind: type[Method], error: Mapping[str, Any]) -> InitErrorDetails:
    """One of pydantic's errors. If other methods have the setting that this one lacks, it names
    them."""
    sort, message, (*above, key) = error["type"], error["msg"], error["loc"] or [None]
    takers = [name for name, other in METHODS.items() if key in other.model_fields]
    if sort == "extra_forbidden" and not above and takers:
        own = kind.model_fields["method"].default
        sort = "method_settings"
        message = f"method '{own}' does not take it, only {' and '.join(takers)}; remove it"
    described = PydanticCustomError(sort, "{message}", {**error.get("ctx", {}), "message": message})
    return InitErrorDetails(type=described, loc=error["loc"], input=error["input"])


def _given(value: Any) -> Any:
    """A recipe without the settings that are null, so that an overlay can change the method."""
    if not isinstance(value, Mapping):
        return value
    settings = {key for kind in METHODS.values() for key in kind.model_fields}
    return {k: v for k, v in value.items() if v is not None or k not in settings}


Recipe = Annotated[AnyMethod, Field(discriminator="method"), BeforeValidator(_given)]


def parse(params: Mapping[str, Any]) -> Method:
    """The method in a job's parameters (Plan.params.method). Other parameters are ignored."""
    kind = METHODS[params["method"]]
    own = kind.model_fields.keys() - SHARED
    return kind(**{name: params[name] for name in own if name in params})
