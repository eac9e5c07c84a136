"""SQuAD's scores of a free-text answer, as its official evaluation script (version 2.0) has them.

transformers 5 no longer has its copy (data/metrics/squad_metrics.py), and the `evaluate` package
would fetch one from the hub in the middle of an evaluation.
"""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any


def process_results(doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
    """lm-eval's hook: the scores of a question's answer against the row's `reference`."""
    return {"f1": f1(doc["reference"], results[0]), "exact": exact(doc["reference"], results[0])}


def normalise(text: str) -> str:
    """Lower case, without punctuation, articles and superfluous spaces."""
    text = "".join(character for character in text.lower() if character not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def exact(reference: str, answer: str) -> float:
    """1.0 where the normalised answers are equal, else 0.0."""
    return float(normalise(reference) == normalise(answer))


def f1(reference: str, answer: str) -> float:
    """The harmonic mean of precision and recall over the words of the normalised answers, 0 to 1.
    Where one of the two is empty, it is 1.0 if both are, else 0.0."""
    theirs, ours = normalise(reference).split(), normalise(answer).split()
    if not theirs or not ours:
        return float(theirs == ours)
    shared = sum((Counter(theirs) & Counter(ours)).values())
    return 2 * shared / (len(theirs) + len(ours))
