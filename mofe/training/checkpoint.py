"""Checkpoints of an unfinished training: all that it needs to go on as if it had never stopped.

A checkpoint is a folder with the newest two states of the training (mofe/training/saved.py): the
trained parameters, their Adam moments, and how far the training is. Frozen parameters are read from
the merge again. Snakemake does not know of the folder, because it deletes the outputs of a failed
job. torch.distributed.checkpoint writes the tensors, so that a training may go on with another
number of GPUs.

After the last step the parameters alone are saved, so that a training that is stopped before its
result is on disk goes on from there.
"""

import contextlib
import errno
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Self

import torch
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException

from mofe import checksums, disk, provenance, records, units
from mofe.files import write_atomic
from mofe.training import limit, parallel, saved
from mofe.training.lock import Lock
from mofe.training.saved import Damaged, Progress, State
from mofe.training.signals import Signals

# Saving takes at most this share of the time, and this many seconds pass between two saves.
SHARE_OF_TIME = 0.02
SECONDS_BETWEEN = 30.0


class TakenOver(RuntimeError):
    """Another process trains in this checkpoint's folder now."""


class Checkpoint:
    """The newest states of one training in `folder`, which belongs to it alone.

    It is a context manager, entered before anything is computed and left when the result is on
    disk: until then no other process trains in the folder, and a signal raises Interrupted: at
    once, or after what must not be cut off (`protected`).

    key: identifies the training (its parameters, its rows and inputs); it may be set until
    `restore` is called. States with another key belong to another training: they are removed, never
    continued. It also knows the lines of the loss log, and by which calls, revisions and machines
    the training was computed (`segments`).
    """

    def __init__(self, folder: Path, key: str = ""):
        self.folder, self.key = folder, key
        self.lines: list[str] = []  # of the loss log, one records.LossStep each
        self._progress = self._began = Progress()  # now, and where this segment began
        self._steps, self._rows = 0, 1
        self._earlier: list[records.Segment] = []
        self._saved_at, self._took = time.monotonic(), 0.0
        self._saved: int | None = None  # the step of the newest state

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as entered:
            self.signals = entered.enter_context(Signals(self._where))
            self._lock = None
            if parallel.rank() == 0:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._lock = entered.enter_context(Lock(self.folder))
            self._exit = entered.pop_all()
        return self

    def __exit__(self, *exc) -> None:
        with self.protected():
            self._exit.close()

    def protected(self) -> contextlib.AbstractContextManager[None]:
        """What is done in this context is not cut off by a signal."""
        return self.signals.noted()

    @property
    def log(self) -> Path:
        """The loss log of the running training, for people: one records.LossStep per line. What is
        stored in the end is `lines`."""
        return self.folder / "log.jsonl"

    @property
    def last_line(self) -> records.LossStep:
        """The newest step of the loss log."""
        return records.LossStep.model_validate_json(self.lines[-1])

    def steps(self) -> Iterator[records.LossStep]:
        """The steps of the loss log."""
        return map(records.LossStep.model_validate_json, self.lines)

    @contextlib.contextmanager
    def logging(self) -> Iterator[Callable[[records.LossStep], None]]:
        """A function that appends a step to the log."""
        with open(self.log if parallel.rank() == 0 else os.devnull, "a") as log:

            def append(step: records.LossStep) -> None:
                self.lines.append(records.line(step))
                log.write(self.lines[-1])
                log.flush()

            yield append

    # ------------------------------------------------------------------------------- going on

    def restore(
        self,
        parameters: Mapping[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        steps: int,
    ) -> Progress:
        """Load the newest whole state into parameters and optimiser, and return how far it is.

        steps: of the whole training. Without a state, it starts at step 0. A state that is damaged
        is named and removed, and the one before it is taken. Raises OSError where a whole state
        cannot be read.
        """
        found = self._newest_whole()
        if found is None or not found[1].last:
            _add_moments(parameters, optimizer)
        if found is None:
            self._clear()
            self._steps, self._saved_at = steps, time.monotonic()
            return self._progress
        folder, state, self.lines = found
        # raised within dcp, Interrupted would look like a state that cannot be read
        with (
            self.protected(),
            _dcp(f"{folder}: cannot be read; remove {self.folder} to train from the start"),
        ):
            dcp.load(
                _state(parameters, None if state.last else optimizer),
                checkpoint_id=folder,
                no_dist=_alone(),
            )
        self._earlier, self._saved = list(state.segments), state.progress.step
        if parallel.rank() == 0:
            write_atomic(self.log, "".join(self.lines))
        print(f"going on after step {state.progress.step}", flush=True)
        self._progress = self._began = state.progress.model_copy(
            update={"resumed": state.progress.resumed + 1}
        )
        self._steps, self._saved_at = steps, time.monotonic()
        self.signals.answer()
        return self._progress

    def _newest_whole(self) -> tuple[Path, State, list[str]] | None:
        """The newest state that is whole, if it belongs to this training."""
        # only one process looks: a shared disk could show each of them other folders
        for folder in parallel.from_first(lambda: saved.newest_first(self.folder)):
            state, lines, fault = parallel.from_first(lambda folder=folder: _inspected(folder))
            if not fault and state.key != self.key:
                if parallel.rank() == 0:
                    print(f"{folder}: is of a training with other inputs or parameters")
                return None
            fault = fault or next(filter(None, parallel.gathered(_share(folder, state))), None)
            if not fault:
                return folder, state, lines
            if parallel.rank() == 0:
                print(f"{folder}: is damaged ({fault}); it is removed, {self._instead(folder)}")
                saved.remove(folder)
        return None

    def _instead(self, damaged: Path) -> str:
        others = [f for f in saved.newest_first(self.folder) if f != damaged]
        if others:
            return f"and {others[0].name} is taken instead"
        return "and the training starts from the beginning"

    def _clear(self) -> None:
        """Remove all states: the training starts from the beginning."""
        parallel.barrier()
        if parallel.rank() == 0:
            for folder in saved.newest_first(self.folder):
                saved.remove(folder)
            saved.sweep(self.folder)
            write_atomic(self.log, "")
        parallel.barrier()

    # -------------------------------------------------------------------------- how far it is

    def segments(self) -> list[records.Segment]:
        """The parts that the training was computed in so far, the running one last."""
        now, began = self._progress, self._began
        if now.step == began.step:  # a call that was interrupted before its first step, for example
            return self._earlier
        own = records.Segment(
            first_step=began.step + 1,
            last_step=now.step,
            device_seconds=now.device_seconds - began.device_seconds,
            processes=parallel.processes(),
            micro_batch=self._rows,
            **provenance.stamp(),
        )
        return [*self._earlier, own]

    def reached(self, progress: Progress) -> None:
        """Note how far the training is."""
        self._progress = progress

    def rows_at_once(self, wanted: int) -> int:
        """How many rows a process is to compute at once: as wanted, or fewer where memory did not
        suffice for more."""
        noted = parallel.from_first(lambda: limit.read(self.folder, self.key))
        self._rows = min(wanted, noted or wanted)
        return self._rows

    def halve(self) -> int:
        """Note that memory does not suffice for the rows at once, and return half of them. What
        follows is a new segment."""
        limit.note(self.folder, self._rows // 2, self.key)
        self._earlier, self._began = self.segments(), self._progress
        return self.rows_at_once(self._rows)

    def stop_if_asked(self, save: Callable[[], None]) -> None:
        """All processes call this where they could stop: after a signal to one of them, save and
        raise Interrupted. Raises TakenOver where another process trains here now."""
        lost = self._lock is not None and self._lock.lost
        if parallel.any_of(self.signals.asked is not None or lost):
            self._keep_out()
            save()
            self.signals.asked = self.signals.asked or "a signal to another process"
            self.signals.answer()

    def _where(self) -> str:
        """Where a training is when a signal stops it."""
        if not self._steps:
            return "before it began to train; it goes on where it was when it is run again"
        return (
            f"after step {self._progress.step} of {self._steps}; it goes on from there when it is "
            "run again"
        )

    # --------------------------------------------------------------------------------- saving

    def due(self) -> bool:
        """Whether so much time has passed since the last save that another one is cheap."""
        wait = max(SECONDS_BETWEEN, self._took / SHARE_OF_TIME)
        return time.monotonic() - self._saved_at >= wait

    def save(
        self, parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> None:
        """Store the state that the training has reached. It and the one before it are kept.

        All processes must call this. Parameters and moments change only in an optimiser step, so
        the state may be saved at any time before the next one. Before the first step there is
        nothing to save. After the last one, parameters are saved without moments. Raises disk.Full,
        which says what is kept, where the disk is full.
        """
        progress = self._progress
        if progress.step in (0, self._saved):
            return
        started, last = time.monotonic(), progress.step == self._steps
        self._keep_out()
        partial = self.folder / f"partial-{progress.step}"
        if parallel.rank() == 0:
            for folder in saved.newest_first(self.folder)[1:]:
                saved.remove(folder)
            saved.sweep(self.folder)
        parallel.barrier()
        tensors = _state(parameters, None if last else optimizer)
        with self._cleared(partial, sum(t.numel() * t.element_size() for t in tensors.values())):
            with _dcp(f"{partial}: cannot be written"):
                dcp.save(tensors, checkpoint_id=partial, no_dist=_alone())
            parallel.barrier()
            sums = parallel.gathered(_checksums(partial))
            if parallel.rank() == 0:
                state = State(
                    key=self.key,
                    progress=progress,
                    last=last,
                    segments=tuple(self.segments()),
                    files={name: checksum for part in sums for name, checksum in part.items()},
                )
                self._keep_out()
                saved.seal(partial, state, self.lines)
        parallel.barrier()
        self._saved, self._saved_at = progress.step, time.monotonic()
        self._took = self._saved_at - started

    def _keep_out(self) -> None:
        """Raises TakenOver where another process trains here now: it must find what it saved."""
        if self._lock is not None and not self._lock.held():
            raise TakenOver(
                f"{self.folder}: another process took this training over, because this one showed "
                f"no sign of life; this one stops after step {self._progress.step}"
            )

    @contextlib.contextmanager
    def _cleared(self, partial: Path, needed: int) -> Iterator[None]:
        """Remove a state that could not be saved, and say so where the disk is full. needed: bytes
        of its tensors."""
        try:
            yield
        except OSError as error:
            full, free = disk.full(error), disk.free(self.folder)
            if parallel.rank() == 0:
                shutil.rmtree(partial, ignore_errors=True)
            if full is None:
                raise
            kept = f"the state after step {self._saved} is kept" if self._saved else "none is kept"
            raise disk.Full(
                full,
                f"{disk.FULL[full]}: {self.folder}: the state after step {self._progress.step} "
                f"needs {units.size(needed)} and {units.size(free)} are free; {kept}; make room "
                "and run the same command again",
            ) from error


def _inspected(folder: Path) -> tuple[State | None, list[str], str]:
    """What a state says, the lines of its log, and what is wrong with it, if anything."""
    try:
        return (*saved.read(folder), "")
    except Damaged as error:
        return None, [], str(error)


def _share(folder: Path, state: State | None) -> str:
    """What is wrong with those of a state's files that this process checks, if anything."""
    mine = sorted(state.files.items())[parallel.rank() :: parallel.processes()] if state else ()
    try:
        saved.check(folder, dict(mine))
    except Damaged as error:
        return str(error)
    return ""


def _checksums(partial: Path) -> dict[str, str]:
    """The checksums of the files that this process wrote."""
    rank = parallel.rank()
    return {
        file.name: checksums.of(file)
        for file in partial.iterdir()
        if file.name.startswith(f"__{rank}_") or (rank == 0 and file.name == ".metadata")
    }


def _add_moments(parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Give AdamW the state that it would have before its first step, so that no step needs memory
    of its own."""
    for parameter in parameters.values():
        optimizer.state[parameter] = {
            # fused AdamW counts its steps where the parameter is
            "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
            "exp_avg": torch.zeros_like(parameter),
            "exp_avg_sq": torch.zeros_like(parameter),
        }


def _state(
    parameters: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer | None
) -> dict[str, torch.Tensor]:
    """Parameters, and moments if there is an optimiser, by name: full tensors, or this process's
    shards (DTensor)."""
    state = {f"parameter/{name}": p.data for name, p in parameters.items()}
    for name, parameter in parameters.items() if optimizer else ():
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
        reasons = [reason[0] for reason in error.failures.values()]
        causes = "; ".join(map(str, reasons))
        number = next(filter(None, map(disk.full, reasons)), errno.EIO)
        raise OSError(number, f"{failure} ({causes})") from error
