"""The rows of a task's training set: those that can be used, those that training draws, and questions
from those that it leaves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset
from lm_eval.api.task import ConfigurableTask

from mofe import tasks
from mofe.data import schema, sources
from mofe.tasks import Rendered

HELD_OUT = tuple(b"held out")  # makes the stream of random numbers that held-out rows are drawn by


@dataclass(frozen=True)
class Usable:
    """A task's training set.

    part: the rows of the source that may be trained on, as the task reads them. rows: those of them
    that can be used, each prompt once. counts: what was dropped, by the keys of a TaskCounts.
    """

    part: Dataset
    rows: list[Rendered]
    counts: dict[str, int]


def usable(params: Mapping[str, Any], cluster: str | None = None, key: str = "") -> Usable:
    """The rows of a training set that can be used. A prompt that occurs twice is used once, and a
    prompt that is in the task's test set is dropped.

    params: Plan.params.data. cluster, key: as in schema.clustered. Raises ValueError where a row
    does not fit the task's schema.
    """
    data, task, source = params["data"], params["task"], params["source"]
    rows = sources.load(source, data["subset"], data["split"], params["mirror"])
    rows = schema.clustered(rows, cluster, key, f"{source['repo']} ({data['split']})")
    complete = tasks.complete(task, rows)
    part = tasks.training_part(task, complete)
    labelled = list(tasks.render(task, part))
    distinct = list(reversed({row.prompt: row for row in reversed(labelled)}.values()))
    tested = {t.doc_to_text(doc) for t in tasks.build(task).values() for doc in t.eval_docs}
    kept = [row for row in distinct if row.prompt not in tested]
    counts = {
        "read": len(rows),
        "incomplete": len(rows) - len(complete),
        "held_out": len(complete) - len(part),
        "unlabelled": len(part) - len(labelled),
        "duplicate": len(labelled) - len(distinct),
        "also_in_test": len(distinct) - len(kept),
    }
    return Usable(part, kept, counts)


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
    left = order(data, len(found.rows))[drawn:]
    numbers = sorted(found.rows[i].number for i in left)
    task = tasks.asking(data["task"], found.part)
    if task.OUTPUT_TYPE == "multiple_choice":
        numbers = [n for n in numbers if len(task.doc_to_choice(found.part[n])) > 1]
    if wanted > len(numbers):
        raise ValueError(
            f"tasks.{name}.questions: {wanted} are to be asked, but training on {drawn} of "
            f"{len(found.rows)} usable rows leaves {len(numbers)}; lower one of them"
        )
    random = np.random.default_rng([data["seed"], *HELD_OUT])
    asked = found.part.select(sorted(random.permutation(numbers)[:wanted]))
    return {name: tasks.asking(data["task"], asked, task=name, description="")}
