"""Checkpoints of an unfinished training: all that it needs to go on as if it had never stopped.

A checkpoint holds the trained parameters, their Adam moments, and how far the training is. Frozen
parameters are read from the merge again. The checkpoint lies in a folder that Snakemake does not
know of, because Snakemake deletes the outputs of a failed job. torch.distributed.checkpoint writes
it, so that a training may go on with another number of GPUs.
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
from typing import Any, Self

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException

from mofe import provenance, records
from mofe.files import write_atomic
from mofe.training import parallel

# Saving takes at most this share of the time, and this many seconds pass between two saves.
SHARE_OF_TIME = 0.02
SECONDS_BETWEEN = 30.0


class Interrupted(Exception):
    """Training stopped on a signal, after saving its checkpoint."""


@dataclass(frozen=True)
class Progress:
    """How far a training is: optimiser steps, tokens and answer tokens seen, and seconds by its own
    clock. device_seconds: the seconds of all processes together. cpu_seconds: the processor seconds
    of all processes. resumed: how often it went on from a checkpoint."""

    step: int = 0
    tokens: int = 0
    answer_tokens: int = 0
    seconds: float = 0.0
    device_seconds: float = 0.0
    cpu_seconds: float = 0.0
    resumed: int = 0


class Checkpoint:
    """The newest state of one training in `folder`, which belongs to it alone.

    key: identifies the training (its parameters, its rows and inputs). A checkpoint with another
    key belongs to another training: it is removed, never continued.

    It also knows by which calls, revisions and machines the training was computed (`segments`).
    """

    def __init__(self, folder: Path, key: str):
        self.folder, self.key = folder, key
        self._saved_at, self._took = time.monotonic(), 0.0
        self._step: int | None = None
        self._earlier: list[dict[str, Any]] = []  # segments before this call's
        self._restored = Progress()

    def segments(self, progress: Progress) -> list[dict[str, Any]]:
        """The parts that the training was computed in so far (records.Segment), this call's
        last."""
        own = {
            "first_step": self._restored.step + 1,
            "last_step": progress.step,
            "device_seconds": progress.device_seconds - self._restored.device_seconds,
            "processes": parallel.processes(),
            **provenance.stamp(),
        }
        # a call that was interrupted before its first step computed nothing
        return self._earlier + ([own] if progress.step > self._restored.step else [])

    @property
    def log(self) -> Path:
        """The loss log of the unfinished training, one records.LossStep per line."""
        return self.folder / "log.jsonl"

    @contextlib.contextmanager
    def lines(self) -> Iterator[Callable[[records.LossStep], None]]:
        """A function that appends a step to the log. Only the first process writes."""
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
        """Load the saved state into parameters and optimiser; without one, return Progress().

        The log is cut back to the steps that the state has. Raises OSError for a damaged
        checkpoint: a training never goes on from an incomplete state.
        """
        # only one process looks: a shared disk could show each of them other folders
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
        self._earlier = progress.pop("segments")
        progress = self._restored = Progress(**progress)
        self._step = progress.step
        if parallel.rank() == 0:
            lines = self.log.read_text().splitlines(keepends=True)[: progress.step]
            write_atomic(self.log, "".join(lines))
        print(f"going on after step {progress.step}", flush=True)
        return replace(progress, resumed=progress.resumed + 1)

    def due(self) -> bool:
        """Whether so much time has passed since the last save that another one is cheap."""
        wait = max(SECONDS_BETWEEN, self._took / SHARE_OF_TIME)
        return time.monotonic() - self._saved_at >= wait

    def save(
        self,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        progress: Progress,
    ) -> None:
        """Store the state after `progress.step` steps, then remove the previous one.

        All processes must call this. Parameters and moments change only in an optimiser step, so
        the state may be saved at any time before the next one. Before the first step there is
        nothing to save.
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
            record = {**asdict(progress), "key": self.key, "segments": self.segments(progress)}
            write_atomic(partial / "progress.json", json.dumps(record))
            earlier = list(self.folder.glob("step-*"))
            partial.rename(self.folder / f"step-{progress.step}")
            for folder in earlier:
                shutil.rmtree(folder)
        parallel.barrier()
        self._step, self._saved_at = progress.step, time.monotonic()
        self._took = self._saved_at - started

    def remove(self) -> None:
        """Delete all of it: the training is done."""
        if parallel.rank() == 0:
            shutil.rmtree(self.folder)

    def _usable(self) -> Path | None:
        """The newest complete state, if it belongs to this training. Incomplete ones are
        removed."""
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
    """Parameters and moments by name: full tensors, or this process's shards (DTensor)."""
    state = {f"parameter/{name}": p.data for name, p in parameters.items()}
    for name, parameter in parameters.items():
        state |= {f"{key}/{name}": value for key, value in optimizer.state[parameter].items()}
    return state


def _alone() -> bool:
    return parallel.processes() == 1


@contextlib.contextmanager
def _dcp(failure: str) -> Iterator[None]:
    """torch.distributed.checkpoint without its warnings; its errors become OSError."""
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):
            yield
    except CheckpointException as error:
        causes = "; ".join(str(reason[0]) for reason in error.failures.values())
        raise OSError(f"{failure} ({causes})") from error


class Signals:
    """A context manager that notes SIGTERM and SIGUSR1 instead of dying of them. By these, Slurm
    announces a time limit or a preemption. `asked` is the signal's name, or None."""

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
