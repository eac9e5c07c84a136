"""How models are trained: the `training` keys, and what a mix, a recipe or a model may override."""

from typing import Annotated, Any

from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from mofe.study.values import Count, Part, Rate, Whole, count_or


class Training(Part):
    """AdamW with linear decay to zero (section 4.1)."""

    learning_rate: Rate = Field(
        description="The learning rate at the start of the decay. A recipe with `search` has its "
        "own."
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        description="AdamW's decay of weights. Norms and biases have none."
    )
    warmup_steps: Whole = Field(description="Optimiser steps of linear rise before the decay.")
    max_grad_norm: Annotated[float, Field(gt=0)] = Field(
        description="Gradients are clipped to this norm."
    )
    epochs: Count = Field(description="Passes over the rows.")
    global_batch: Count = Field(description="Rows per optimiser step, whatever the number of GPUs.")
    micro_batch: count_or("auto") = Field(
        description="Rows of `max_length` tokens per forward pass. Where rows are shorter it "
        "takes more of them, up to the same number of tokens. With `auto` the hardware decides."
    )
    max_length: Count = Field(
        description="The most tokens per row. A longer row is dropped and counted; raw text is "
        "cut into pieces."
    )
    router_aux_loss: Annotated[float, Field(ge=0)] = Field(
        description="Factor of the router's load-balancing loss; 0 turns it off."
    )
    fold_duplicates: Annotated[bool, Field(strict=True)] = Field(
        description="Whether to compute a layer's equal frozen experts once, with the sum of "
        "their weights: faster, and equal up to rounding. Evaluation always does. Off where a "
        "table shows what a training of such experts took, which would be that of fewer."
    )
    record_router: Count | None = Field(
        None,
        description="Record what a mixture's routers do in the first, the last and every so many "
        "optimiser steps (docs/router.md). It changes nothing of the training.",
    )


def _optional(field: FieldInfo) -> Any:
    """The type of a key that may be left out."""
    limits = field.metadata
    return (Annotated[field.annotation, *limits] if limits else field.annotation) | None


# What a mix, a recipe or a model may override: the same keys, each of them optional.
TrainingOverride = create_model(
    "TrainingOverride",
    __base__=Part,
    **{
        name: (_optional(field), Field(None, description=field.description))
        for name, field in Training.model_fields.items()
    },
)
