"""A page of a few questions, in which each token has the colours of its experts, layer by layer.

The questions are those that an evaluation asks, read by the model as an evaluation has it. The page
is one HTML file that needs neither a network nor JavaScript: radio buttons choose the layer, and
style sheets do the rest.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mofe.files import write_atomic
from mofe.layers import routers
from mofe.models import load
from mofe.records import AskedQuestion, RouterLayer
from mofe.stages import questions as asking
from mofe.stages.evaluate import AnswerScorer, ready, tokens_lost
from mofe.study.methods import parse
from mofe.study.setting import Setting
from mofe.templates import render

TEMPLATE = Path(__file__).with_name("tokens.html.jinja")
DRAWN = tuple(b"tokens")  # makes the stream of random numbers that questions are drawn by
# Okabe and Ito's colours, told apart by colour-blind readers too, with the ink that reads on them.
COLOURS = (
    *(("#E69F00", "#000000"), ("#56B4E9", "#000000"), ("#0072B2", "#ffffff")),
    *(("#F0E442", "#000000"), ("#009E73", "#000000"), ("#CC79A7", "#000000")),
    *(("#D55E00", "#000000"), ("#BBBBBB", "#000000")),
)


@dataclass(frozen=True)
class Slot:
    """An expert slot of every layer.

    number: from 0. expert: the dense model in it. colour, ink: its background, and what is written
    on it. striped: whether another slot has that colour without stripes.
    """

    number: int
    expert: str
    colour: str
    ink: str
    striped: bool

    @property
    def name(self) -> str:
        return f"{self.number} {self.expert}"


@dataclass(frozen=True)
class Choice:
    """An expert slot that a token chose in a layer, and its weight among those that it chose."""

    slot: int
    weight: float


@dataclass(frozen=True)
class Token:
    """A token: its text, whether it belongs to the answer, and what it chose in each layer, the
    largest weight first."""

    text: str
    of_answer: bool
    layers: tuple[tuple[Choice, ...], ...]


@dataclass(frozen=True)
class Question:
    """A question of a page. task, number: as lm-eval names it. cut: tokens of its beginning that
    the model has no room for."""

    task: str
    number: int
    tokens: tuple[Token, ...]
    cut: int


def show(
    *,
    merge: str,
    trained: Sequence[str],
    chain: Sequence[Mapping[str, Any]],
    asked: str,
    names: Mapping[str, str],
    slots: Sequence[str],
    drawn: Mapping[str, int],
    setting: Setting,
    out: Path,
) -> str:
    """Write the page of a variant on some of a task's questions.

    merge, trained, chain, asked: as in evaluate_variant. names: `moe`, `stages`, `seed` and `task`.
    slots: the dense model in each expert slot. drawn: how many `questions`, and the `seed` that
    they are drawn by. Returns a line for the user.
    """
    every = asking.read(asked)
    chosen = sample(len(every), drawn["questions"], drawn["seed"])
    tokenizer = load.tokenizer(merge)
    model = ready(merge, [parse(stage) for stage in chain], trained)
    found, layers = routed(model, tokenizer, [every[number] for number in chosen])
    page = render(
        TEMPLATE,
        filters={"shown": _shown, "hover": lambda token: _hover(token, slots)},
        names=names,
        slots=[_slot(number, expert) for number, expert in enumerate(slots)],
        questions=found,
        of=len(every),
        layers=layers,
        highest=max(share for layer in layers for share in layer.chosen),
        most=math.log(len(slots)),
        setting=setting,
    )
    write_atomic(out, page)
    return f"{len(found)} of {len(every)} questions, {sum(len(q.tokens) for q in found)} tokens"


def sample(count: int, wanted: int, seed: int) -> list[int]:
    """The numbers of the questions that are shown, in their order. A larger sample holds the
    smaller ones."""
    order = np.random.default_rng([seed, *DRAWN]).permutation(count)
    return sorted(order[:wanted].tolist())


@torch.inference_mode()
def routed(
    model, tokenizer, questions: Sequence[AskedQuestion]
) -> tuple[list[Question], tuple[RouterLayer, ...]]:
    """The questions with what each token chooses, and what each layer's router did with all of
    them. A multiple-choice question is read with its right answer, one in words without any."""
    scorer = AnswerScorer(model, tokenizer)
    decoder = scorer.model.model
    found_routers = routers.of(decoder)
    slots = found_routers[0].num_experts
    sums = routers.Sums(len(found_routers), slots, 1, scorer.device)
    found = []
    for question in questions:
        ids, start = _read(question)
        cut = tokens_lost(ids, scorer.room)
        ids, start = ids[cut:], start - cut
        choices: list[list[tuple[Choice, ...]]] = []

        def see(layer: int, logits, weights, index, choices=choices) -> None:
            sums.add(layer, logits, weights, index, torch.zeros_like(index[:, 0]))
            pairs = zip(index.tolist(), weights.tolist(), strict=True)
            choices.append([tuple(map(Choice, *pair)) for pair in pairs])

        with scorer.precision(), routers.seeing(found_routers, see):
            decoder(input_ids=torch.tensor([ids], device=scorer.device), use_cache=False)
        of_token = zip(_texts(tokenizer, ids), zip(*choices, strict=True), strict=True)
        read = tuple(Token(text, at >= start, of) for at, (text, of) in enumerate(of_token))
        found.append(Question(question.task, question.question, read, cut))
    return found, sums.described(sums.values.cpu())


def _read(question: AskedQuestion) -> tuple[list[int], int]:
    """The tokens that are shown of a question, and where its answer begins."""
    option = 0 if question.in_words else question.target
    return question.ids[option], question.starts[option]


def _texts(tokenizer, ids: Sequence[int]) -> Iterator[str]:
    """The text of each token behind the one before it: alone, some tokenizers drop its space."""
    before, known = [], ""
    for token in ids:
        both = tokenizer.decode([*before, token], clean_up_tokenization_spaces=False)
        yield both.removeprefix(known)
        before = [token]
        known = tokenizer.decode(before, clean_up_tokenization_spaces=False)


def _slot(number: int, expert: str) -> Slot:
    colour, ink = COLOURS[number % len(COLOURS)]
    return Slot(number, expert, colour, ink, striped=number >= len(COLOURS))


def _shown(text: str) -> str:
    """A token's text, so that each is seen: a sign for line breaks, and for no text at all."""
    return text.replace("\n", "↵\n") or "∅"


def _hover(token: Token, slots: Sequence[str]) -> str:
    """A line per layer: what the token chose, with weights."""
    lines = (
        f"{layer}: " + ", ".join(f"{c.slot} {slots[c.slot]} {c.weight:.2f}" for c in choices)
        for layer, choices in enumerate(token.layers)
    )
    return "\n".join(lines)
