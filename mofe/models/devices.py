"""Where a model is computed, and in which dtypes."""

import torch
from torch import nn

from mofe.layers import nf4, norms, parameters
from mofe.training import parallel


def current() -> torch.device:
    """This process's GPU if there is one, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", parallel.local_rank())
    return torch.device("cpu")


def to_device(model: nn.Module, sharded: bool = False) -> nn.Module:
    """The model on its device.

    On a GPU frozen parameters become bfloat16, NF4 weights are expanded to bfloat16 for products,
    and norms are fused. Trained parameters stay float32, because bfloat16 would round a small
    learning rate's updates away. A model that will be `sharded` stays where it is: one GPU could
    not hold it.
    """
    if current().type == "cuda":
        for parameter in parameters.frozen(model).values():
            if parameter.dtype == torch.float32:
                parameter.data = parameter.data.bfloat16()
        nf4.compute_4bit_in(model, torch.bfloat16)
        norms.fuse(model)
    return model if sharded else model.to(current())
