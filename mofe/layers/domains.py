"""Routers that go by the domain of a row and not by its tokens: the `oracle` gates.

Every token of a row is computed by the experts of its domain, which have equal weights. A row of no
expert's domain is computed by all experts, with equal weights. So nothing is left to train: the
router's weight, which checkpoints have, gets a gradient of zeros.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers.models.mixtral.modeling_mixtral import MixtralTopKRouter

NONE = -1  # the domain of a row that no expert was trained for


class ByDomain(MixtralTopKRouter):
    """A layer's router. Before each forward pass it must be told the domains.

    told: int64, one domain for each token that comes, or a single one for all. shares
    (domains + 1, E): the experts' weights by domain; the last row is for NONE.
    """

    def __init__(self, gate: MixtralTopKRouter, owners: Sequence[int]):
        """owners: the domain of each expert, numbers from 0 without a gap."""
        nn.Module.__init__(self)
        self.top_k, self.num_experts = gate.top_k, gate.num_experts
        self.hidden_dim, self.weight = gate.hidden_dim, gate.weight
        of = torch.tensor(owners)
        mine = torch.stack([of == domain for domain in range(max(owners) + 1)] + [of >= 0])
        self.register_buffer("shares", mine / mine.sum(1, keepdim=True), persistent=False)
        self.told: torch.Tensor | None = None

    def forward(
        self, hidden_states: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As Mixtral's router: logits (T, E), weights (T, K) and experts (T, K) int64, here with K
        the number of experts. Raises RuntimeError where nobody told the domains."""
        if self.told is None:
            raise RuntimeError("merge.gate_mode: an oracle's router was not told the rows' domains")
        count = hidden_states.numel() // self.hidden_dim
        shares = self.shares[self.told].expand(count, -1)
        weights = shares + 0 * self.weight.sum().float()
        experts = torch.arange(self.num_experts, device=weights.device).expand(count, -1)
        return shares.log(), weights, experts


def route(model: nn.Module, owners: Sequence[int]) -> nn.Module:
    """The Mixtral with routers by domain, in place. owners: the domain of each expert."""
    for layer in model.model.layers:
        layer.mlp.gate = ByDomain(layer.mlp.gate, owners)
    return model


def tell(model: nn.Module, domain: int | None) -> None:
    """All rows that the model reads from now on are of this domain; None where its routers go by
    tokens."""
    for module in model.modules():
        if isinstance(module, ByDomain):
            told = None if domain is None else torch.tensor([domain], device=module.shares.device)
            module.told = told


@contextmanager
def told(
    decoder: nn.Module, domains: torch.Tensor, read: torch.Tensor | None = None
) -> Iterator[None]:
    """Within this context the decoder (a Mixtral's `model`) reads tokens of these domains.

    domains (rows, length) int64. read (rows, length) bool: the positions at which the last layer's
    FFN is computed (mofe.layers.positions); None where it is at all.
    """
    gates = [layer.mlp.gate for layer in decoder.layers]
    for gate in gates:
        gate.told = domains.flatten()
    if read is not None:
        gates[-1].told = domains[read]
    try:
        yield
    finally:
        for gate in gates:
            gate.told = None
