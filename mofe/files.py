"""Writing files so that a reader finds a complete file or none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_atomic(path: str | os.PathLike, content: str | bytes) -> None:
    """Write `content` to `path` completely or not at all (see `atomic`).

    Text is written as UTF-8; its line ends are not changed.
    """
    with atomic(path) as temporary:
        temporary.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)


@contextmanager
def atomic(path: str | os.PathLike) -> Iterator[Path]:
    """A temporary path for a file, which is then flushed to disk and renamed to `path`.

    After a failure, such as a full disk, the old file is still there and the temporary file is not.
    Missing folders are made. The file may be read by whom the umask says, whatever wrote it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The path is in the same folder, because a rename is atomic only within one file system. It has
    # the process in its name, because two jobs may write the same file.
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield temporary
        permit(temporary)
        sync(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def permit(file: str | os.PathLike) -> None:
    """Give a file the permissions that the umask says. safetensors gives its files to their owner
    alone, so that nobody else could read a shared folder of results."""
    umask = os.umask(0o077)
    os.umask(umask)
    os.chmod(file, 0o666 & ~umask)


def sync(path: str | os.PathLike) -> None:
    """Flush a file, or the names in a folder, to disk, so that they survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
