"""Evaluation with lm-eval: accuracy, standard error, n and per-question records.

lm-eval asks and scores; `AnswerScorer` is the language model it talks to. Its log-likelihoods are
those of lm-eval's own HFLM (tests/test_evaluate.py), got with one forward pass a prompt where the
options are single tokens, and logits at the answers' positions only.
"""

import gzip
import json
import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate as harness
from torch import nn

from mofe import models, provenance, tasks
from mofe.files import write_atomic

TOKENS_PER_BATCH = 16384  # a forward pass; changes speed and memory only


class AnswerScorer(LM):
    """A causal language model for lm-eval's log-likelihood requests."""

    def __init__(self, model: nn.Module, tokenizer):
        super().__init__()
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.model.eval()
        self.tokenizer = tokenizer

    @torch.inference_mode()
    def loglikelihood(self, requests, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """(log-likelihood in nats, whether greedy) of every request's continuation."""
        pairs = [request.args for request in requests]
        # All of a prompt's tokens but the last answer token go in; a single-token answer is then
        # read off the prompt alone, so that a question's options share one sequence.
        answers = self._encode(pairs)
        sequences = sorted({tuple(ids[:-1]) for ids, _ in answers}, key=len)
        where: dict[tuple[int, ...], list[int]] = {}
        for number, (ids, _) in enumerate(answers):
            where.setdefault(tuple(ids[:-1]), []).append(number)
        scores: list[tuple[float, bool]] = [(math.nan, False)] * len(answers)
        for batch in _batches(sequences):
            for sequence, hidden in zip(batch, self._hidden(batch), strict=True):
                for number in where[sequence]:
                    ids, start = answers[number]
                    logits = self.model.lm_head(hidden[start - 1 : len(sequence)]).float()
                    logs, target = logits.log_softmax(-1), torch.tensor(ids[start:])
                    target = target.to(logs.device)
                    score = logs.gather(-1, target[:, None]).sum().item()
                    scores[number] = (score, bool((logs.argmax(-1) == target).all()))
        if not all(math.isfinite(score) for score, _ in scores):
            raise ValueError("tasks: the model's log-likelihoods are not finite numbers")
        return scores

    def _encode(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], int]]:
        """(ids of context + continuation, where the continuation starts), as lm-eval splits it."""
        contexts = list(dict.fromkeys(context for context, _ in pairs))
        lengths = dict(zip(contexts, map(len, self.tokenizer(contexts)["input_ids"]), strict=True))
        whole = self.tokenizer([context + continuation for context, continuation in pairs])
        encoded = [
            (ids, lengths[context])
            for (context, _), ids in zip(pairs, whole["input_ids"], strict=True)
        ]
        limit = self.model.config.max_position_embeddings
        for (ids, start), (context, continuation) in zip(encoded, pairs, strict=True):
            if not 0 < start < len(ids):
                raise ValueError(f"tasks: {continuation!r} adds no token after {context[-40:]!r}")
            if len(ids) > limit + 1:
                raise ValueError(
                    f"tasks: a question of {len(ids)} tokens is longer than the model's {limit}"
                )
        return encoded

    def _hidden(self, batch: Sequence[tuple[int, ...]]) -> torch.Tensor:
        """The last hidden states, (sequences, length, hidden), right-padded."""
        ids = torch.nn.utils.rnn.pad_sequence([torch.tensor(s) for s in batch], batch_first=True)
        device = next(self.model.parameters()).device
        with torch.autocast("cuda", torch.bfloat16, enabled=device.type == "cuda"):
            return self.model.model(input_ids=ids.to(device), use_cache=False).last_hidden_state

    def loglikelihood_rolling(self, requests, disable_tqdm: bool = False):
        raise ValueError("tasks: only multiple-choice tasks can be evaluated, not perplexity")

    def generate_until(self, requests, disable_tqdm: bool = False):
        raise ValueError("tasks: only multiple-choice tasks can be evaluated, not generation")


def _batches(sequences: Sequence[tuple[int, ...]]):
    """Cut sequences, sorted by length, into batches of TOKENS_PER_BATCH with their padding."""
    batch: list[tuple[int, ...]] = []
    for sequence in sequences:
        if batch and (len(batch) + 1) * len(sequence) > TOKENS_PER_BATCH:
            yield batch
            batch = []
        batch.append(sequence)
    if batch:
        yield batch


def score(model: nn.Module, tokenizer, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every question of a task (Plan.task_params): its options' log-likelihoods, the target's
    index, the model's choice and whether it is correct by lm-eval's `acc`."""
    built = tasks.build(params)
    results = harness(
        AnswerScorer(model, tokenizer), {"tasks": built}, bootstrap_iters=0, log_samples=True
    )
    return [
        _question(name, built[name], sample)
        for name, samples in results["samples"].items()
        for sample in samples
    ]


def _question(name: str, task, sample: Mapping[str, Any]) -> dict[str, Any]:
    likelihoods = [float(response[0]) for response in sample["filtered_resps"]]
    options = task.doc_to_choice(sample["doc"])
    target = sample["target"]
    return {
        "task": name,
        "question": sample["doc_id"],
        "prompt_sha256": sample["prompt_hash"],
        "options": options,
        "target": target if isinstance(target, int) else options.index(target),
        "choice": likelihoods.index(max(likelihoods)),
        "loglikelihoods": [round(x, 6) for x in likelihoods],
        "correct": int(sample["acc"]),
    }


def summarise(questions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracy with lm-eval's closed-form standard error, the number of questions, and the floor
    that a constant answer reaches. Raises ValueError where there are fewer than two questions."""
    n = len(questions)
    if n < 2:
        raise ValueError(f"tasks: {n} question(s) are too few for a standard error")
    accuracy = sum(q["correct"] for q in questions) / n
    return {
        "n": n,
        "metrics": {
            "acc": {"value": accuracy, "stderr": math.sqrt(accuracy * (1 - accuracy) / (n - 1))}
        },
        "floor": floor(questions),
    }


def floor(questions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The share right of the best constant answer.

    Where questions share closed sets of options (at least 20 questions a set on average), that is
    the commonest label of each set; where every question has options of its own, the best position.
    """
    sets = Counter(tuple(q["options"]) for q in questions)
    closed = len(questions) >= 20 * len(sets)
    right = Counter((tuple(q["options"]) if closed else (), q["target"]) for q in questions)
    best: Counter = Counter()
    for (options, _), count in right.items():
        best[options] = max(best[options], count)
    how = "the commonest label of each set of options" if closed else "always the same position"
    return {"value": sum(best.values()) / len(questions), "how": how}


def evaluate_variant(
    *,
    merge: str,
    deltas: Sequence[str],
    chain: Sequence[Mapping[str, Any]],
    params: Mapping[str, Any],
    names: Mapping[str, Any],
    record: Path,
    questions: Path,
) -> str:
    """Evaluate a variant on one task; write its JSON and, compressed, its questions.

    merge, deltas, chain as in train_variant; params: Plan.task_params; names: of merge, stages and
    seed, for the record. Returns a line for the user.
    """
    started = time.perf_counter()
    model = models.place(models.load_variant(merge, chain, deltas))
    asked = score(model, models.tokenizer(merge), params)
    lines = "".join(json.dumps(q) + "\n" for q in asked)
    # no time stamp in the header: equal records are equal files
    write_atomic(questions, gzip.compress(lines.encode(), mtime=0))
    summary = summarise(asked)
    result = {
        "task": params["name"],
        **names,
        **summary,
        "questions": questions.name,
        "seconds": time.perf_counter() - started,
        "config_hash": provenance.hash_config({**names, "chain": list(chain), "task": params}),
        **provenance.stamp(),
    }
    write_atomic(record, json.dumps(result, indent=2, allow_nan=False) + "\n")
    accuracy = summary["metrics"]["acc"]
    return (
        f"{params['name']} {accuracy['value']:.4f} ± {accuracy['stderr']:.4f} on {summary['n']} "
        f"questions (floor {summary['floor']['value']:.4f})"
    )
