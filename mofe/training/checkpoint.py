"""Checkpoints of an unfinished training: what it takes to go on as if it had never stopped.

A checkpoint holds the trained parameters with their Adam moments and how far the training is; what
is frozen comes from the merge again. It lies in a folder that Snakemake does not know of, because
Snakemake deletes the outputs of a failed job. Written by torch.distributed.checkpoint, so that a
training may go on with another number of GPUs.
"""

import contextlib
import json
import shutil
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Self

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException

from mofe import records
from mofe.files import write_atomic
from mofe.training import parallel

# Saving takes at most this share of the time, and never happens more often than so many seconds.
SHARE_OF_TIME = 0.02
SECONDS_BETWEEN = 30.0


class Interrupted(Exception):
    """Training stopped on a signal, after saving its checkpoint."""


@dataclass(frozen=True)
class Progress:
    """How far a training is: optimiser steps, tokens and answer tokens seen, seconds of its own
    clock, the same times the processes that computed meanwhile, and how often it went on from a
    checkpoint."""

    step: int = 0
    tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0
    device_seconds: float = 0.0
    resumed: int = 0


class Checkpoint:
    """The newest state of one training in `folder`, which belongs to it alone.

    key: identifies the training (its parameters and inputs). A checkpoint with another key is of
    another training: it is removed, never continued.
    """

    def __init__(self, folder: Path, key: str):
        self.folder, self.key = folder, key
        self._saved_at, self._took = time.monotonic(), 0.0
        self._step: int | None = None

    @property
    def log(self) -> Path:
        """The loss log, a LossStep per line, until the training is done."""
        return self.folder / "log.jsonl"

    @contextlib.contextmanager
    def lines(self) -> Iterator[Callable[[records.LossStep], None]]:
        """A function that appends a step to the log, as the first process alone does."""
        if parallel.rank() != 0:
            yield lambda step: None
            return
        with open(self.log, "a") as log:

            def append(step: records.LossStep) -> None:
                log.write(records.line(step))
                log.flush()

            yield append

    def restore(
        self, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> Progress:
        """Lay the saved state over parameters and optimiser; where there is none, Progress().

        The log is cut back to the lines of the steps that count. Raises OSError for a damaged
        checkpoint: a state that is not whole is never trained on.
        """
        # one process looks, or a shared disk could show them different folders
        saved = parallel.from_first(self._usable)
        if saved is None:
            parallel.barrier()
            if parallel.rank() == 0:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder.mkdir(parents=True)
            parallel.barrier()
            return Progress()
        for parameter in parameters.values():
            optimizer.state[parameter] = {
                # fused AdamW counts its steps where the parameter is
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": torch.zeros_like(parameter),
            }
        with _dcp(f"{saved}: cannot be read; remove {self.folder} to train from the start"):
            dcp.load(_state(parameters, optimizer), checkpoint_id=saved, no_dist=_alone())
        progress = json.loads((saved / "progress.json").read_text())
        del progress["key"]
        progress = Progress(**progress)
        self._step = progress.step
        if parallel.rank() == 0:
            lines = self.log.read_text().splitlines(keepends=True)[: progress.step]
            write_atomic(self.log, "".join(lines))
        print(f"going on after step {progress.step}", flush=True)
        return replace(progress, resumed=progress.resumed + 1)

    def due(self) -> bool:
        """Whether enough time has passed since the last save for another one to be cheap."""
        wait = max(SECONDS_BETWEEN, self._took / SHARE_OF_TIME)
        return time.monotonic() - self._saved_at >= wait

    def save(
        self,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        progress: Progress,
    ) -> None:
        """Store the state after `progress.step` steps, then remove the one before.

        All processes must call it. Between two optimiser steps parameters and moments do not
        change, so the state may be saved at any time until the next one. Before the first step
        there is nothing to go on from.
        """
        if progress.step in (0, self._step):
            return
        started = time.monotonic()
        partial = self.folder / f"partial-{progress.step}"
        if parallel.rank() == 0:
            shutil.rmtree(partial, ignore_errors=True)
        parallel.barrier()
        with _dcp(f"{partial}: cannot be written"):
            dcp.save(_state(parameters, optimizer), checkpoint_id=partial, no_dist=_alone())
        parallel.barrier()
        if parallel.rank() == 0:
            record = {**asdict(progress), "key": self.key}
            write_atomic(partial / "progress.json", json.dumps(record))
            before = list(self.folder.glob("step-*"))
            partial.rename(self.folder / f"step-{progress.step}")
            for folder in before:
                shutil.rmtree(folder)
        parallel.barrier()
        self._step, self._saved_at = progress.step, time.monotonic()
        self._took = self._saved_at - started

    def remove(self) -> None:
        """The training is done."""
        if parallel.rank() == 0:
            shutil.rmtree(self.folder)

    def _usable(self) -> Path | None:
        """The newest whole state, if it is of this training; what was cut off is removed."""
        for cut_off in self.folder.glob("partial-*"):
            shutil.rmtree(cut_off)
        complete = sorted(self.folder.glob("step-*"), key=lambda p: int(p.name.split("-")[1]))
        if not complete:
            return None
        if json.loads((complete[-1] / "progress.json").read_text())["key"] != self.key:
            print(
                f"{complete[-1]}: is of a training with other inputs or parameters; starting anew"
            )
            return None
        return complete[-1]


def _state(
    parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, torch.Tensor]:
    """Parameters and moments by name: whole tensors, or this process's shards (DTensor)."""
    state = {f"parameter/{name}": p.data for name, p in parameters.items()}
    for name, parameter in parameters.items():
        state |= {f"{key}/{name}": value for key, value in optimizer.state[parameter].items()}
    return state


def _alone() -> bool:
    return parallel.processes() == 1


@contextlib.contextmanager
def _dcp(failure: str) -> Iterator[None]:
    """torch.distributed.checkpoint without its warnings, and with an error of the usual kind."""
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            yield
    except CheckpointException as error:
        causes = "; ".join(str(reason[0]) for reason in error.failures.values())
        raise OSError(f"{failure} ({causes})") from error


class Signals:
    """Notes SIGTERM and SIGUSR1, by which Slurm announces a time limit or a preemption, instead of
    dying of them. A context manager; `asked` is the signal's name or None."""

    NOTED = (signal.SIGTERM, signal.SIGUSR1)

    def __enter__(self) -> Self:
        self.asked: str | None = None
        self._before = {number: signal.signal(number, self._note) for number in self.NOTED}
        return self

    def __exit__(self, *exc) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame) -> None:
        self.asked = signal.Signals(number).name
