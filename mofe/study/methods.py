"""Fine-tuning methods: each one a class with its settings, and what follows from them.

A recipe of config.yaml is one of these classes, found by its `method`. The plan asks it for counts of
parameters and for what a training keeps in memory; mofe/models/methods.py applies it to modules, with
one function per class. Nothing else knows a method by its name. Imports neither torch nor
transformers.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import Field, ValidationError, WrapValidator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from mofe.study.shapes import ROUTER, Shape
from mofe.study.training import TrainingOverride
from mofe.study.values import Count, Part, count_or, suggest


class Method(Part):
    """A way to fine-tune.

    What follows from the settings is here for a method that trains nothing; a method says what is
    otherwise with it. `shape` is always that of the model which is fine-tuned.

    trains_base: the model's own weights are trained, but for its frozen experts.
    needs_mixture: a dense model cannot be trained by it.
    uses_peft: its modules are peft's, which has to be imported.
    """

    trains_base: ClassVar[bool] = False
    needs_mixture: ClassVar[bool] = False
    uses_peft: ClassVar[bool] = False

    method: str
    training: Annotated[
        TrainingOverride,
        Field(description="keys of `training` that this recipe replaces, the mix's own ones too"),
    ] = TrainingOverride()

    def settings(self) -> dict[str, Any]:
        """The method's name and its settings as plain data, without those that are not given: what
        `parse` reads."""
        return self.model_dump(mode="json", exclude={"training"}, exclude_none=True)

    def frozen_experts(self, experts: int) -> int:
        """How many of a layer's experts, the first ones, keep their weights."""
        return experts

    def added(self, shape: Shape) -> int:
        """Parameters that are added to each layer, all of them trained."""
        return 0

    def quantized(self, shape: Shape) -> int:
        """Weights of each layer that are held in 4 bits."""
        return 0

    @property
    def is_quantized(self) -> bool:
        """Whether weights are held in 4 bits. Such a model cannot be sharded, and no stage can
        follow it: it has no plain form of equal weights."""
        return False

    def unquantized(self) -> "Method":
        """The same method on weights that are not held in 4 bits."""
        return self.model_copy(update={"quantize": None}) if self.is_quantized else self

    def kept_inputs(self, shape: Shape) -> set[str]:
        """The linear layers of a decoder layer (Shape.linears, and shapes.ROUTER) whose input is
        kept for backward, which computes the gradient of a weight with it."""
        if not self.trains_base:
            return set()
        return {*shape.linears, ROUTER} if shape.num_local_experts else {*shape.linears}

    def kept_by_adapters(self, shape: Shape, width: int) -> int:
        """Bytes per token that a decoder layer's adapters keep for backward. width: bytes of an
        activation."""
        return 0

    # ------------------------------------------------------------- what follows from the above

    def trained_ffns(self, shape: Shape) -> int:
        """How many of a layer's FFNs (its experts, or the one of a dense model) are trained."""
        frozen = self.frozen_experts(shape.num_local_experts)
        return shape.number_of_ffns - frozen if self.trains_base else 0

    def trainable(self, shape: Shape) -> int:
        """The parameters that are trained."""
        added = shape.num_hidden_layers * self.added(shape)
        if not self.trains_base:
            return added
        frozen = (shape.number_of_ffns - self.trained_ffns(shape)) * shape.ffn
        return shape.parameters - shape.num_hidden_layers * frozen + added

    def total(self, shape: Shape) -> int:
        """All parameters, as train.json counts them."""
        return shape.parameters + shape.num_hidden_layers * self.added(shape)


class Untuned(Method):
    """No training: a merge as it is. No recipe names it."""

    method: Literal["untuned"] = "untuned"


class Full(Method):
    """Full fine-tuning: every parameter is trained."""

    trains_base = True

    method: Literal["full"] = "full"

    def frozen_experts(self, experts: int) -> int:
        return 0


class Freeze(Method):
    """MoFE (section 3): the first `frozen` experts of every layer keep their weights; embeddings,
    attention, norms, lm_head, router and the other experts are trained."""

    trains_base = True
    needs_mixture = True

    method: Literal["freeze"] = "freeze"
    frozen: Annotated[
        count_or("all"),
        Field(description="`all`, or how many experts of every layer keep their weights"),
    ]
    quantize: Annotated[
        Literal["nf4"] | None, Field(description="`nf4`: hold the frozen experts in 4 bits")
    ] = None

    def frozen_experts(self, experts: int) -> int:
        return experts if self.frozen == "all" else self.frozen

    @property
    def is_quantized(self) -> bool:
        return self.quantize is not None

    def quantized(self, shape: Shape) -> int:
        frozen = self.frozen_experts(shape.num_local_experts)
        return frozen * shape.ffn if self.is_quantized else 0


Targets = Annotated[
    list[str], Field(min_length=1, description="names of the linear layers that get adapters")
]


class Adapters(Method):
    """What all methods share that leave the model as it is and train small modules on its linear
    layers, which their setting `targets` names."""

    uses_peft = True

    def targeted(self, shape: Shape) -> dict[str, tuple[int, int]]:
        """The linear layers of a decoder layer that get an adapter: (inputs, outputs)."""
        return {name: sizes for name, sizes in shape.linears.items() if name in self.targets}


class Lora(Adapters):
    """LoRA: a product of two small matrices is added to each targeted layer. DoRA trains the norms
    of the adapted weight's rows too; QLoRA holds what is not trained in 4 bits."""

    method: Literal["lora"] = "lora"
    rank: Annotated[Count, Field(description="rows of one matrix, columns of the other")]
    alpha: Annotated[Count, Field(description="the product counts alpha / rank times")]
    targets: Targets
    dropout: Annotated[
        float | None, Field(ge=0, lt=1, description="dropout in front of the adapters (default 0)")
    ] = None
    dora: Annotated[bool | None, Field(description="`true`: DoRA")] = None
    quantize: Annotated[
        Literal["nf4"] | None,
        Field(description="`nf4`: QLoRA, all linear layers and experts held in 4 bits"),
    ] = None

    @property
    def is_quantized(self) -> bool:
        return self.quantize is not None

    def added(self, shape: Shape) -> int:
        """Two matrices a target; of DoRA a norm for each output besides."""
        return sum(
            self.rank * (inputs + outputs) + (outputs if self.dora else 0)
            for inputs, outputs in self.targeted(shape).values()
        )

    def quantized(self, shape: Shape) -> int:
        return shape.attention + shape.ffns if self.is_quantized else 0

    def kept_inputs(self, shape: Shape) -> set[str]:
        return set(self.targeted(shape))

    def kept_by_adapters(self, shape: Shape, width: int) -> int:
        """What is between the two matrices; of DoRA what it scales."""
        outputs = [outputs for _, outputs in self.targeted(shape).values()]
        return sum(width * (self.rank + (n if self.dora else 0)) for n in outputs)


class RsLora(Lora):
    """rsLoRA (arXiv 2312.03732): LoRA whose product counts alpha / sqrt(rank) times, so that a
    larger rank does not learn less."""

    method: Literal["rslora"] = "rslora"
    alpha: Annotated[Count, Field(description="the product counts alpha / sqrt(rank) times")]


class Ia3(Adapters):
    """(IA)^3 (arXiv 2205.05638): a vector scales each targeted layer's outputs, or its inputs where
    it is named under `feedforward`."""

    method: Literal["ia3"] = "ia3"
    targets: Targets
    feedforward: Annotated[
        list[str] | None, Field(description="those of the targets whose inputs are scaled")
    ] = None

    @model_validator(mode="after")
    def _feedforward_is_targeted(self):
        if rest := sorted(set(self.feedforward or ()) - set(self.targets)):
            raise PydanticCustomError(
                "feedforward",
                "'feedforward' names {rest}, which 'targets' lacks; add it there",
                {"rest": ", ".join(rest)},
            )
        return self

    def _scaled(self, shape: Shape) -> list[tuple[int, bool]]:
        """The lengths of a layer's vectors, and whether they scale an input."""
        fed = self.feedforward or ()
        sizes = self.targeted(shape).items()
        return [(ins, True) if name in fed else (outs, False) for name, (ins, outs) in sizes]

    def added(self, shape: Shape) -> int:
        return sum(length for length, _ in self._scaled(shape))

    def kept_by_adapters(self, shape: Shape, width: int) -> int:
        """What is scaled. peft makes inputs float32 first, and keeps these."""
        return sum((4 if is_input else width) * length for length, is_input in self._scaled(shape))


# ---------------------------------------------------------------------------------- recipes


def _by_its_method(value: Any, validate, info) -> Method:
    """A recipe as the class that its `method` names. What is null is not given. The paths of faults
    are those that the user wrote: pydantic's union would put the method's name into them."""
    if not isinstance(value, Mapping):
        return validate(value)
    given = {key: setting for key, setting in value.items() if setting is not None}
    name = given.get("method")
    if name is None:
        raise _together([_fault("missing", "this key is missing", ("method",), value)])
    if not isinstance(name, str) or name not in METHODS:
        message = f"{name!r} is no method{suggest(name, METHODS)}"
        raise _together([_fault("unknown_name", message, ("method",), name)])
    kind = METHODS[name]
    own = {key: setting for key, setting in given.items() if key in kind.model_fields}
    faults = [_not_taken(kind, key, given[key]) for key in given if key not in own]
    try:
        recipe = kind.model_validate(own, context=info.context)
    except ValidationError as error:
        faults += [_fault(e["type"], e["msg"], e["loc"], e["input"]) for e in error.errors()]
    if faults:
        raise _together(faults)
    return recipe


def _not_taken(kind: type[Method], key: str, value: Any) -> InitErrorDetails:
    """The fault of a key that a method does not take."""
    takers = [name for name, other in METHODS.items() if key in other.model_fields]
    if not takers:
        return _fault(
            "unknown_name", f"unknown key{suggest(key, kind.model_fields)}", (key,), value
        )
    message = f"this method does not take it, {', '.join(takers)} would; remove it"
    return _fault("method_settings", message, (key,), value)


def _fault(kind: str, message: str, path: tuple, value: Any) -> InitErrorDetails:
    """A fault below a recipe; mofe.study.load makes its sentence by the kind."""
    error = PydanticCustomError(kind, "{message}", {"message": message})
    return InitErrorDetails(type=error, loc=path, input=value)


def _together(faults: list[InitErrorDetails]) -> ValidationError:
    return ValidationError.from_exception_data("recipe", faults)


_Any = Full | Freeze | Lora | RsLora | Ia3
Recipe = Annotated[_Any, Field(discriminator="method"), WrapValidator(_by_its_method)]
METHODS: dict[str, type[Method]] = {
    kind.model_fields["method"].default: kind for kind in get_args(_Any)
}


def parse(params: Mapping[str, Any]) -> Method:
    """The method in a job's parameters (Plan.params.method), whatever else these hold."""
    kind = METHODS[params["method"]]
    own = kind.model_fields.keys() - {"training"}
    return kind(**{name: params[name] for name in own if name in params})
