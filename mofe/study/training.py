"""How models are trained: the `training` keys, and what a mix, a recipe or a model may replace."""

from typing import Annotated

from pydantic import Field, create_model

from mofe.study.values import Count, Part, count_or


class Training(Part):
    """AdamW with linear decay (section 4.1); batches in rows, lengths in tokens.

    micro_batch: rows of max_length tokens that are computed at once, of shorter ones as many more;
        "auto": as many as the hardware is fast with and has memory for (mofe.estimate.memory.at_once).
    fold_duplicates: compute equal frozen experts once, which changes results by rounding only.
    """

    learning_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    weight_decay: Annotated[float, Field(ge=0)]
    warmup_steps: Annotated[int, Field(ge=0)]
    max_grad_norm: Annotated[float, Field(gt=0)]
    epochs: Count
    global_batch: Count
    micro_batch: count_or("auto")
    max_length: Count
    router_aux_loss: Annotated[float, Field(ge=0)]
    fold_duplicates: Annotated[bool, Field(strict=True)]


# What a mix, a recipe or a model may replace of it: the same keys, each optional.
TrainingOverride = create_model(
    "TrainingOverride",
    __base__=Part,
    **{
        name: (Annotated[field.annotation, *field.metadata] | None, None)
        for name, field in Training.model_fields.items()
    },
)
