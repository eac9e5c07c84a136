"""Checksums of files: 128 bits of XXH3, as `xxhsum -H2` prints them.

They tell damage, not an attack. SHA-256 would take as long as loading a model, where XXH3 reads as
fast as memory. A large file is hashed beside what reads it: `ahead` begins, and what depends on the
result ends in `settled`.
"""

import mmap
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

import xxhash

LARGE = 1 << 26  # bytes of a file that is worth a thread
_BLOCK = 1 << 24  # bytes hashed at once
_known: dict[tuple[int, ...], str] = {}  # of files that this process has hashed, by their identity
_begun: dict[tuple[int, ...], threading.Thread] = {}  # what hashes a file now
_later: list[Callable[[], None]] = []
os.register_at_fork(after_in_child=_begun.clear)  # a fork has no threads of its parent


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
    # one thread hashes several files in turn, so this waits for all before it too
    if (thread := _begun.get(identity)) and identity not in _known:
        thread.join()
    if identity not in _known:
        _known[identity] = of(file)
    return _known[identity]


def ahead(files: Iterable[str | os.PathLike]) -> None:
    """Begin to hash files in a thread, one after the other, for `known`."""
    todo = {_identity(file): file for file in files}
    todo = {i: file for i, file in todo.items() if i not in _known and i not in _begun}

    def hash_them() -> None:
        for identity, file in todo.items():
            with suppress(OSError):  # `known` meets it again, where it can be told
                _known[identity] = of(file)

    thread = threading.Thread(target=hash_them, daemon=True)
    with suppress(RuntimeError):  # no thread can be started: `known` hashes them by itself
        thread.start()
        _begun.update(dict.fromkeys(todo, thread))


def later(check: Callable[[], None]) -> None:
    """Leave a check, which raises where a file is damaged, to the end of `settled`."""
    _later.append(check)


@contextmanager
def settled() -> Iterator[None]:
    """A context in which files are read that are still being hashed. At its end, also by an error,
    of which damage would be the cause, it makes the checks that were left for later."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):  # signals too
        _later.clear()
        raise
    except BaseException:  # a library's panic in another language is no Exception
        _settle()
        raise
    _settle()


def _settle() -> None:
    checks = list(_later)
    _later.clear()
    for check in checks:
        check()


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
