"""What evaluations measure: every metric, what it is in words, and how its values are read."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Measure:
    """A metric.

    says: what it is, in a sentence. is_share: whether it is a mean of the questions' scores, which
    are between 0 and 1, so that models can be ranked and claims judged by it. best: which of its
    values is the best; None where none is.
    """

    says: str
    is_share: bool = True
    best: Literal["greatest", "least"] | None = "greatest"


METRICS = {
    "acc": Measure("accuracy (acc)"),
    "acc_norm": Measure("accuracy by log-likelihood per character (acc_norm)"),
    "f1": Measure("F1 over the words of the answers (f1)"),
    "exact": Measure("the share of exact matches"),
    "perplexity": Measure("the perplexity per token", is_share=False, best="least"),
    "entropy": Measure("the entropy over the options, in nats", is_share=False, best=None),
}
SHARES = tuple(name for name, metric in METRICS.items() if metric.is_share)
