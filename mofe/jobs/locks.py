"""Locks of runs that share a checkout.

A run of Snakemake writes what it reads and makes into `.snakemake/locks`, so that no other run
makes the same at once. Snakemake 9.27 removes that whole folder when any run ends: another run that
is about to lock fails with a traceback, and one at work is no longer protected. Here a run removes
its own locks only, and `--unlock` removes the locks, not their folder.
"""

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from snakemake.persistence.file import FilePersistence


def keep_those_of_other_runs() -> None:
    """Have Snakemake's runs leave each other's locks alone."""
    FilePersistence._read_locks = _read
    FilePersistence._write_locks = _write
    FilePersistence._delete_locks = _delete_own
    FilePersistence.cleanup_locks = _delete_all


def _read(self: FilePersistence) -> Iterator[tuple[str, str]]:
    for lock_type in ("input", "output"):
        for file in Path(self._lockdir).glob(f"*.{lock_type}.lock"):
            with suppress(FileNotFoundError):  # its run has ended meanwhile
                yield from ((lock_type, key) for key in file.read_text().splitlines())


def _write(self: FilePersistence, lock_type: str, keys: Iterable[str]) -> None:
    if not (text := "".join(f"{key}\n" for key in keys)):
        return
    folder = Path(self._lockdir)
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{socket.gethostname()}.{os.getpid()}"  # a lock is whole or not there
    try:
        aside.write_text(text)
        for number in count():
            file = folder / f"{number}.{lock_type}.lock"
            with suppress(FileExistsError):  # two runs that start at once take two numbers
                os.link(aside, file)
                self._lockfile[lock_type] = str(file)
                return
    finally:
        aside.unlink(missing_ok=True)


def _delete_own(self: FilePersistence) -> None:
    for file in self._lockfile.values():
        Path(file).unlink(missing_ok=True)
    self._lockfile.clear()


def _delete_all(self: FilePersistence) -> None:
    for file in Path(self._lockdir).glob("*.lock"):
        file.unlink(missing_ok=True)
