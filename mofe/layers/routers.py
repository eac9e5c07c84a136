"""What a mixture's routers do: read off a forward pass by hooks, and summed over tokens.

Nothing is computed anew, and nothing of the pass changes: a hook sees what a router gives. The axes
at the end of a tensor's name are those of mofe/layers/experts.py; E counts the router's slots, also
where equal experts are held once.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

from mofe.records import RouterLayer

# The layer's number from 0, and its router's logits_TE, weights_TK and index_TK (int64).
See = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], None]
DIGITS = 6  # of shares and entropies in records


def of(decoder: nn.Module) -> list[nn.Module]:
    """The router of each layer of a Mixtral's `model`; none of a dense one's."""
    return [layer.mlp.gate for layer in decoder.layers if hasattr(layer.mlp, "gate")]


@contextmanager
def seeing(routers: Sequence[nn.Module], see: See) -> Iterator[None]:
    """Within this context `see` is told what each router gives."""

    def hook(layer: int) -> Callable[..., None]:
        return lambda module, inputs, output: see(layer, *output)

    hooks = [router.register_forward_hook(hook(layer)) for layer, router in enumerate(routers)]
    try:
        yield
    finally:
        for handle in hooks:
            handle.remove()


class Sums:
    """Sums over tokens of what `layers` routers of `slots` experts give, kept apart by `sets` of
    tokens (training sets).

    They are float64 in one tensor per layer, on the device: nothing waits for a GPU until they are
    `described`.
    """

    def __init__(self, layers: int, slots: int, sets: int, device: torch.device):
        self.slots, self.sets = slots, sets
        # tokens, entropy, then by slot: probability, weight, and of each set the choices
        width = 2 + slots * (2 + sets)
        self.values = torch.zeros(layers, width, dtype=torch.float64, device=device)

    @torch.no_grad()
    def add(
        self,
        layer: int,
        logits_TE: torch.Tensor,
        weights_TK: torch.Tensor,
        index_TK: torch.Tensor,
        set_T: torch.Tensor,
    ) -> None:
        """Add a router's tokens. set_T (T,) int64: the set of each token; -1 is padding, which does
        not count. Neither does a choice of weight 0, as an oracle's of other domains' experts."""
        p_TE = logits_TE.float().softmax(-1)
        chosen_TKE = F.one_hot(index_TK, self.slots) * (weights_TK > 0)[..., None]
        weight_TE = (weights_TK[..., None] * chosen_TKE).sum(1)
        entropy_T = torch.special.entr(p_TE).sum(-1, keepdim=True)
        of_set_TS = F.one_hot(set_T + 1, self.sets + 1)[:, 1:].double()
        real_T = of_set_TS.sum(-1, keepdim=True)
        seen = torch.cat([torch.ones_like(entropy_T), entropy_T, p_TE, weight_TE], dim=-1).double()
        choices_SE = of_set_TS.T @ chosen_TKE.sum(1).double()
        self.values[layer] += torch.cat([(real_T.T @ seen).flatten(), choices_SE.flatten()])

    def described(self, values: torch.Tensor) -> tuple[RouterLayer, ...]:
        """These sums, or those of several processes together, on the CPU: layer by layer."""
        return tuple(map(self._layer, values))

    def _layer(self, values: torch.Tensor) -> RouterLayer:
        (tokens, entropy), rest = values[:2].tolist(), values[2:].view(-1, self.slots)
        p_E, weight_E, choices_SE = rest[0] / tokens, rest[1], rest[2:]
        joint_SE = choices_SE / choices_SE.sum()
        apart = _entropy(joint_SE.sum(0)) + _entropy(joint_SE.sum(1)) - _entropy(joint_SE)
        return RouterLayer(
            tokens=int(tokens),
            chosen=_rounded(joint_SE.sum(0)),
            weight=_rounded(weight_E / weight_E.sum()),
            entropy=_not_negative(entropy / tokens),
            entropy_of_mean=_not_negative(_entropy(p_E)),
            mutual_information=_not_negative(apart),
        )


def _entropy(p: torch.Tensor) -> float:
    """The entropy of a distribution, in nats."""
    return torch.special.entr(p).sum().item()


def _rounded(shares: torch.Tensor) -> tuple[float, ...]:
    return tuple(round(share, DIGITS) for share in shares.tolist())


def _not_negative(nats: float) -> float:
    """Rounded, and 0 where rounding made less of it."""
    return max(0.0, round(nats, DIGITS))
