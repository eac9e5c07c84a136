"""Room on a disk: how much is free, and whether an error says that there is none, however it is
wrapped. Only the standard library and light modules are imported, as in mofe/jobs/job.py."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from mofe import units

FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}
# libraries in Rust and C++ tell the system's error only in their texts
_SAID = {number: f"{re.escape(os.strerror(number))}|\\bos error {number}\\b" for number in FULL}
_FILE = re.compile(r": '([^'\n]+)'")


class Full(OSError):
    """A disk is full; the text (`strerror`) is a whole sentence about it."""


def told(error: BaseException, places: Sequence[str] = ()) -> str | None:
    """A sentence where an error, or one that it wraps or follows from, is that of a full disk; else
    None. places: folders that the job writes to; where the error names no file, the fullest of them
    is named."""
    for one in chain(error):
        if isinstance(one, Full):
            return one.strerror
        if (number := _number(one)) is None:
            continue
        named = _FILE.search(str(one))
        file = getattr(one, "filename", None) or (named[1] if named else None)
        where = os.fsdecode(file) if file else min((*places, tempfile.gettempdir()), key=free)
        return (
            f"{FULL[number]}: {where}: {os.strerror(number)}, {units.size(free(where))} free "
            "there; make room and run the same command again, which goes on from what is done"
        )
    return None


def full(error: BaseException) -> int | None:
    """The system's number (errno) where an error, or one that it wraps or follows from, is that of
    a full disk; else None."""
    return next((n for n in map(_number, chain(error)) if n is not None), None)


def chain(error: BaseException) -> Iterator[BaseException]:
    """An error and all those that it wraps or was raised in the course of."""
    found: dict[int, BaseException] = {}
    left = [error]
    while left:
        one = left.pop(0)
        if isinstance(one, BaseException) and id(one) not in found:
            found[id(one)] = one
            yield one
            left += [one.__cause__, one.__context__, *getattr(one, "exceptions", ()), *one.args]


def free(place: str | os.PathLike) -> int:
    """The bytes that are free on the disk of a file or folder, which need not be there."""
    path = Path(place).absolute()
    return shutil.disk_usage(next(p for p in (path, *path.parents) if p.exists())).free


def _number(error: BaseException) -> int | None:
    """The number of a full disk's error by itself, without what it wraps."""
    if isinstance(error, OSError) and error.errno in FULL:
        return error.errno
    text = str(error)
    found = (n for n, words in _SAID.items() if re.search(words, text, re.IGNORECASE))
    return next(found, None)
