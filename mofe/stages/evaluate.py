"""Evaluation: scores, standard errors, n and per-question records, equal to lm-eval's.

lm-eval makes the questions (mofe/stages/questions.py). `AnswerScorer` answers as lm-eval's own HFLM
does (tests/test_evaluate.py), but with one forward pass per prompt, whatever the number of its
options (mofe/layers/branches.py), and with logits only at the answers' positions. Free text is
greedy.
"""

import copy
import gzip
import json
import math
import os
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from lm_eval.models.utils import postprocess_generated_text
from torch import nn

from mofe import clusters, provenance, records, tasks
from mofe.estimate import memory
from mofe.files import write_atomic
from mofe.layers import domains, experts
from mofe.layers.branches import Tree, collate
from mofe.layers.positions import only_at
from mofe.models import decoding, devices, finite, load
from mofe.progress import Progress
from mofe.records import (
    AskedQuestion,
    ChoiceAnswer,
    Floor,
    Metric,
    Scores,
    TextAnswer,
    WrittenAnswer,
)
from mofe.stages import questions as asking
from mofe.study.methods import Method, parse
from mofe.study.shapes import WINDOWED, Shape
from mofe.training import tokens

Answer = ChoiceAnswer | WrittenAnswer | TextAnswer

# What each answer of a task scores; the first one is the task's headline. Of raw text, which is
# not answered, it is the perplexity of all.
WRITTEN = ("f1", "exact")
SCORES: dict[type[Answer], tuple[str, ...]] = {
    ChoiceAnswer: ("acc",),
    WrittenAnswer: WRITTEN,
    TextAnswer: (),
}


class AnswerScorer:
    """A causal language model that answers questions. Only free text needs its tokenizer."""

    def __init__(self, model: nn.Module, tokenizer=None):
        self.model = model.get_base_model() if hasattr(model, "get_base_model") else model
        self.model.eval()
        # Logits are float32, whatever was frozen: bfloat16 ones would have ties, which the first
        # option would win. The module computes them, because it may have an adapter.
        head = self.model.lm_head
        exact = all(parameter.dtype == torch.float32 for parameter in head.parameters())
        self.head = head if exact else copy.deepcopy(head).float()
        self.tokenizer = tokenizer

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @cached_property
    def room(self) -> int:
        """The largest number of tokens that the model reads."""
        return self.model.config.max_position_embeddings

    @property
    def window(self) -> int | None:
        """How many tokens attention looks back, the token itself among them; None for all. A Llama
        reads no such key."""
        config = self.model.config
        return config.sliding_window if config.model_type in WINDOWED else None

    @torch.inference_mode()
    def loglikelihoods(
        self, asked: Sequence[tuple[Sequence[int], int]], together: bool = True
    ) -> list[float]:
        """The log-likelihood in nats of each continuation.

        asked: pairs of the tokens of context and continuation, and where the continuation starts.
        Continuations of one context are read together, if `together`: in one sequence, which is too
        long for long texts that share only their first token. A context that is too long loses its
        beginning, as in HFLM. Raises ValueError for a continuation that leaves no room for a
        context, and where log-likelihoods are not finite.
        """
        asked = [self._fitted(ids, start) for ids, start in asked]
        # numbers by their context, and of those that are read alone by themselves
        sharing: dict[tuple[tuple[int, ...], int], list[int]] = defaultdict(list)
        for number, (ids, start) in enumerate(asked):
            sharing[tuple(ids[:start]), 0 if together else number].append(number)
        trees = [
            (Tree(context, [asked[n][0][len(context) :] for n in numbers]), numbers)
            for (context, _), numbers in sorted(sharing.items())
        ]
        trees.sort(key=lambda pair: len(pair[0]))
        scores = [math.nan] * len(asked)
        most = memory.QUESTION_TOKENS[self.device.type]
        with Progress(total=len(asked), unit="answers") as told:
            for batch in self._batches(trees, [len(tree) for tree, _ in trees], most):
                numbers = [number for _, own in batch for number in own]
                found = self._tree_scores([tree for tree, _ in batch])
                for number, score in zip(numbers, found, strict=True):
                    scores[number] = score
                told.update(len(numbers))
        if not all(map(math.isfinite, scores)):
            raise finite.NotFinite(_not_finite(self.model, "log-likelihoods"))
        return scores

    def _tree_scores(self, trees: Sequence[Tree]) -> list[float]:
        """The log-likelihood of each continuation, tree after tree, by one forward pass."""
        log_probs = self._logits(trees).log_softmax(-1)
        answers: list[list[tuple[int, int]]] = []  # per continuation: (row of log_probs, token)
        first = 0  # the tree's first row
        for tree in trees:
            for tokens_of, rows in zip(tree.continuations, tree.read, strict=True):
                answers.append([(first + r, t) for r, t in zip(rows, tokens_of, strict=True)])
            first += len(tree) - len(tree.context) + 1
        # one look-up for all continuations: on a GPU, each look-up would be waited for
        pairs = torch.tensor([pair for answer in answers for pair in answer])
        rows, targets = pairs.T.to(log_probs.device)
        parts = log_probs[rows, targets].cpu().split([len(answer) for answer in answers])
        return [part.sum().item() for part in parts]

    def _fitted(self, ids: Sequence[int], start: int) -> tuple[Sequence[int], int]:
        """Tokens and start without what does not fit into the model."""
        cut = tokens_lost(ids, self.room + 1)  # the last token is not read
        if cut >= start:
            raise ValueError(
                f"tasks: an answer of {len(ids) - start} tokens leaves the model's {self.room} "
                "no room for a question"
            )
        return ids[cut:], start - cut

    def _logits(self, trees: Sequence[Tree]) -> torch.Tensor:
        """The float32 logits (positions, vocabulary) of each tree from its context's last token on,
        tree after tree."""
        inputs, read = collate(trees, self.device, self.window)
        with self.precision(), only_at(self.model.model, read):
            hidden = self.model.model(**inputs, use_cache=False).last_hidden_state
        return self.head(hidden[read].float())

    def _batches(self, items: Sequence[Any], lengths: Sequence[int], most: int) -> list[list[Any]]:
        """The items in batches of `most` tokens. lengths: their numbers of tokens, by which they
        are sorted."""
        starting = tokens.STARTING[self.device.type]
        batches = tokens.micro_batches(range(len(items)), lengths, most, starting)
        return [[items[i] for i in batch] for batch in batches]

    def precision(self) -> torch.autocast:
        return torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda")

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Sequence[int]], stops: Sequence[str], length: int
    ) -> list[str]:
        """The greedy continuation of every prompt (token ids), until a stop string, the end of text
        or `length` tokens.

        A prompt that leaves no room for `length` more tokens loses its beginning, as in HFLM.
        Raises ValueError where `length` leaves no room for any prompt, and for logits that are not
        finite.
        """
        if length >= self.room:
            raise ValueError(
                f"tasks: an answer of {length} tokens (max_gen_toks) leaves the model's "
                f"{self.room} no room for a question; lower it"
            )
        sharing: dict[tuple[int, ...], list[int]] = defaultdict(list)  # numbers by their prompt
        for number, ids in enumerate(prompts):
            sharing[tuple(ids[tokens_lost(ids, self.room - length) :])].append(number)
        texts = [""] * len(prompts)
        distinct = sorted(sharing, key=len)
        shape = Shape.of(self.model.config.to_dict())
        together = memory.decoded_tokens(shape, self.device.type == "cpu")
        lengths = [len(ids) + length for ids in distinct]
        with Progress(total=len(prompts), unit="texts") as told:
            for batch in self._batches(distinct, lengths, together):
                for ids, text in zip(batch, self._continue(batch, stops, length), strict=True):
                    for number in sharing[ids]:
                        texts[number] = text
                    told.update(len(sharing[ids]))
        return texts

    @property
    def _ends(self) -> list[int]:
        """The tokens that end a text: the tokenizer's, and those of generation_config.json. HFLM
        stops at the latter, because `generate` does."""
        known = self.model.generation_config.eos_token_id
        known = known if isinstance(known, list) else [known]
        return sorted({*known, self.tokenizer.eos_token_id} - {None})

    def _continue(
        self, batch: Sequence[tuple[int, ...]], stops: Sequence[str], length: int
    ) -> list[str]:
        """The texts that follow the prompts."""
        ends = set(self._ends)
        # a token is at least one byte, so a stop string begins in so many tokens before its end
        tail = max((len(stop.encode()) for stop in stops), default=0) + decoding.REPLAYED
        over = [False] * len(batch)

        def is_over(texts: list[list[int]]) -> bool:
            recent = self.tokenizer.batch_decode([text[-tail:] for text in texts])
            for number, (text, words) in enumerate(zip(texts, recent, strict=True)):
                ended = not ends.isdisjoint(text[-decoding.REPLAYED :])
                over[number] |= ended or any(stop in words for stop in stops)
            return all(over)

        try:
            with self.precision():
                pad = self.tokenizer.pad_token_id
                at_once = max(1, memory.QUESTION_TOKENS[self.device.type] // len(batch))
                found = decoding.greedy(
                    *(self.model.model, self._next, batch, length, pad, is_over),
                    at_once=at_once,
                    window=self.window,
                )
        except finite.NotFinite as error:
            raise finite.NotFinite(_not_finite(self.model, str(error))) from None
        until = [next((n + 1 for n, t in enumerate(text) if t in ends), None) for text in found]
        found = [text[:end] for text, end in zip(found, until, strict=True)]
        texts = self.tokenizer.batch_decode(found, skip_special_tokens=True)
        return [postprocess_generated_text(text, list(stops), None) for text in texts]

    def _next(self, hidden: torch.Tensor) -> torch.Tensor:
        """The float32 logits of hidden states, whatever precision the layers have."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.head(hidden.float())


def _not_finite(model: nn.Module, what: str) -> str:
    """Why a model's answers are not numbers."""
    why = finite.fault(model.state_dict().items())
    why = why or "its weights are finite, so they overflow when they are multiplied"
    return f"tasks: the model's {what} are not finite numbers: {why}; train or get the model again"


def tokens_lost(ids: Sequence[int], most: int) -> int:
    """How many of its first tokens a sequence loses if at most `most` tokens are read."""
    return max(0, len(ids) - most)


def score(
    model: nn.Module,
    tokenizer,
    questions: Sequence[AskedQuestion],
    params: Mapping[str, Any],
) -> list[Answer]:
    """The answer to every question of a task, with its scores.

    questions: built by mofe.stages.questions with `params` (Plan.params.task). tokenizer: only free
    text needs it.
    """
    scorer = AnswerScorer(model, tokenizer)
    if questions[0].in_words:
        return list(_written(scorer, questions, tasks.answer_scores(params)))
    return list((_read if questions[0].is_text else _chosen)(scorer, questions))


def _chosen(scorer: AnswerScorer, questions: Sequence[AskedQuestion]) -> Iterator[ChoiceAnswer]:
    asked = [pair for question in questions for pair in _pairs(question)]
    scores = iter(scorer.loglikelihoods(asked))
    for question in questions:
        likelihoods = [next(scores) for _ in question.options]
        choice = likelihoods.index(max(likelihoods))
        yield ChoiceAnswer(
            task=question.task,
            question=question.question,
            prompt_sha256=question.prompt_sha256,
            cluster=question.cluster,
            prompt_cut=max(tokens_lost(ids, scorer.room + 1) for ids in question.ids),
            options=question.options,
            target=question.target,
            choice=choice,
            loglikelihoods=[round(x, 6) for x in likelihoods],
            correct=int(choice == question.target),
            tokens=len(question.ids[question.target]) - question.starts[question.target],
        )


def _read(scorer: AnswerScorer, questions: Sequence[AskedQuestion]) -> Iterator[TextAnswer]:
    asked = [pair for question in questions for pair in _pairs(question)]
    scores = iter(scorer.loglikelihoods(asked, together=False))
    for question in questions:
        yield TextAnswer(
            task=question.task,
            question=question.question,
            prompt_sha256=question.prompt_sha256,
            cluster=question.cluster,
            prompt_cut=0,
            loglikelihood=round(math.fsum(next(scores) for _ in question.ids), 6),
            tokens=sum(len(ids) - start for ids, start in _pairs(question)),
        )


def _pairs(question: AskedQuestion) -> list[tuple[list[int], int]]:
    """The sequences of tokens of a question, and where what is scored begins in each."""
    return list(zip(question.ids, question.starts, strict=True))


def _written(
    scorer: AnswerScorer, questions: Sequence[AskedQuestion], scores
) -> Iterator[WrittenAnswer]:
    alike: dict[tuple[tuple[str, ...], int], list[int]] = defaultdict(list)
    for number, question in enumerate(questions):
        alike[question.stops, question.most].append(number)
    texts = [""] * len(questions)
    for (stops, most), numbers in alike.items():
        prompts = [questions[number].ids[0] for number in numbers]
        for number, text in zip(numbers, scorer.generate(prompts, stops, most), strict=True):
            texts[number] = text
    for question, text in zip(questions, texts, strict=True):
        scored = scores[question.task](json.loads(question.row), [text])
        yield WrittenAnswer(
            task=question.task,
            question=question.question,
            prompt_sha256=question.prompt_sha256,
            cluster=question.cluster,
            prompt_cut=tokens_lost(question.ids[0], scorer.room - question.most),
            reference=question.reference,
            generated=text,
            **{metric: scored[metric] for metric in WRITTEN},
        )


def summarise(answers: Sequence[Answer], has_norm: bool = False) -> Scores:
    """The number of answers n, the task's metrics, which of them is the headline, and the floor.
    has_norm: whether `acc_norm` is one of the metrics.

    A metric is a mean with its standard error by cluster. Where no questions are alike, that is
    lm-eval's closed form. The floor is what the best constant answer reaches; free text has none,
    because its questions have no answer in common. Raises ValueError where there are fewer than two
    questions, or where all are of one cluster.
    """
    n = len(answers)
    if n < 2:
        raise ValueError(f"tasks: {n} question(s) are too few for a standard error")
    chosen = isinstance(answers[0], ChoiceAnswer)
    names = SCORES[type(answers[0])] + (("acc_norm",) if has_norm else ())
    scored = {metric: [answer.score(metric) for answer in answers] for metric in names}
    alike = clusters.numbered([answer.cluster for answer in answers])
    if (count := len(set(alike))) < 2:
        raise ValueError(
            f"tasks: all {n} questions have the cluster {answers[0].cluster!r}, so there is no "
            "standard error; let 'cluster' name another column, or leave it out"
        )
    metrics = {
        metric: Metric(
            value=statistics.fmean(values), stderr=clusters.standard_error(values, alike)
        )
        for metric, values in scored.items()
    }
    if chosen:
        metrics |= _of_likelihoods(answers, alike)
    elif not names:
        metrics = _of_texts(answers, alike)
    return Scores(
        n=n,
        clusters=count,
        headline=next(iter(metrics)),
        metrics=metrics,
        floor=floor(answers) if chosen else None,
        prompts_cut=sum(answer.prompt_cut > 0 for answer in answers),
    )


def _of_likelihoods(answers: Sequence[ChoiceAnswer], alike: Sequence[int]) -> dict[str, Metric]:
    """What the log-likelihoods of options say beside the accuracy. alike: the clusters."""
    entropies = [answer.score("entropy") for answer in answers]
    found = {
        "entropy": Metric(
            value=statistics.fmean(entropies), stderr=clusters.standard_error(entropies, alike)
        )
    }
    lengths = [answer.tokens for answer in answers]
    if None not in lengths:
        nats = [-answer.loglikelihoods[answer.target] for answer in answers]
        found |= perplexity(nats, lengths, alike)
    return found


def _of_texts(answers: Sequence[TextAnswer], alike: Sequence[int]) -> dict[str, Metric]:
    """The perplexity of raw text. Raises NotFinite where it is too large for a number."""
    nats, lengths = [-a.loglikelihood for a in answers], [a.tokens for a in answers]
    if found := perplexity(nats, lengths, alike):
        return found
    raise finite.NotFinite(
        "tasks: the model's perplexity is above 1e300, so it knows nothing of the text; train or "
        "get the model again"
    )


def perplexity(
    nats: Sequence[float], lengths: Sequence[int], alike: Sequence[int]
) -> dict[str, Metric]:
    """The perplexity per token of texts; none where it is above 1e300.

    nats: the negative log-likelihood of each text; lengths: its tokens; alike: its cluster. The
    perplexity is e to the power of a ratio of two sums. The ratio's standard error is that of a
    mean of its linearised parts, and the power's is the ratio's times the perplexity (the delta
    method).
    """
    per_token, mean_length = math.fsum(nats) / sum(lengths), statistics.fmean(lengths)
    if per_token > math.log(1e300):
        return {}
    parts = [(x - per_token * n) / mean_length for x, n in zip(nats, lengths, strict=True)]
    value = math.exp(per_token)
    stderr = value * clusters.standard_error(parts, alike)
    return {"perplexity": Metric(value=value, stderr=stderr)}


def floor(answers: Sequence[ChoiceAnswer]) -> Floor:
    """The share of questions that the best constant answer gets right.

    Where questions share closed sets of options (on average at least 20 questions per set), it is
    the commonest label of each set. Where each question has its own options, it is the best
    position.
    """
    sets = Counter(answer.options for answer in answers)
    closed = len(answers) >= 20 * len(sets)
    right = Counter((answer.options if closed else (), answer.target) for answer in answers)
    best: Counter = Counter()
    for (options, _), count in right.items():
        best[options] = max(best[options], count)
    how = "the commonest label of each set of options" if closed else "always the same position"
    return Floor(value=sum(best.values()) / len(answers), how=how)


def ready(merge: str, chain: Sequence[Method], trained: Sequence[str | Path]) -> nn.Module:
    """A variant on its device, with its equal experts held and computed once; arguments as in
    load.variant."""
    return devices.to_device(experts.fold_duplicates(load.variant(merge, chain, trained)))


_kept: dict[tuple, nn.Module] = {}  # the model that was loaded last, by what it was loaded from


def _ready(merge: str, chain: Sequence[Mapping[str, Any]], trained: Sequence[str]) -> nn.Module:
    """As `ready`; the model of the task before, where it is the same, as in a job for all tasks of
    a model (mofe/jobs/warm.py). Nothing that asks a model changes it."""
    files = [(file, os.stat(file).st_ino, os.stat(file).st_mtime_ns) for file in (merge, *trained)]
    key = (json.dumps(list(chain), sort_keys=True), *files)
    if key not in _kept:
        _kept.clear()  # before the next one needs its room
        _kept[key] = ready(merge, [parse(stage) for stage in chain], trained)
    return _kept[key]


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
    config_hash: str | None = None,
) -> str:
    """Evaluate a variant on one task; write its JSON and, compressed, its questions with the
    answers.

    merge, trained, chain as in train_variant; asked: the file of the questions
    (mofe.stages.questions), which were made with `params` (Plan.params.task); names: `moe`,
    `stages` and `seed`, for the record. config_hash: of all that the answers depend on
    (mofe.study.identity); without one, that of these parameters. Returns a line for the user.
    """
    started = time.perf_counter()
    built = asking.read(asked)
    tokenizer = load.tokenizer(merge) if built[0].in_words else None  # loading one takes a while
    model = _ready(merge, chain, trained)
    domains.tell(model, params.get("domain"))
    answered = score(model, tokenizer, built, params)
    lines = "".join(map(records.line, answered))
    # no time stamp in the header: equal records are equal files
    write_atomic(questions, gzip.compress(lines.encode(), mtime=0))
    scores, sample = summarise(answered, asking.has_norm(asked)), asking.sample(asked, built)
    result = records.EvalRecord(
        task=params["name"],
        **names,
        **dict(scores),
        held_out=params["held_out"]["set"] if "held_out" in params else None,
        sample_of=sample.of if sample else None,
        sample_seed=sample.seed if sample else None,
        sample_sha256=sample.sha256 if sample else None,
        questions=questions.name,
        seconds=time.perf_counter() - started,
        config_hash=config_hash
        or provenance.hash_config({**names, "chain": list(chain), "task": dict(params)}),
        **provenance.stamp(),
    )
    records.write(record, result)
    return _line(result)


def _line(found: records.EvalRecord) -> str:
    """What the user is told of an evaluation."""
    shown = found.metrics[found.headline]
    said = f"{found.task} {shown.value:.4f} ± {shown.stderr:.4f} on {found.n} questions"
    if found.sample_of:
        said += f" of {found.sample_of} (a sample)"
    if found.floor:
        said += f" (floor {found.floor.value:.4f})"
    if found.prompts_cut:
        said += (
            f"; {found.prompts_cut} prompts were longer than the model reads, and lost their "
            "beginning"
        )
    return said
