"""What the page says of prompts that were cut, because a model had no room for them."""

from __future__ import annotations

from collections.abc import Iterable

from mofe.records import EvalRecord


def cut(evaluations: Iterable[EvalRecord]) -> str:
    """A sentence on the questions whose prompt lost its beginning, by task; empty where none did.
    Variants of one task are asked the same questions, so the most that one of them lost is
    named."""
    most: dict[str, EvalRecord] = {}
    for found in evaluations:
        if found.prompts_cut > getattr(most.get(found.task), "prompts_cut", 0):
            most[found.task] = found
    if not most:
        return ""
    parts = [f"{m.prompts_cut:,} of {m.n:,} questions of {task}" for task, m in most.items()]
    return (
        "Prompts were longer than a model can read, and lost their beginning, as in lm-eval: "
        + ", ".join(parts)
        + ". Such questions are asked without their instructions or examples, so their scores say "
        "little; `prompt_cut` in the questions' files says which they are."
    )
