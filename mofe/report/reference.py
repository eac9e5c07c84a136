"""The committed results of the miniature (docs/reference), to compare one's own with.

They are a study's tables, verdicts and answers in the least space: of an evaluation which
questions were answered rightly, of a question its hash and its cluster. Weights, texts and
log-likelihoods are left out.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from mofe.files import write_atomic
from mofe.metrics import METRICS
from mofe.report.results import (
    CONFIG,
    Answered,
    Head,
    Made,
    Results,
    configured,
    tables_in,
    trainings_in,
    whole,
)
from mofe.study.identity import Identities
from mofe.study.load import dumped

ANSWERS, QUESTIONS, MADE = "answers.csv.gz", "questions.csv.gz", "made.json"
TRAININGS = "trainings.csv"
ID = 16  # hexadecimal digits of a question's hash that are kept
_ANSWERS = ("evaluation", "task", "seed", "metric", "config_hash", "right")
_QUESTIONS = ("task", "question", "prompt_sha256", "cluster")
_TRAINED = ("recipe", "seed", "trainable_parameters", "learning_rate", "steps", "tokens")
_TRAINED += ("final_loss", "cpu_seconds", "seconds", "config_hash")


def write(results: Results, root: Path, config: Mapping[str, Any], out: Path) -> None:
    """Write results to the folder `out`, in the place of what is there.

    results: of the results folder `root`, whose tables and claims.csv are copied. config: the
    merged configuration that they were made with.

    Raises ValueError where a score is neither 0 nor 1, and where two evaluations of one task asked
    different questions.
    """
    asked: dict[str, Answered] = {}
    lines = []
    for address, head in results.evaluations.items():
        if not METRICS[head.headline].is_share:
            continue  # raw text has no answers; its perplexity is in the tables
        found = results.answered(address, None)
        if not np.isin(found.scores, (0, 1)).all():
            raise ValueError(f"{address}: its answers are neither right nor wrong throughout")
        if asked.setdefault(head.task, found).asked != found.asked:
            raise ValueError(f"{address}: asks other questions than others of {head.task}")
        right = "".join(map(str, found.scores.astype(int)))
        lines.append((address, head.task, head.seed, head.headline, head.config_hash, right))
    questions = [
        (task, number, sha256[:ID], cluster)
        for task, found in asked.items()
        for number, (sha256, cluster) in enumerate(zip(found.asked, found.clusters, strict=True))
    ]
    out.mkdir(parents=True, exist_ok=True)
    for old in (*out.glob("table*.csv"), *out.glob("claims.csv")):
        old.unlink()
    for file in (*root.glob("table*.csv"), root / "claims.csv"):
        shutil.copyfile(file, out / file.name)
    write_atomic(out / ANSWERS, _packed(_ANSWERS, lines))
    write_atomic(out / QUESTIONS, _packed(_QUESTIONS, questions))
    trained = [
        {"training": address, **{key: getattr(record, key) for key in _TRAINED}}
        for address, record in trainings_in(root).items()
    ]
    write_atomic(out / TRAININGS, pd.DataFrame(trained).to_csv(index=False, lineterminator="\n"))
    write_atomic(out / MADE, json.dumps(asdict(results.made), indent=2) + "\n")
    write_atomic(out / CONFIG, dumped(config))


def is_one(folder: Path) -> bool:
    """Whether a folder is such a one, or what is left of one."""
    return any((folder / name).exists() for name in (ANSWERS, QUESTIONS, TRAININGS))


def read(folder: Path, name: str) -> Results:
    """The results in such a folder. Raises ValueError where a file is not whole."""
    asked: dict[str, list[str]] = {}
    clusters: dict[str, list[int]] = {}
    with whole(folder / QUESTIONS):
        for line in _lines(folder / QUESTIONS, _QUESTIONS):
            asked.setdefault(line["task"], []).append(line["prompt_sha256"])
            clusters.setdefault(line["task"], []).append(int(line["cluster"]))
    with whole(folder / ANSWERS):
        lines = {line["evaluation"]: line for line in _lines(folder / ANSWERS, _ANSWERS)}
        evaluations = {
            address: Head(line["task"], int(line["seed"]), line["metric"], line["config_hash"])
            for address, line in lines.items()
        }
        for address, line in lines.items():
            if {*line["right"]} - {*"01"} or len(line["right"]) != len(asked.get(line["task"], ())):
                raise ValueError(f"{address} does not fit to {QUESTIONS}")

    def answered(address: str, metric: str | None) -> Answered:
        line = lines[address]
        task, right = line["task"], line["right"]
        if metric not in (None, line["metric"]):
            raise ValueError(f"{name}: has {line['metric']} of {address}, and not {metric}")
        scores = np.array([int(score) for score in right], dtype=float)
        return Answered(scores, tuple(asked[task]), np.array(clusters[task]))

    with whole(folder / MADE):
        made = json.loads((folder / MADE).read_text())
        made_by = Made(
            revisions=tuple(made["revisions"]),
            versions={package: tuple(found) for package, found in made["versions"].items()},
            machines=tuple(made["machines"]),
        )
    return Results(
        name=name,
        evaluations=evaluations,
        answered=answered,
        tables=tables_in(folder),
        made=made_by,
        config=configured(folder / CONFIG),
    )


def stale(results: Results, identities: Identities) -> list[str]:
    """The evaluations that a study makes with other settings, or not at all, by their addresses."""
    root = identities.graph.plan.root
    return [
        address
        for address, head in results.evaluations.items()
        if not (job := identities.makers.get(f"{root}/{address}"))
        or identities.of(job.rule, job.wildcards) != head.config_hash
    ]


def _packed(heads: Iterable[str], lines: Iterable[Iterable[Any]]) -> bytes:
    """Lines as compressed CSV; equal lines give equal bytes."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([tuple(heads), *lines])
    return gzip.compress(text.getvalue().encode(), mtime=0)


def _lines(file: Path, heads: tuple[str, ...]) -> Iterator[dict[str, str]]:
    found = list(csv.DictReader(io.StringIO(gzip.decompress(file.read_bytes()).decode())))
    if not found or any(tuple(line) != heads or None in line.values() for line in found):
        raise ValueError(f"it has no lines of the columns {', '.join(heads)}")
    yield from found
