"""Evaluation with lm-eval: scores, standard errors, n and per-question records.

lm-eval asks and scores; `AnswerScorer` is the language model it talks to. What it answers is what
lm-eval's own HFLM answers (tests/test_evaluate.py): log-likelihoods are got with one forward pass a
prompt where the options are single tokens, and logits at the answers' positions only; answers in
words are greedy.
"""

import gzip
import json
import math
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate as harness
from lm_eval.models.utils import normalize_gen_kwargs, postprocess_generated_text
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import LogitsProcessor, StoppingCriteria

from mofe import experts, memory, models, provenance, tasks
from mofe.data import tokens
from mofe.files import write_atomic
from mofe.positions import only_at

# A task's metrics by what they are the mean of in a question's record; the first is its headline.
CHOSEN = {"acc": "correct"}
WRITTEN = {"f1": "f1", "exact": "exact"}


class AnswerScorer(LM):
    """A causal language model for lm-eval's requests.

    cut: tokens that a prompt lost at its beginning to leave room for its answer, by prompt.
    """

    def __init__(self, model: nn.Module, tokenizer):
        super().__init__()
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.model.eval()
        # Logits are float32 whatever was frozen: between bfloat16 ones there would be ties, and the
        # first option would win them.
        self.head = self.model.lm_head.weight.detach().float()
        self.tokenizer = tokenizer
        self.cut: Counter[str] = Counter()

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

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
        for batch in self._batches(sequences):
            # where the first answer token of each is read
            first = [min(answers[number][1] for number in where[it]) - 1 for it in batch]
            logs = self._read(batch, first).log_softmax(-1)
            best = logs.argmax(-1)
            asked, places, targets, offset = [], [], [], 0
            for sequence, begin in zip(batch, first, strict=True):
                for number in where[sequence]:
                    ids, start = answers[number]
                    asked.append((number, len(ids) - start))
                    places += range(offset + start - 1 - begin, offset + len(ids) - 1 - begin)
                    targets += ids[start:]
                offset += len(sequence) - begin
            # all options at once: from a GPU, each would be waited for
            at, target = torch.tensor([places, targets], device=logs.device)
            lengths = [length for _, length in asked]
            likely = logs[at, target].cpu().split(lengths)
            greedy = (best[at] == target).cpu().split(lengths)
            for (number, _), score, right in zip(asked, likely, greedy, strict=True):
                scores[number] = (score.sum().item(), bool(right.all()))
        if not all(math.isfinite(score) for score, _ in scores):
            raise ValueError("tasks: the model's log-likelihoods are not finite numbers")
        return scores

    def _encode(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[list[int], int]]:
        """(ids of context + continuation, where the continuation starts), as lm-eval splits it; a
        context that leaves no room loses its beginning, as in HFLM."""
        contexts = list(dict.fromkeys(context for context, _ in pairs))
        lengths = dict(zip(contexts, map(len, self.tokenizer(contexts)["input_ids"]), strict=True))
        whole = self.tokenizer([context + continuation for context, continuation in pairs])
        most = self.model.config.max_position_embeddings + 1  # the last token is not read
        encoded = []
        for (context, continuation), ids in zip(pairs, whole["input_ids"], strict=True):
            cut, start = max(0, len(ids) - most), lengths[context]
            if not 0 < start < len(ids):
                raise ValueError(f"tasks: {continuation!r} adds no token after {context[-40:]!r}")
            if cut >= start:
                raise ValueError(
                    f"tasks: an answer of {len(ids) - start} tokens leaves the model's {most - 1} no "
                    "room for a question"
                )
            self.cut[context] = max(self.cut[context], cut)
            encoded.append((ids[cut:], start - cut))
        return encoded

    def _read(self, batch: Sequence[tuple[int, ...]], first: Sequence[int]) -> torch.Tensor:
        """The logits (positions, vocabulary), float32, from each sequence's `first` position on, one
        sequence after the other."""
        ids = pad_sequence([torch.tensor(s) for s in batch], batch_first=True).to(self.device)
        bounds = torch.tensor([(f, len(it)) for f, it in zip(first, batch, strict=True)])
        starts, ends = bounds.to(self.device)[..., None].unbind(1)
        places = torch.arange(ids.shape[1], device=self.device)
        read = (places >= starts) & (places < ends)
        with self._precision(), only_at(self.model.model, read):
            hidden = self.model.model(input_ids=ids, use_cache=False).last_hidden_state
        return F.linear(hidden[read].float(), self.head)

    def _batches(
        self, sequences: Sequence[tuple[int, ...]], room: int = 0
    ) -> list[list[tuple[int, ...]]]:
        """Sequences, sorted by length, in batches; `room`: for so many more tokens behind each."""
        lengths = [len(sequence) + room for sequence in sequences]
        kind = self.device.type
        most, start = memory.QUESTION_TOKENS[kind], tokens.STARTING[kind]
        cut = tokens.micro_batches(range(len(sequences)), lengths, most, start)
        return [[sequences[i] for i in batch] for batch in cut]

    def _precision(self) -> torch.autocast:
        return torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda")

    @torch.inference_mode()
    def generate_until(self, requests, disable_tqdm: bool = False) -> list[str]:
        """The greedy continuation of every request's prompt, up to a stop string, the end of text
        or the most tokens that the task allows.

        A prompt that leaves no room for an answer of that many loses its beginning, as in HFLM.
        Raises ValueError for settings that are not greedy, and for scores that are not finite.
        """
        texts = [""] * len(requests)
        alike: dict[tuple[tuple[str, ...], int], list[int]] = defaultdict(list)
        for number, request in enumerate(requests):
            alike[_greedy(request.args[1])].append(number)
        for (stops, length), numbers in alike.items():
            prompts = self._prompts([requests[number].args[0] for number in numbers], length)
            where: dict[tuple[int, ...], list[int]] = defaultdict(list)
            for number, ids in zip(numbers, prompts, strict=True):
                where[ids].append(number)
            for batch in self._batches(sorted(where, key=len), length):
                for ids, text in zip(batch, self._continue(batch, stops, length), strict=True):
                    for number in where[ids]:
                        texts[number] = text
        return texts

    def _prompts(self, prompts: Sequence[str], length: int) -> list[tuple[int, ...]]:
        """The ids of prompts, their last ones where all leave no room for `length` more."""
        limit = self.model.config.max_position_embeddings
        if length >= limit:
            raise ValueError(
                f"tasks: an answer of {length} tokens (max_gen_toks) leaves the model's {limit} no "
                "room for a question; lower it"
            )
        encoded = self.tokenizer(list(prompts))["input_ids"]
        for prompt, ids in zip(prompts, encoded, strict=True):
            self.cut[prompt] = max(0, len(ids) - (limit - length))
        return [tuple(ids[-(limit - length) :]) for ids in encoded]

    def _continue(
        self, batch: Sequence[tuple[int, ...]], stops: Sequence[str], length: int
    ) -> list[str]:
        """The texts that follow prompts, padded on the left."""
        side = {"batch_first": True, "padding_side": "left"}
        pad = self.tokenizer.pad_token_id
        ids = pad_sequence([torch.tensor(s) for s in batch], padding_value=pad, **side)
        mask = pad_sequence([torch.ones(len(s), dtype=torch.int64) for s in batch], **side)
        with self._precision():
            whole = self.model.generate(
                input_ids=ids.to(self.device),
                attention_mask=mask.to(self.device),
                do_sample=False,
                max_new_tokens=length,
                stopping_criteria=[_Stopped(self.tokenizer, stops, ids.shape[1])],
                eos_token_id=self.tokenizer.eos_token_id,
                pad_token_id=pad,
                logits_processor=[_Finite()],
            )
        texts = self.tokenizer.batch_decode(whole[:, ids.shape[1] :], skip_special_tokens=True)
        return [postprocess_generated_text(text, list(stops), None) for text in texts]

    def loglikelihood_rolling(self, requests, disable_tqdm: bool = False):
        raise ValueError("tasks: perplexity is not evaluated, only questions and their answers")


class _Finite(LogitsProcessor):
    """Refuses scores of which none can be called the largest."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        if not scores.isfinite().all():
            raise ValueError("tasks: the model's scores of the next token are not finite numbers")
        return scores


class _Stopped(StoppingCriteria):
    """Ends each text at a stop string; transformers' own `stop_strings` fail for a tokenizer that
    holds whole words. One that is missed costs time only: texts are cut afterwards.

    start: how many tokens come before the text.
    """

    def __init__(self, tokenizer, stops: Sequence[str], start: int):
        self.tokenizer, self.stops, self.start = tokenizer, stops, start
        # a token stands for a byte or more, so no stop string that has just ended begins before
        self.window = max((len(stop.encode()) for stop in stops), default=0) + 1

    def __call__(self, input_ids: torch.Tensor, scores, **_) -> torch.Tensor:
        tails = self.tokenizer.batch_decode(input_ids[:, self.start :][:, -self.window :])
        done = [any(stop in tail for stop in self.stops) for tail in tails]
        return torch.tensor(done, device=input_ids.device)


def _greedy(settings: Mapping[str, Any]) -> tuple[tuple[str, ...], int]:
    """A task's generation_kwargs as its stop strings and the most tokens of an answer."""
    normal = normalize_gen_kwargs(dict(settings))
    more = set(normal) - {"until", "max_gen_toks", "do_sample", "temperature"}
    if more or normal["do_sample"]:
        raise ValueError(
            f"tasks: generation_kwargs {dict(settings)} ask for more than the likeliest next token; "
            "only 'until' and 'max_gen_toks' can be set"
        )
    return tuple(normal["until"]), normal["max_gen_toks"]


def score(model: nn.Module, tokenizer, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every question of a task (Plan.task_params): what was asked, and the answer with its scores.

    Of a choice the options' log-likelihoods, the target's index, the model's choice and whether it
    is correct by lm-eval's `acc`; of an answer in words the reference, what was generated and the
    task's scores of it.
    """
    built, scorer = tasks.build(params), AnswerScorer(model, tokenizer)
    results = harness(scorer, {"tasks": built}, bootstrap_iters=0, log_samples=True)
    return [
        {
            "task": name,
            "question": sample["doc_id"],
            "prompt_sha256": sample["prompt_hash"],
            "prompt_cut": max(scorer.cut[arguments[0]] for arguments in sample["arguments"]),
            **(
                _written(sample)
                if built[name].OUTPUT_TYPE == "generate_until"
                else _chosen(sample, built[name])
            ),
        }
        for name, samples in results["samples"].items()
        for sample in samples
    ]


def _chosen(sample: Mapping[str, Any], task) -> dict[str, Any]:
    likelihoods = [float(response[0]) for response in sample["filtered_resps"]]
    options = task.doc_to_choice(sample["doc"])
    target = sample["target"]
    return {
        "options": options,
        "target": target if isinstance(target, int) else options.index(target),
        "choice": likelihoods.index(max(likelihoods)),
        "loglikelihoods": [round(x, 6) for x in likelihoods],
        "correct": int(sample["acc"]),
    }


def _written(sample: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "reference": sample["target"],
        "generated": sample["filtered_resps"][0],
        **{field: sample[metric] for metric, field in WRITTEN.items()},
    }


def summarise(questions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The number of questions, the task's metrics (means with lm-eval's closed-form standard error,
    the sample's standard deviation by the root of n), which of them is the headline, and the floor
    that a constant answer reaches; answers in words have none, as no answer is common to them.

    Raises ValueError where there are fewer than two questions.
    """
    n = len(questions)
    if n < 2:
        raise ValueError(f"tasks: {n} question(s) are too few for a standard error")
    written = "generated" in questions[0]
    metrics = WRITTEN if written else CHOSEN
    return {
        "n": n,
        "headline": next(iter(metrics)),
        "metrics": {m: _mean([q[field] for q in questions]) for m, field in metrics.items()},
        "floor": None if written else floor(questions),
    }


def _mean(values: Sequence[float]) -> dict[str, float]:
    stderr = statistics.stdev(values) / math.sqrt(len(values))
    return {"value": statistics.fmean(values), "stderr": stderr}


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
    # where only scores are wanted, equal experts are computed once
    model = experts.fold_duplicates(models.load_variant(merge, chain, deltas))
    if not chain:
        model.requires_grad_(False)  # nothing was trained, so nothing needs a float32 master
    model = models.place(model)
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
    headline, bottom = summary["metrics"][summary["headline"]], summary["floor"]
    said = f" (floor {bottom['value']:.4f})" if bottom else ""
    return (
        f"{params['name']} {headline['value']:.4f} ± {headline['stderr']:.4f} on {summary['n']} "
        f"questions{said}"
    )
