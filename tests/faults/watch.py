"""What a job does, event by event, and an act at one of them.

In the process of the job a Watch sees each file that is opened for writing, renamed, removed or
synced below some folders (Python's audit events, and os.fsync), each optimiser step, each hashing of
parameters and each storing of tensors. At the event that a fault asks for, it acts: it kills or
signals the process, refuses to write from then on, or cuts the power.
"""

import errno
import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

_RENAMES = {"os.rename"}
_REMOVALS = {"os.remove", "os.rmdir", "shutil.rmtree"}
_WRITES = {"opened", "made", "synced", "stored"}


@dataclass(frozen=True)
class Event:
    """number: from 1. does: opened, made, renamed, removed, synced, computed, hashed, stored. path:
    which file. steps: the optimiser steps that were computed before it."""

    number: int
    does: str
    path: str
    steps: int

    @property
    def phase(self) -> str:
        """What the training is doing, as the promises name it."""
        if not self.path:
            return self.does
        if "/checkpoint/" in f"{self.path}/" or ".checkpoint" in self.path:
            return f"checkpoint {self.does}"
        return f"result {self.does}"


@dataclass
class Watch:
    """below: the folders whose files are watched. at: the number of the event to act at; 0 for none.
    act: called with the watch and the event. report: the file for what was seen."""

    below: tuple[str, ...]
    report: Path
    at: int = 0
    act: Callable[["Watch", Event], None] | None = None
    events: list[Event] = field(default_factory=list)
    steps: int = 0
    reached: bool = False
    refused: int = 0  # the errno of each further write
    synced: dict[str, tuple[int, int]] = field(default_factory=dict)
    renamed: list[tuple[str, str, str]] = field(default_factory=list)  # not yet synced
    shadows: Path | None = None  # where files lie that were replaced
    _busy: bool = False

    def install(self) -> None:
        """Watch this process from now on; there is no way back."""
        import torch
        from transformers import PreTrainedModel

        from mofe import provenance
        from mofe.models import store

        sys.addaudithook(self._audited)
        for name in ("fsync", "fdatasync"):
            self._before(os, name, self._syncs)
        self._after(torch.optim.AdamW, "step", self._stepped)
        self._before(provenance, "hash_tensors", lambda *_, **__: self._happens("hashed", ""))
        for owner, name in ((store, "save_file"), (PreTrainedModel, "save_pretrained")):
            self._before(owner, name, lambda *_, **__: self._happens("stored", ""))

    def written(self) -> None:
        """Write the report."""
        seen = {
            "events": [asdict(event) for event in self.events],
            "steps": self.steps,
            "reached": self.reached,
            "synced": self.synced,
            "renamed": self.renamed,
        }
        self._busy, self.refused = True, 0
        self.report.write_text(json.dumps(seen))

    def _before(self, owner, name: str, told: Callable) -> None:
        plain = getattr(owner, name)

        def told_first(*arguments, **more):
            told(*arguments, **more)
            done = plain(*arguments, **more)
            if plain.__name__ in ("fsync", "fdatasync"):
                self._is_synced(arguments[0])
            return done

        setattr(owner, name, told_first)

    def _after(self, owner, name: str, told: Callable) -> None:
        plain = getattr(owner, name)

        def told_then(*arguments, **more):
            done = plain(*arguments, **more)
            told()
            return done

        setattr(owner, name, told_then)

    def _stepped(self) -> None:
        self.steps += 1
        self._happens("computed", "")

    def _audited(self, name: str, args: tuple) -> None:
        if self._busy:
            return
        if name == "open":
            path, _, flags = args
            if isinstance(path, (str, bytes, os.PathLike)) and flags & (os.O_WRONLY | os.O_RDWR):
                self._touches("opened", os.fsdecode(path))
        elif name in _RENAMES:
            self._renames(*args)
        elif name in _REMOVALS:
            self._touches("removed", _at(args[0], args[1] if len(args) > 1 else -1))
        elif name == "os.mkdir":
            self._touches("made", _at(args[0], args[2]))

    def _renames(self, source, target, source_fd=-1, target_fd=-1) -> None:
        old, new = _at(source, source_fd), _at(target, target_fd)
        self._touches("renamed", new)
        if self._watched(new) and self.shadows:
            self._busy = True
            shadow = ""
            if os.path.isfile(new):
                shadow = str(self.shadows / str(len(self.renamed)))
                os.link(new, shadow)
            self.renamed.append((os.path.abspath(old), os.path.abspath(new), shadow))
            self._busy = False

    def _syncs(self, descriptor) -> None:
        self._touches("synced", _of(descriptor))

    def _is_synced(self, descriptor) -> None:
        path = _of(descriptor)
        if os.path.isdir(path):
            self.renamed = [r for r in self.renamed if os.path.dirname(r[1]) != path]
        elif os.path.exists(path):
            stat = os.stat(path)
            self.synced[str(stat.st_ino)] = (stat.st_size, stat.st_mtime_ns)

    def _watched(self, path: str) -> bool:
        path = os.path.abspath(path)
        return any(path == folder or path.startswith(folder + os.sep) for folder in self.below)

    def _touches(self, does: str, path: str) -> None:
        if self._watched(path):
            self._happens(does, os.path.abspath(path))

    def _happens(self, does: str, path: str) -> None:
        event = Event(len(self.events) + 1, does, path, self.steps)
        self.events.append(event)
        if event.number == self.at and self.act:
            self.reached = True
            self.act(self, event)
        if self.refused and does in _WRITES and path:
            raise OSError(self.refused, os.strerror(self.refused), path)


def _at(path, folder: int) -> str:
    """A path that may be relative to a folder's descriptor."""
    path = os.fsdecode(path)
    return os.path.join(_of(folder), path) if folder not in (-1, None) else path


def _of(descriptor) -> str:
    number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
    return os.readlink(f"/proc/self/fd/{number}")


# ----------------------------------------------------------------------------------------- acts


def kill(watch: Watch, event: Event) -> None:
    """SIGKILL: nothing runs any more in this process."""
    watch.written()
    os.kill(os.getpid(), signal.SIGKILL)


def send(number: signal.Signals) -> Callable[[Watch, Event], None]:
    """A signal that the process may handle."""

    def act(watch: Watch, event: Event) -> None:
        watch.written()
        watch._busy = False
        os.kill(os.getpid(), number)

    return act


def refuse(number: int) -> Callable[[Watch, Event], None]:
    """No write works any more, by this errno: a full disk, one that fails, no permission."""

    def act(watch: Watch, event: Event) -> None:
        watch.refused = number

    return act


ACTS: dict[str, Callable[[Watch, Event], None]] = {
    "SIGKILL": kill,
    "power cut": kill,
    "SIGTERM": send(signal.SIGTERM),
    "SIGUSR1": send(signal.SIGUSR1),
    "SIGINT": send(signal.SIGINT),
    "ENOSPC": refuse(errno.ENOSPC),
    "EDQUOT": refuse(errno.EDQUOT),
    "EIO": refuse(errno.EIO),
    "EACCES": refuse(errno.EACCES),
}
