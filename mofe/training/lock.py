"""A lock on a training's checkpoint, so that two processes never write the same one.

The lock is a file that says who holds it, and whose time of change moves on while its holder lives.
No two machines' clocks are compared: who waits watches whether that time changes. A lock whose
holder is gone is taken over by creating the next one (`lock.2.json` after `lock.json`), which only
one process can do, and which tells the former holder, should it live after all, that it lost it.
Numbers never begin anew: a lock that is released keeps its number (`lock.2.released`). Otherwise a
slow process could take a new lock for the old one of the same number that it has judged.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from mofe import files, processes, records

BEAT = 20.0  # seconds between two signs of life
PATIENCE = 3 * BEAT  # seconds without one after which a holder counts as gone

RELEASED = ".released"  # the ending of a lock's name once nobody holds it
_NAME = re.compile(rf"lock(?:\.(\d+))?(?:\.json|{re.escape(RELEASED)})")

Standing = Literal["live", "stale", "unknown"]


class Locked(RuntimeError):
    """Another process that lives holds the lock."""


class Owner(records.Record):
    """The process that holds a lock."""

    host: str
    pid: int
    started: int  # when, as mofe.processes tells it
    boot: str  # the machine and its start
    namespace: str  # the process ids are of
    slurm_job: str | None = None
    restarts: int = 0  # how often Slurm has put the job back into its queue

    def __str__(self) -> str:
        job = f", Slurm job {self.slurm_job}" if self.slurm_job else ""
        return f"process {self.pid} on {self.host}{job}"

    @property
    def stop(self) -> str:
        """The command that stops it."""
        return f"scancel {self.slurm_job}" if self.slurm_job else f"kill {self.pid}"


@dataclass(frozen=True)
class Found:
    """A lock that is there. owner: None where the file cannot be read. standing: `unknown` where
    only watching it could tell."""

    file: Path
    owner: Owner | None
    standing: Standing


def read(folder: Path) -> Found | None:
    """The lock on a checkpoint's folder, or None. It only looks, and does not wait."""
    newest = next(reversed(_locks(folder)), None)
    if newest is None or newest.suffix == RELEASED:
        return None
    owner = _owner(newest)
    return Found(newest, owner, standing(owner, _me()))


def standing(owner: Owner | None, here: Owner) -> Standing:
    """Whether a lock's holder lives, as far as the process `here` can tell at once."""
    if owner is None:
        return "unknown"
    if owner.slurm_job and owner.slurm_job == here.slurm_job and owner.restarts < here.restarts:
        return "stale"  # Slurm has ended a job before it starts it again
    if (owner.boot, owner.namespace) == (here.boot, here.namespace):
        return "live" if processes.started(owner.pid) == owner.started else "stale"
    return "unknown"


class Lock:
    """The lock on `folder`, held while its context lasts.

    Raises Locked, one sentence that names the holder, where another process holds it and lives.
    Where that cannot be known at once, entering takes up to PATIENCE seconds.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.lost = False  # whether another process was seen to have taken it
        self._open: int | None = None
        self._ended = threading.Event()
        self._beating = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> Self:
        try:
            while not self._taken():
                time.sleep(random.uniform(0, 0.1))  # two that met do not meet again
        except BaseException:  # a full disk, or a signal: nobody holds it
            self._release()
            raise
        self._beating.start()
        return self

    def __exit__(self, *exc) -> None:
        self._ended.set()
        self._beating.join()
        self._release()

    def _release(self) -> None:
        if self._open is not None:
            if self.held():
                with contextlib.suppress(FileNotFoundError):  # it was taken over just now
                    self._file.rename(self._file.with_suffix(RELEASED))
            os.close(self._open)
            self._open = None

    def held(self) -> bool:
        """Whether the lock is still this process's."""
        try:
            there = os.stat(self._file)
        except FileNotFoundError:
            self.lost = True
            return False
        ours = os.path.samestat(there, os.fstat(self._open))
        newest = max(map(_number, _locks(self.folder)), default=0)
        self.lost = not ours or newest != _number(self._file)
        return not self.lost

    def _taken(self) -> bool:
        """Whether the lock could be taken. False means to look again."""
        there = _locks(self.folder)
        newest = there[-1] if there else None
        if newest and newest.suffix != RELEASED and not self._is_free(newest):
            return False
        self._file = self.folder / _name(_number(newest) + 1 if newest else 1)
        try:
            self._open = os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            if self._file.is_dir():
                raise Locked(
                    f"{self._file}: a folder, where the lock of a training is kept; rename it"
                ) from None
            return False  # another process was faster
        os.write(self._open, (json.dumps(_me().model_dump()) + "\n").encode())
        os.fsync(self._open)
        if set(_locks(self.folder)) != {*there, self._file}:
            self._file.unlink(missing_ok=True)
            os.close(self._open)
            self._open = None
            return False
        for former in there:
            former.unlink(missing_ok=True)
        files.sync(self.folder)
        return True

    def _is_free(self, file: Path) -> bool:
        """Whether this lock's holder is gone, after watching it where nothing else tells. False
        where the lock itself has changed. Raises Locked where the holder lives."""
        owner = _owner(file)
        known = standing(owner, _me())
        if known == "unknown":
            watched = _watch(file, PATIENCE)
            if watched == "changed":
                return False
            known, owner = watched, _owner(file) or owner
        if known == "live":
            who = owner or "another process"
            how = f", or stop it ({owner.stop})" if owner else ""
            raise Locked(
                f"{self.folder}: this training is already being computed by {who}, which is alive; "
                f"wait for it{how}, and run the same command again"
            )
        print(f"{file}: its holder ({owner or 'unknown'}) is gone; going on in its place")
        return True

    def _beat(self) -> None:
        while not self._ended.wait(BEAT) and self.held():
            # who sees no sign of life takes over, and `held` tells that: no error is lost
            with contextlib.suppress(OSError):
                os.utime(self._open)


def _watch(file: Path, seconds: float) -> Literal["live", "stale", "changed"]:
    """Watch a lock's file until it shows a sign of life, for so many seconds at most. "changed"
    where it was released, or could not be read before and can be now."""
    began, unread, before = time.monotonic(), _owner(file) is None, _beats(file)
    while time.monotonic() - began < seconds:
        time.sleep(seconds / 200)
        if (now := _beats(file)) is None or (unread and _owner(file) is not None):
            return "changed"
        if now != before:
            return "live"
    return "stale"


def _beats(file: Path) -> int | None:
    """The time of a lock's last sign of life, by its file system's clock; None where it is gone."""
    try:
        with open(file, "rb") as opened:  # opening makes NFS ask the server
            return os.fstat(opened.fileno()).st_mtime_ns
    except FileNotFoundError:
        return None


def _owner(file: Path) -> Owner | None:
    """A lock's holder; None where the file is gone, or was not written to its end."""
    try:
        return records.read(file, Owner)
    except (FileNotFoundError, ValueError):
        return None


def _name(number: int) -> str:
    return "lock.json" if number == 1 else f"lock.{number}.json"


def _number(file: Path) -> int:
    return int(_NAME.fullmatch(file.name)[1] or 1)


def _locks(folder: Path) -> list[Path]:
    """The locks in a folder by their numbers, held or released. More than one is there only for
    moments; of one number, the one that is held comes last."""
    if not folder.is_dir():
        return []
    names = [entry.name for entry in os.scandir(folder) if not entry.is_dir()]
    found = [folder / name for name in names if _NAME.fullmatch(name)]
    return sorted(found, key=lambda file: (_number(file), file.suffix != RELEASED))


def _me() -> Owner:
    """This process."""
    return Owner(
        host=socket.gethostname(),
        pid=os.getpid(),
        started=processes.started(os.getpid()) or 0,
        boot=processes.boot(),
        namespace=processes.namespace(),
        slurm_job=os.environ.get("SLURM_JOB_ID"),
        restarts=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
    )
