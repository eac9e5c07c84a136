"""Results of a study, to be compared (mofe/report/places.py)."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from mofe import records
from mofe.records import DenseTrainRecord, EvalRecord, Record, TrainRecord
from mofe.report import answers

_NOT_WHOLE = (OSError, EOFError, zlib.error, csv.Error, yaml.YAMLError)
_NOT_WHOLE += (ValueError, LookupError, TypeError, AttributeError)
TEXTS, NUMBERS = ("label", "column"), ("value", "seeds")  # of a table's frame, what is compared
CONFIG = "config.yaml"  # the merged configuration, in a results folder and in an archive


@dataclass(frozen=True)
class Head:
    """An evaluation without its answers. config_hash: of all that it was made from."""

    task: str
    seed: int
    headline: str
    config_hash: str


@dataclass(frozen=True)
class Answered:
    """An evaluation's answers, one per question: scores in [0, 1], what was asked, and a number of
    the cluster that the question is of."""

    scores: np.ndarray
    asked: tuple[str, ...]
    clusters: np.ndarray


@dataclass(frozen=True)
class Made:
    """What results were made by: each fact as all of its values that the records name."""

    revisions: tuple[str, ...]
    versions: Mapping[str, tuple[str, ...]]
    machines: tuple[str, ...]


@dataclass(frozen=True)
class Results:
    """Results of a study.

    evaluations: by the address of their JSON below the results folder. answered: reads an
    evaluation's answers, by its address and the metric (None is its headline); raises ValueError
    where they are not whole, or there is no such metric. tables: the tidy frame of each, by number
    as text. config: the merged configuration; None where it is not recorded.
    """

    name: str
    evaluations: Mapping[str, Head]
    answered: Callable[[str, str | None], Answered]
    tables: Mapping[str, pd.DataFrame]
    made: Made
    config: Mapping[str, Any] | None

    @property
    def seeds(self) -> set[int]:
        """All seeds of its evaluations."""
        return {head.seed for head in self.evaluations.values()}


def made_by(made: Iterable[Record]) -> Made:
    """What records were made by."""
    revisions, machines, versions = set(), set(), {}
    for record in made:
        revisions.add(record.git_revision)
        hardware = record.hardware
        machines.add(", ".join((f"{hardware.cpu}, {hardware.cores} cores", *hardware.gpus)))
        for name, version in record.versions.items():
            versions.setdefault(name, set()).add(version)
    return Made(
        revisions=tuple(sorted(revisions)),
        versions={name: tuple(sorted(found)) for name, found in versions.items()},
        machines=tuple(sorted(machines)),
    )


def of_folder(root: Path, name: str) -> Results:
    """The results of a study's results folder. Raises ValueError where a record is not whole."""
    found = {
        file.relative_to(root).as_posix(): records.read(file, EvalRecord)
        for file in sorted(root.glob("evals/*/*/s*/*.json"))
    }
    trained = trainings_in(root)

    def answered(address: str, metric: str | None) -> Answered:
        with missing_told():
            read = answers.read(str(root / address), metric)
        return Answered(read.scores, read.asked, read.clusters)

    config = root / CONFIG
    return Results(
        name=name,
        evaluations={
            address: Head(record.task, record.seed, record.headline, record.config_hash)
            for address, record in found.items()
        },
        answered=answered,
        tables=tables_in(root),
        made=made_by([*found.values(), *trained.values()]),
        config=configured(config) if config.is_file() else None,
    )


def trainings_in(root: Path) -> dict[str, TrainRecord | DenseTrainRecord]:
    """The records of a results folder's trainings, by their addresses below it."""
    files = sorted((*root.glob("experts/**/train.json"), *root.glob("variants/*/*/s*/train.json")))
    return {file.relative_to(root).as_posix(): records.read_training(file) for file in files}


def tables_in(folder: Path) -> dict[str, pd.DataFrame]:
    """The tidy frames of a folder's tables, by number. Raises ValueError where one is not whole."""
    found = {}
    for file in sorted(folder.glob("table*.csv")):
        with whole(file):
            # a row may be called 2, or None
            frame = pd.read_csv(
                file,
                dtype=dict.fromkeys(TEXTS, str),
                keep_default_na=False,
                na_values=dict.fromkeys(NUMBERS, ""),
            )
            found[file.stem.removeprefix("table")] = frame.astype(dict.fromkeys(NUMBERS, float))
    return found


def configured(file: Path) -> dict[str, Any]:
    """A merged configuration. Raises ValueError where the file is not whole."""
    with whole(file):
        return dict(yaml.safe_load(file.read_text()).items())


@contextmanager
def whole(file: Path) -> Iterator[None]:
    """What shows that a file is not whole becomes a ValueError of one sentence."""
    try:
        yield
    except _NOT_WHOLE as error:
        told = " ".join(str(error).split())
        raise ValueError(
            f"{file}: cannot be read ({type(error).__name__}: {told}); restore the file"
        ) from error


@contextmanager
def missing_told() -> Iterator[None]:
    """That a file is not there becomes a ValueError of one sentence."""
    try:
        yield
    except FileNotFoundError as error:
        raise ValueError(f"{error.filename} is not there") from error
