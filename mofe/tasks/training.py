"""The rows of a task's training set: those that can be used, those that training draws, and
questions from those that it leaves."""

import sys
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from lm_eval.api.task import ConfigurableTask

from mofe import tasks
from mofe.data import schema, sources, texts
from mofe.tasks import Reading, Rendered

HELD_OUT = tuple(b"held out")  # makes the stream of random numbers that held-out rows are drawn by
PUNCTUATION = {
    code: " " for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] == "P"
}


@dataclass(frozen=True)
class Usable:
    """A task's training set.

    readings: the documents that the task makes of the rows that may be trained on. rows: those of
    them that can be used, each prompt once. counts: what was dropped, by the keys of a TaskCounts.
    """

    readings: list[Reading]
    rows: list[Rendered]
    counts: dict[str, int]


def usable(params: Mapping[str, Any], cluster: str | None = None, key: str = "") -> Usable:
    """The rows of a training set that can be used. A prompt that occurs twice is used once, and a
    prompt that is in the task's test set is dropped. One that differs from such a prompt only in
    case, punctuation and white space is counted and stays: whether it asks the same is not certain.

    params: Plan.params.data. cluster, key: as in schema.clustered. Raises ValueError where a row
    does not fit the task's schema.
    """
    data, task, source = params["data"], params["task"], params["source"]
    rows = sources.load(source, data["subset"], data["split"], params["mirror"])
    rows = schema.clustered(rows, cluster, key, f"{source['repo']} ({data['split']})")
    complete = tasks.complete(task, rows)
    part = tasks.training_part(task, complete)
    with tasks.lm_evals_seeds():
        built = tasks.build(task)
        tested = {tasks.prompt(t, doc) for t in built.values() for doc in t.task_docs}
    with tasks.lm_evals_seeds():
        readings = tasks.readings(task, part)
    labelled = list(tasks.render(readings))
    distinct = list(reversed({row.prompt: row for row in reversed(labelled)}.values()))
    kept = [row for row in distinct if row.prompt not in tested]
    alike = {normalised(text) for text in tested} - {""}
    documents = sum(len(reading.docs) for reading in readings)
    counts = {
        "read": len(rows),
        "incomplete": len(rows) - len(complete),
        "held_out": len(complete) - len(part),
        "left_by_task": max(0, len(part) - documents),
        "made_by_task": max(0, documents - len(part)),
        "unlabelled": documents - len(labelled),
        "duplicate": len(labelled) - len(distinct),
        "also_in_test": len(distinct) - len(kept),
        "nearly_in_test": sum(normalised(row.prompt) in alike for row in kept),
    }
    return Usable(readings, kept, counts)


def normalised(text: str) -> str:
    """A text without differences of case, punctuation and white space; words are told apart by
    single spaces. Signs such as + and = stay, because they tell formulas apart."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(text.translate(PUNCTUATION).split())


def order(params: Mapping[str, Any], count: int) -> np.ndarray:
    """The numbers of `count` usable rows in the order in which training draws them. params:
    Plan.params.data."""
    return np.random.default_rng(params["seed"]).permutation(count)


def held_out(params: Mapping[str, Any]) -> dict[str, ConfigurableTask]:
    """The task object that asks rows of a training set which training does not draw, by its name in
    the study. Prompts are those of training rows: without examples and without a description.

    params: Plan.params.task of a task with `held_out`. Of multiple-choice rows, those with only one
    option are left out. Raises ValueError where fewer rows are left than are to be asked.
    """
    name, data, wanted = params["name"], params["held_out"]["data"], params["held_out"]["questions"]
    found = usable(data, params["cluster"], f"tasks.{name}.cluster")
    rows = data["data"]["rows"]
    drawn = rows if isinstance(rows, int) else len(found.rows)
    left = sorted(found.rows[i][:2] for i in order(data, len(found.rows))[drawn:])
    left = [(reading, n) for reading, n in left if _is_open(found.readings[reading], n)]
    if wanted > len(left):
        raise ValueError(
            f"tasks.{name}.questions: {wanted} are to be asked, but training on {drawn} of "
            f"{len(found.rows)} usable rows leaves {len(left)}; lower one of them"
        )
    random = np.random.default_rng([data["seed"], *HELD_OUT])
    asked = sorted(left[i] for i in random.permutation(len(left))[:wanted])
    built = {}
    for index, reading in enumerate(found.readings):
        if numbers := [number for where, number in asked if where == index]:
            called = name if len(found.readings) == 1 else reading.leaf
            docs = reading.docs.select(numbers)
            built[called] = tasks.reselected(data["task"], reading, docs, called)
    return built


@dataclass(frozen=True)
class HeldText:
    """A piece of raw text that is asked. number: among all pieces, each text once. document: the
    first row of the source that has it."""

    number: int
    document: int
    text: str


def held_out_texts(params: Mapping[str, Any]) -> list[HeldText]:
    """Pieces of a set of raw text that training does not draw.

    params: Plan.params.task of a task with `held_out`. Raises ValueError where fewer pieces are
    left than are to be asked.
    """
    name, data, wanted = params["name"], params["held_out"]["data"], params["held_out"]["questions"]
    found = texts.load(data)
    distinct, rows = found.distinct, data["data"]["rows"]
    count = rows if isinstance(rows, int) else len(distinct)
    left = sorted(order(data, len(distinct))[count:].tolist())
    if wanted > len(left):
        raise ValueError(
            f"tasks.{name}.questions: {wanted} are to be asked, but training on {count} of "
            f"{len(distinct)} usable texts leaves {len(left)}; lower one of them"
        )
    random = np.random.default_rng([data["seed"], *HELD_OUT])
    chosen = sorted(left[i] for i in random.permutation(len(left))[:wanted])
    documents = {text: document for document, text in reversed(found.pieces)}  # the first one's
    return [HeldText(number, documents[distinct[number]], distinct[number]) for number in chosen]


def _is_open(reading: Reading, number: int) -> bool:
    """Whether a document leaves something to choose, or is answered in words."""
    if reading.task.OUTPUT_TYPE != "multiple_choice":
        return True
    return len(reading.task.doc_to_choice(reading.docs[number])) > 1
