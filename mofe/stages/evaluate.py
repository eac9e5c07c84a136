"""Evaluation: scores, standard errors, n and per-question records, equal to lm-eval's.

lm-eval makes the questions (mofe/stages/questions.py), `AnswerScorer` answers as lm-eval's own HFLM does
(tests/test_evaluate.py): log-likelihoods are got with one forward pass a prompt, whatever its options
(mofe/layers/branches.py), and logits at the answers' positions only; answers in words are greedy.
"""

import gzip
import itertools
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
from lm_eval.models.utils import postprocess_generated_text
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import LogitsProcessor, StoppingCriteria

from mofe import provenance, tasks
from mofe.estimate import memory
from mofe.files import write_atomic
from mofe.layers import experts
from mofe.layers.branches import Tree, collate
from mofe.layers.positions import only_at
from mofe.models import devices, load
from mofe.stages import questions as asking
from mofe.training import tokens

# A task's metrics by what they are the mean of in a question's record; the first is its headline.
CHOSEN = {"acc": "correct"}
WRITTEN = {"f1": "f1", "exact": "exact"}


class AnswerScorer:
    """What a causal language model answers. Only answers in words need its tokenizer."""

    def __init__(self, model: nn.Module, tokenizer=None):
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.model.eval()
        # Logits are float32 whatever was frozen: between bfloat16 ones there would be ties, and the
        # first option would win them.
        self.head = self.model.lm_head.weight.detach().float()
        self.tokenizer = tokenizer

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def room(self) -> int:
        """The most tokens that the model reads."""
        return self.model.config.max_position_embeddings

    @torch.inference_mode()
    def loglikelihoods(self, asked: Sequence[tuple[Sequence[int], int]]) -> list[float]:
        """The log-likelihood in nats of each continuation.

        asked: (tokens of context and continuation, where that starts). A context that leaves no room
        loses its beginning, as in HFLM. Raises ValueError for a continuation that leaves no room for a
        context, and where the model's answers are not finite.
        """
        asked = [self._fitted(ids, start) for ids, start in asked]
        alike: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number, (ids, start) in enumerate(asked):
            alike[tuple(ids[:start])].append(number)
        trees = [
            (Tree(context, [asked[n][0][len(context) :] for n in numbers]), numbers)
            for context, numbers in sorted(alike.items())
        ]
        trees.sort(key=lambda it: len(it[0]))
        scores = [math.nan] * len(asked)
        for batch in self._batches(trees, [len(tree) for tree, _ in trees]):
            logs = self._read([tree for tree, _ in batch]).log_softmax(-1)
            places, targets, lengths, offset = [], [], [], 0
            for tree, _ in batch:
                for continuation, where in zip(tree.continuations, tree.read, strict=True):
                    places += [offset + place for place in where]
                    targets += continuation
                    lengths.append(len(continuation))
                offset += len(tree) - len(tree.context) + 1
            # all options at once: from a GPU, each would be waited for
            at, target = torch.tensor([places, targets], device=logs.device)
            parts = logs[at, target].cpu().split(lengths)
            numbers = itertools.chain.from_iterable(numbers for _, numbers in batch)
            for number, likely in zip(numbers, parts, strict=True):
                scores[number] = likely.sum().item()
        if not all(map(math.isfinite, scores)):
            raise ValueError("tasks: the model's log-likelihoods are not finite numbers")
        return scores

    def _fitted(self, ids: Sequence[int], start: int) -> tuple[Sequence[int], int]:
        cut = lost(ids, self.room + 1)  # the last token is not read
        if cut >= start:
            raise ValueError(
                f"tasks: an answer of {len(ids) - start} tokens leaves the model's {self.room} no room "
                "for a question"
            )
        return ids[cut:], start - cut

    def _read(self, trees: Sequence[Tree]) -> torch.Tensor:
        """The logits (positions, vocabulary), float32, of each tree from its context's last token on, one
        tree after the other."""
        inputs, read = collate(trees, self.device)
        with self._precision(), only_at(self.model.model, read):
            hidden = self.model.model(**inputs, use_cache=False).last_hidden_state
        return F.linear(hidden[read].float(), self.head)

    def _batches(self, items: Sequence[Any], lengths: Sequence[int]) -> list[list[Any]]:
        """The items, of so many tokens each and sorted by that, in batches."""
        kind = self.device.type
        most, start = memory.QUESTION_TOKENS[kind], tokens.STARTING[kind]
        cut = tokens.micro_batches(range(len(items)), lengths, most, start)
        return [[items[i] for i in batch] for batch in cut]

    def _precision(self) -> torch.autocast:
        return torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda")

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Sequence[int]], stops: Sequence[str], length: int
    ) -> list[str]:
        """The greedy continuation of every prompt, in tokens, up to a stop string, the end of text or
        `length` more tokens.

        A prompt that leaves no room for an answer of that many loses its beginning, as in HFLM.
        Raises ValueError where none has room, and for scores that are not finite.
        """
        if length >= self.room:
            raise ValueError(
                f"tasks: an answer of {length} tokens (max_gen_toks) leaves the model's {self.room} no "
                "room for a question; lower it"
            )
        where: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for number, ids in enumerate(prompts):
            where[tuple(ids[lost(ids, self.room - length) :])].append(number)
        texts = [""] * len(prompts)
        sequences = sorted(where, key=len)
        for batch in self._batches(sequences, [len(it) + length for it in sequences]):
            for ids, text in zip(batch, self._continue(batch, stops, length), strict=True):
                for number in where[ids]:
                    texts[number] = text
        return texts

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


def lost(ids: Sequence[int], most: int) -> int:
    """How many of its first tokens a sequence loses where `most` are read."""
    return max(0, len(ids) - most)


def score(
    model: nn.Module,
    tokenizer,
    questions: Sequence[Mapping[str, Any]],
    params: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Every question of a task as it was asked, and the answer with its scores.

    questions: those that mofe.stages.questions built with `params`, Plan.params.task. tokenizer: needed where
    answers are in words.
    Of a choice the options' log-likelihoods, the target's index, the model's choice and whether it
    is correct, as lm-eval's `acc` has it; of an answer in words the reference, what was generated and
    the task's scores of it.
    """
    scorer = AnswerScorer(model, tokenizer)
    if in_words(questions):
        answers = _written(scorer, questions, tasks.answer_scores(params))
    else:
        answers = _chosen(scorer, questions)
    told = ("task", "question", "prompt_sha256")
    return [
        {**{key: question[key] for key in told}, **answer}
        for question, answer in zip(questions, answers, strict=True)
    ]


def in_words(questions: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a task's answers are in words, not chosen."""
    return questions[0]["options"] is None


def _chosen(scorer: AnswerScorer, questions: Sequence[Mapping[str, Any]]):
    asked = [pair for it in questions for pair in zip(it["ids"], it["starts"], strict=True)]
    scores = iter(scorer.loglikelihoods(asked))
    for it in questions:
        likelihoods = [next(scores) for _ in it["options"]]
        choice = likelihoods.index(max(likelihoods))
        yield {
            "prompt_cut": max(lost(ids, scorer.room + 1) for ids in it["ids"]),
            "options": it["options"],
            "target": it["target"],
            "choice": choice,
            "loglikelihoods": [round(x, 6) for x in likelihoods],
            "correct": int(choice == it["target"]),
        }


def _written(scorer: AnswerScorer, questions: Sequence[Mapping[str, Any]], scores):
    alike: dict[tuple[tuple[str, ...], int], list[int]] = defaultdict(list)
    for number, it in enumerate(questions):
        alike[tuple(it["stops"]), it["most"]].append(number)
    texts = [""] * len(questions)
    for (stops, most), numbers in alike.items():
        prompts = [questions[number]["ids"][0] for number in numbers]
        for number, text in zip(numbers, scorer.generate(prompts, stops, most), strict=True):
            texts[number] = text
    for it, text in zip(questions, texts, strict=True):
        scored = scores[it["task"]](json.loads(it["row"]), [text])
        yield {
            "prompt_cut": lost(it["ids"][0], scorer.room - it["most"]),
            "reference": it["reference"],
            "generated": text,
            **{field: scored[metric] for metric, field in WRITTEN.items()},
        }


def normed(question: Mapping[str, Any]) -> int:
    """1 where the target is the likeliest option by its log-likelihood per character, else 0:
    lm-eval's `acc_norm`."""
    pairs = zip(question["loglikelihoods"], question["options"], strict=True)
    likelihoods = [likely / len(option) if option else -math.inf for likely, option in pairs]
    return int(likelihoods.index(max(likelihoods)) == question["target"])


def summarise(questions: Sequence[Mapping[str, Any]], has_norm: bool = False) -> dict[str, Any]:
    """The number of questions, the task's metrics (means with lm-eval's closed-form standard error,
    the sample's standard deviation by the root of n), which of them is the headline, and the floor
    that a constant answer reaches; answers in words have none, as no answer is common to them.
    has_norm: whether `acc_norm` is one of the metrics.

    Raises ValueError where there are fewer than two questions.
    """
    n = len(questions)
    if n < 2:
        raise ValueError(f"tasks: {n} question(s) are too few for a standard error")
    written = "generated" in questions[0]
    fields = WRITTEN if written else CHOSEN
    metrics = {m: _mean([q[field] for q in questions]) for m, field in fields.items()}
    if has_norm:
        metrics["acc_norm"] = _mean([normed(q) for q in questions])
    return {
        "n": n,
        "headline": next(iter(metrics)),
        "metrics": metrics,
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


def ready(
    merge: str, chain: Sequence[Mapping[str, Any]], trained: Sequence[str | Path]
) -> nn.Module:
    """A variant on its device, its equal experts held and computed once; arguments as in
    models.load_variant."""
    model = load.variant(merge, chain, trained)
    if not chain:
        model.requires_grad_(False)  # nothing was trained, so nothing needs a float32 master
    return devices.place(experts.fold_duplicates(model))


def evaluate_variant(
    *,
    merge: str,
    trained: Sequence[str],
    chain: Sequence[Mapping[str, Any]],
    asked: str,
    params: Mapping[str, Any],
    names: Mapping[str, Any],
    record: Path,
    questions: Path,
) -> str:
    """Evaluate a variant on one task; write its JSON and, compressed, its questions with the answers.

    merge, trained, chain as in train_variant; asked: the file of the questions (mofe.stages.questions), which
    were made with `params` (Plan.params.task); names: of merge, stages and seed, for the record.
    Returns a line for the user.
    """
    started = time.perf_counter()
    built = asking.read(asked)
    tokenizer = load.tokenizer(merge) if in_words(built) else None  # loading one takes a while
    answered = score(ready(merge, chain, trained), tokenizer, built, params)
    lines = "".join(json.dumps(q) + "\n" for q in answered)
    # no time stamp in the header: equal records are equal files
    write_atomic(questions, gzip.compress(lines.encode(), mtime=0))
    summary = summarise(answered, asking.has_norm(asked))
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
