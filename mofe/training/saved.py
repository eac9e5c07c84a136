"""A saved state of a training: a folder `step-N` that is whole in itself.

It has tensors, the lines of the loss log up to step N, and progress.json, which says how far the
training is and has the checksums of all other files and of itself. It is made as `partial-N`,
flushed to disk, and then renamed. It is removed by renaming it first (`removed-...`). So a folder
with its name is whole, or it was damaged, which the checksums tell. Folders with other names, such
as a user's `step-5.bak`, are nobody's business here.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from mofe import checksums, files, records

PROGRESS, LOG = "progress.json", "log.jsonl"
_STEP, _LEFT_OVER = re.compile(r"step-(\d+)"), re.compile(r"(partial|removed)-\d+")


class Damaged(ValueError):
    """A saved state is not what was saved."""


class Progress(records.Record):
    """How far a training is: optimiser steps, tokens and answer tokens seen, and seconds by its own
    clock. device_seconds: the seconds of all processes together. cpu_seconds: the processor seconds
    of all processes. resumed: how often it went on from a saved state."""

    step: records.Count = 0
    tokens: records.Count = 0
    answer_tokens: records.Count = 0
    seconds: records.Amount = 0.0
    device_seconds: records.Amount = 0.0
    cpu_seconds: records.Amount = 0.0
    peak_memory_bytes: records.Count = 0
    resumed: records.Count = 0


class State(records.Record):
    """progress.json. key: identifies the training. last: whether the training is done; then the
    tensors are the parameters without Adam's moments. segments: the parts it was computed in.
    files: the other files' checksums by name. checksum: of all the rest."""

    key: str
    progress: Progress
    last: bool
    segments: tuple[records.Segment, ...]
    files: dict[str, str]
    checksum: str = ""

    @property
    def own_checksum(self) -> str:
        """What `checksum` should be."""
        rest = self.model_copy(update={"checksum": ""})
        return checksums.of_bytes(rest.model_dump_json().encode())


def newest_first(folder: Path) -> list[Path]:
    """The states in a training's folder."""
    found = [(match, f) for f in folder.glob("step-*") if (match := _STEP.fullmatch(f.name))]
    return [f for match, f in sorted(found, key=lambda pair: int(pair[0][1]), reverse=True)]


def seal(partial: Path, state: State, lines: Sequence[str]) -> Path:
    """Make a state of the folder with its tensors, whose checksums `state.files` has. lines: of the
    loss log. Returns its folder."""
    log = partial / LOG
    log.write_text("".join(lines))
    sums = {**state.files, LOG: checksums.of(log)}
    state = state.model_copy(update={"files": sums})
    state = state.model_copy(update={"checksum": state.own_checksum})
    (partial / PROGRESS).write_text(state.model_dump_json() + "\n")
    for file in partial.iterdir():
        files.sync(file)
    files.sync(partial)
    done = partial.with_name(f"step-{state.progress.step}")
    partial.rename(done)
    files.sync(done.parent)
    return done


def read(folder: Path) -> tuple[State, list[str]]:
    """What a state says, and the lines of its log. Tensors are not read. Raises Damaged, which says
    what is wrong, where anything else is not what was saved."""
    try:
        state = records.read(folder / PROGRESS, State)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise Damaged(f"{PROGRESS} is missing") from error
    except ValueError as error:
        raise Damaged(str(error).removeprefix(f"{folder}/")) from error
    if state.checksum != state.own_checksum:
        raise Damaged(f"{PROGRESS} was changed")
    missing = [name for name in (LOG, *state.files) if not (folder / name).is_file()]
    if missing:
        raise Damaged(f"{missing[0]} is missing")
    check(folder, {LOG: state.files[LOG]})
    lines = (folder / LOG).read_text().splitlines(keepends=True)
    if len(lines) != state.progress.step or folder.name != f"step-{len(lines)}":
        raise Damaged(f"{LOG} has {len(lines)} steps, {PROGRESS} {state.progress.step}")
    return state, lines


def check(folder: Path, sums: Mapping[str, str]) -> None:
    """Raises Damaged where a file has not the checksum that it should have."""
    for name, checksum in sums.items():
        if checksums.of(folder / name) != checksum:
            raise Damaged(f"{name} was changed")


def remove(folder: Path) -> None:
    """Remove a state. If that is cut off, no half of it is taken for a state."""
    number = 0
    while os.path.lexists(aside := folder.with_name(f"removed-{number}")):
        number += 1
    folder.rename(aside)
    files.sync(folder.parent)
    _drop(aside)


def sweep(folder: Path) -> None:
    """Remove what was cut off while it was saved or removed."""
    for left in folder.iterdir():
        if _LEFT_OVER.fullmatch(left.name):
            _drop(left)


def _drop(path: Path) -> None:
    """Remove a folder with all that is in it, or whatever else has its name."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
