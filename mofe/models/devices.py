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
    """The model on its device. On a GPU what is frozen becomes bfloat16: only what is trained
    needs a float32 master, without which a small learning rate is rounded away. 4-bit weights are
    then expanded to bfloat16, and norms are fused. What will be sharded stays where it is: it would
    not fit."""
    if current().type == "cuda":
        for parameter in parameters.frozen(model).values():
            if parameter.dtype == torch.float32:
                parameter.data = parameter.data.bfloat16()
        nf4.compute_4bit_in(model, torch.bfloat16)
        norms.fuse(model)
    return model if sharded else model.to(current())
