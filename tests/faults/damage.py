"""Damage to files, drawn from a seed, and what a power cut leaves."""

import os
import random
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.faults.study import files, own


def _flip(content: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(content))
    content[at] ^= 1 << rng.randrange(8)


def _zeros(content: bytearray, rng: random.Random) -> None:
    half = len(content) // 2
    content[half:] = bytes(len(content) - half)


def _cut(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


def _last(content: bytearray, rng: random.Random) -> None:
    del content[-1:]


def _empty(content: bytearray, rng: random.Random) -> None:
    content.clear()


def _longer(content: bytearray, rng: random.Random) -> None:
    content.extend(content[-7:])


# Changes of a file's content.
CONTENT: dict[str, Callable[[bytearray, random.Random], None]] = {
    "a flipped bit": _flip,
    "half of it zeros": _zeros,
    "a cut": _cut,
    "its last byte lost": _last,
    "emptied": _empty,
    "bytes added": _longer,
}


def change(file: Path, kind: str, seed: int, keep_time: bool) -> bool:
    """Change a file's content; keep_time: with its old times. Returns whether it differs now."""
    own(file)
    before, stat = file.read_bytes(), file.stat()
    content = bytearray(before)
    if content:
        CONTENT[kind](content, random.Random(seed))
    file.write_bytes(bytes(content))
    if keep_time:
        os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    return bytes(content) != before


def swap(file: Path, other: Path) -> bool:
    """Exchange the contents of two files, times and all. Returns whether they differ."""
    own(file)
    own(other)
    if file.read_bytes() == other.read_bytes():
        return False
    aside = file.with_name(file.name + ".aside")
    shutil.move(file, aside)
    shutil.move(other, file)
    shutil.move(aside, other)
    return True


def cut_power(below: list[Path], seen: Mapping[str, Any], since: int, seed: int) -> list[str]:
    """What a power cut leaves of a process that was killed: the last renames without a sync of
    their folder may be undone, and files whose last write was not synced lose content.

    seen: the report of the watch. since: files that were changed before (ns) are on disk. Returns
    what was lost.
    """
    rng, lost = random.Random(seed), []
    undone = rng.randint(0, len(seen["renamed"]))
    for old, new, shadow in list(reversed(seen["renamed"]))[:undone]:
        if os.path.lexists(new) and not os.path.lexists(old):
            os.makedirs(os.path.dirname(old), exist_ok=True)
            os.rename(new, old)
            if shadow:
                os.rename(shadow, new)
            lost.append(f"the renaming to {new}")
    for file in sorted({file for path in below if path.exists() for file in files(path)}):
        stat = file.stat()
        kept = tuple(seen["synced"].get(str(stat.st_ino), ()))
        if stat.st_mtime_ns < since or kept == (stat.st_size, stat.st_mtime_ns):
            continue
        kind = rng.choice(["none", "emptied", "half of it zeros", "a cut"])
        if kind != "none" and change(file, kind, rng.randrange(1 << 30), keep_time=True):
            lost.append(f"{file}: {kind}")
    return lost
