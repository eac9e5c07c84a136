"""Scores of questions that are alike: questions of one cluster ask for the same thing, so a score
varies more than that of as many unlike questions."""

import math
from collections import defaultdict
from collections.abc import Hashable, Sequence


def numbered(names: Sequence[Hashable | None]) -> list[int]:
    """The number of each question's cluster, from 0. None is a cluster of its own."""
    numbers: dict[Hashable, int] = {}
    keys = ((name, None) if name is not None else (None, i) for i, name in enumerate(names))
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def standard_error(scores: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """The standard error of the scores' mean, by the cluster-robust variance CR1 (Liang and Zeger
    1986, with the factor G / (G - 1) for G clusters). Where every score is a cluster of its own,
    this is the sample's standard deviation divided by the root of n.

    clusters: the cluster of each score. Raises ValueError where there are fewer than two clusters.
    """
    mean, sums = math.fsum(scores) / len(scores), defaultdict(list)
    for score, cluster in zip(scores, clusters, strict=True):
        sums[cluster].append(score - mean)
    if (count := len(sums)) < 2:
        raise ValueError("there is only one cluster, so there is no standard error")
    squares = math.fsum(math.fsum(part) ** 2 for part in sums.values())
    return math.sqrt(count / (count - 1) * squares) / len(scores)
