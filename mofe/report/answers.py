"""What models answered, question by question, as arms of a comparison.

Rows that are one function are one arm, so that it is never counted twice: at every seed they gave
the same answers to all questions, and their log-likelihoods differ by rounding alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mofe import clusters, records
from mofe.records import ChoiceAnswer, EvalRecord, WrittenAnswer
from mofe.report.stats import Answers
from mofe.study.tables import Cell, Row

# Nats. Equal experts are summed in another number and order, and training amplifies the rounding:
# to 6e-4 in the miniature, where another seed moves half of the log-likelihoods by more than 0.38.
ROUNDING = 1e-2
MANY_PARTS = 10  # a second look by a benchmark's parts, such as MMLU's subjects, needs so many


@dataclass(frozen=True)
class Evaluation:
    """One model's answers to one task.

    scores: in [0, 1], one per question. asked: the hash of every prompt. clusters, parts: per
    question, a number of what it asks and one of the benchmark's part that it is from. answers: the
    chosen option or the text. likelihoods: of all options in order, in nats; empty for free text.
    floor: the score of the best constant answer; None for free text.
    """

    file: str
    task: str
    scores: np.ndarray
    asked: tuple[str, ...]
    clusters: np.ndarray
    parts: np.ndarray
    answers: tuple[int | str, ...]
    likelihoods: np.ndarray
    stderr: float
    floor: float | None


def read(file: str, metric: str | None) -> Evaluation:
    """The answers beside an evaluation's JSON, scored by a metric; None is its headline.

    Raises ValueError where a file is not whole, and where the evaluation lacks the metric.
    """
    record = records.read(file, EvalRecord)
    shown = metric or record.headline
    if shown not in record.metrics:
        raise ValueError(f"{file}: has no {shown}, only {', '.join(record.metrics)}")
    beside = Path(file).with_name(record.questions)
    kind = ChoiceAnswer if record.headline == "acc" else WrittenAnswer
    answers = records.read_lines(beside, kind)
    if len(answers) != record.n:
        raise ValueError(f"{beside}: has {len(answers)} answers, {file} counts {record.n}")
    return Evaluation(
        file=file,
        task=record.task,
        scores=np.array([answer.score(shown) for answer in answers], dtype=float),
        asked=tuple(answer.prompt_sha256 for answer in answers),
        clusters=np.array(clusters.numbered([answer.cluster for answer in answers])),
        parts=np.array(clusters.numbered([answer.task for answer in answers])),
        answers=tuple(a.choice if kind is ChoiceAnswer else a.generated for a in answers),
        likelihoods=np.array(
            [x for a in answers for x in a.loglikelihoods] if kind is ChoiceAnswer else []
        ),
        stderr=record.metrics[shown].stderr,
        floor=record.floor.value if record.floor else None,
    )


@dataclass(frozen=True)
class Arms:
    """The arms of a claim. rows: the number of each row's arm, by its table and labels.
    evaluations: per arm and column, those of all its seeds. clusters, parts: per column, as in
    Evaluation."""

    arms: list[Answers]
    rows: dict[tuple[int | str, str], int]
    evaluations: list[dict[str, list[Evaluation]]]
    clusters: dict[str, np.ndarray]
    parts: dict[str, np.ndarray]

    @property
    def one_seed(self) -> bool:
        """Whether some arm has a single seed, which says nothing about others."""
        return any(arm.seeded and arm.seeds == 1 for arm in self.arms)

    @property
    def files(self) -> list[str]:
        """Every evaluation that was read, each once."""
        found = (e.file for arm in self.evaluations for es in arm.values() for e in es)
        return list(dict.fromkeys(found))


def arms(rows: Mapping[tuple[int | str, str], Row]) -> Arms:
    """The arms of some rows, by their cells that show a task's score.

    Raises ValueError where two rows answered different questions.
    """
    found: list[Answers] = []
    evaluations: list[dict[str, list[Evaluation]]] = []
    by_row: dict[tuple[int | str, str], int] = {}
    first: dict[str, Evaluation] = {}
    for name, row in rows.items():
        answered = {cell.column: _seeds(cell) for cell in row.cells if cell.kind == "task"}
        for column, seeds in answered.items():
            for evaluation in seeds:
                _must_be_asked_alike(first.setdefault(column, evaluation), evaluation)
        same = (n for n, other in enumerate(evaluations) if one_function(answered, other))
        if (number := next(same, None)) is None:
            number = len(found)
            scores = {c: np.stack([e.scores for e in seeds]) for c, seeds in answered.items()}
            found.append(Answers(scores, seeded=row.per_seed))
            evaluations.append(answered)
        by_row[name] = number
    return Arms(
        arms=found,
        rows=by_row,
        evaluations=evaluations,
        clusters={column: evaluation.clusters for column, evaluation in first.items()},
        parts={column: evaluation.parts for column, evaluation in first.items()},
    )


def one_function(
    one: Mapping[str, Sequence[Evaluation]], other: Mapping[str, Sequence[Evaluation]]
) -> bool:
    """Whether two rows answered alike, in every column and at every seed."""
    return one.keys() == other.keys() and all(
        len(one[column]) == len(other[column]) and all(map(_alike, one[column], other[column]))
        for column in one
    )


def _alike(one: Evaluation, other: Evaluation) -> bool:
    return (
        one.answers == other.answers
        and one.likelihoods.shape == other.likelihoods.shape
        and bool((np.abs(one.likelihoods - other.likelihoods) <= ROUNDING).all())
    )


def _seeds(cell: Cell) -> list[Evaluation]:
    return [read(file, cell.metric) for file in cell.files]


def _must_be_asked_alike(one: Evaluation, other: Evaluation) -> None:
    if one.asked != other.asked:
        raise ValueError(
            f"{one.file} and {other.file}: the questions differ (prompt_sha256), so their answers "
            "cannot be compared; delete both and evaluate again"
        )
