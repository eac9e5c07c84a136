"""A training's numbers while it runs, in TensorBoard, trackio or Weights & Biases (`track`).

accelerate's trackers write them. They stay on this machine unless the user says otherwise, and
nothing of a training depends on them.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from mofe import records
from mofe.study.config import Tracker
from mofe.study.words import NO_TRACKER
from mofe.training.saved import Progress

Tell = Callable[[records.LossStep, float], None]  # a step, and its gradient's norm


@dataclass(frozen=True)
class Watched:
    """Where a training's numbers go.

    by: the program. folder: where it keeps what it writes. project: the study's name. run: the
    training's address below the results.
    """

    by: Tracker
    folder: str
    project: str
    run: str

    @property
    def id(self) -> str:
        """The run's name as Weights & Biases takes it for a run that goes on."""
        return f"{self.project}-{self.run}".replace("/", "-")


def arguments(watched: Watched | None) -> dict[str, Any]:
    """What accelerate is told of it. Raises ModuleNotFoundError where the program is not there."""
    if watched is None:
        return {}
    # accelerate would only leave it out
    if find_spec(watched.by) is None:
        raise ModuleNotFoundError(NO_TRACKER.format(by=watched.by))
    return {"log_with": watched.by, "project_dir": watched.folder}


@contextmanager
def told(
    accelerator: Accelerator,
    watched: Watched | None,
    progress: Progress,
    settings: Mapping[str, Any],
) -> Iterator[Tell]:
    """A function that tells of a step.

    accelerator: made with `arguments`. progress: from where the training goes on. settings: of the
    training, for programs that show them. The run of an interrupted training goes on: steps that
    are computed again take the place of those that were told.
    """
    if watched is None:
        yield lambda line, norm: None
        return
    _stay_here(watched)
    named = watched.run if watched.by == "tensorboard" else watched.project
    accelerator.init_trackers(named, init_kwargs={watched.by: _kept(watched, progress, settings)})
    before = (progress.tokens, progress.seconds)

    def tell(line: records.LossStep, norm: float) -> None:
        nonlocal before
        read, took = line.tokens - before[0], line.seconds - before[1]
        before = (line.tokens, line.seconds)
        values = {"loss": line.loss, "learning_rate": line.learning_rate, "gradient_norm": norm}
        if line.auxiliary_loss:
            values["auxiliary_loss"] = line.auxiliary_loss
        if took > 0:
            values["tokens_per_second"] = read / took
        accelerator.log(values, step=line.step)

    try:
        yield tell
    finally:
        # accelerator.end_training would end the processes' group too, which stores the result
        for tracker in accelerator.trackers:
            tracker.finish()


def _kept(watched: Watched, progress: Progress, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What the program is told of its run."""
    named = {"name": watched.run, "resume": "allow", "config": dict(settings)}
    match watched.by:
        case "tensorboard":
            return {"purge_step": progress.step + 1}
        case "wandb":
            return {**named, "id": watched.id, "dir": watched.folder}
        case _:
            return named


def _stay_here(watched: Watched) -> None:
    """Keep what is written on this machine, in the study's results, where the user's environment
    does not say otherwise."""
    Path(watched.folder).mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("TRACKIO_DIR", watched.folder)
    os.environ.setdefault("WANDB_MODE", "offline")
    os.environ.setdefault("WANDB_SILENT", "true")
