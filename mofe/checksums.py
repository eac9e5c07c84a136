"""Checksums of files: 128 bits of XXH3, as `xxhsum -H2` prints them.

They tell damage, not an attack. SHA-256 would take as long as loading a model, where XXH3 reads as
fast as memory.
"""

import mmap
import os
from collections.abc import Iterable

import xxhash

_BLOCK = 1 << 24  # bytes hashed at once
_known: dict[tuple[int, ...], str] = {}  # of files that this process has hashed, by their identity


def of(file: str | os.PathLike) -> str:
    """The checksum of a file's content, as 32 hexadecimal digits. Raises OSError where it cannot be
    read."""
    digest = xxhash.xxh3_128()
    with open(file, "rb") as content:
        size = os.fstat(content.fileno()).st_size
        if size:  # an empty file cannot be mapped
            with mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                for start in range(0, size, _BLOCK):
                    with memoryview(mapped) as whole, whole[start : start + _BLOCK] as block:
                        digest.update(block)
    return digest.hexdigest()


def of_bytes(content: bytes) -> str:
    """The checksum of a content, as of a file that holds it."""
    return xxhash.xxh3_128_hexdigest(content)


def known(file: str | os.PathLike) -> str:
    """As `of`, but a file that this process has hashed and that has not been touched since, by its
    times of change too, is not read again."""
    identity = _identity(file)
    if identity not in _known:
        _known[identity] = of(file)
    return _known[identity]


def remember(file: str | os.PathLike, checksum: str) -> None:
    """Have `known` answer this for a file, as long as it is not touched."""
    _known[_identity(file)] = checksum


def _identity(file: str | os.PathLike) -> tuple[int, ...]:
    state = os.stat(file)
    return (
        state.st_dev,
        state.st_ino,
        state.st_size,
        state.st_mtime_ns,
        state.st_ctime_ns,
    )


def together(files: Iterable[str | os.PathLike]) -> str:
    """One checksum of several files' names and contents, wherever and whenever they were made."""
    lines = sorted(f"{os.path.basename(file)} {known(file)}\n" for file in files)
    return of_bytes("".join(lines).encode())
