"""Checksums of what a job made: one file, `{first output}.sums`, in the format of `xxhsum -c`.

A line is `{hash}  {name}`, with names relative to the file's folder: every file that the job made,
and of a folder every file in it. The last line is a comment, which `xxhsum` skips, with the hash of
the lines above: without it, a file that was cut at the end of a line would look whole. Only
light modules are imported, because every job reads and writes such files.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mofe import checksums, files

ENDING = ".sums"
_LAST = "# these lines: "
_SNAKEMAKES = ".snakemake_timestamp"  # which Snakemake puts into a folder after the job
_DIGITS = frozenset("0123456789abcdef")


class Damaged(ValueError):
    """A file of checksums that is not whole."""


@dataclass(frozen=True)
class Fault:
    """A file that is not as it was made. why: ends a sentence that begins with the file. absent: it
    is not there, which on a shared disk may change."""

    file: str
    why: str
    absent: bool = False

    def __str__(self) -> str:
        return f"{self.file} {self.why}"


def path(output: str | os.PathLike) -> str:
    """Where the checksums are of a job with this first output."""
    return f"{os.fspath(output).rstrip('/')}{ENDING}"


def write(outputs: Sequence[str | os.PathLike]) -> str:
    """Write the checksums of what a job made, and return where. All of it is flushed to disk first,
    so that checksums never outlive a loss of power that their files do not survive.

    outputs: files and folders. Raises FileNotFoundError where one of them is not there.
    """
    target = path(outputs[0])
    folder = os.path.dirname(target)
    lines = []
    for file in files_of(outputs):
        _flush(file)
        lines.append(f"{checksums.known(file)}  {os.path.relpath(file, folder or '.')}\n")
    text = "".join(lines)
    files.write_atomic(target, f"{text}{_LAST}{checksums.of_bytes(text.encode())}\n")
    return target


def read(target: str | os.PathLike) -> dict[str, str]:
    """The checksums of a file of them, by the addresses of their files, seen from here. Raises
    FileNotFoundError, and Damaged where it is not whole."""
    with open(target, "rb") as file:
        content = file.read()
    *lines, last = content.decode("utf-8", "replace").splitlines(keepends=True) or [""]
    body = "".join(lines)
    if last != f"{_LAST}{checksums.of_bytes(body.encode('utf-8', 'replace'))}\n":
        why = "is empty" if not content else "is cut off or was changed"
        raise Damaged(f"{target}: the file of checksums {why}")
    folder, found = os.path.dirname(target), {}
    for line in lines:
        digest, _, name = line.rstrip("\n").partition("  ")
        if len(digest) != 32 or not _DIGITS.issuperset(digest) or not name:
            raise Damaged(f"{target}: the file of checksums has the line {line.strip()[:60]!r}")
        found[os.path.normpath(os.path.join(folder, name))] = digest
    return found


def covered(sums: Mapping[str, str], output: str | os.PathLike) -> dict[str, str]:
    """The checksums of one output: of the file, or of all files in the folder."""
    own = os.path.normpath(output)
    return {f: digest for f, digest in sums.items() if f == own or f.startswith(f"{own}/")}


def faults(sums: Mapping[str, str]) -> list[Fault]:
    """Every file whose content is not that of its checksum. Files that are in a folder beside them,
    such as notes, are of no concern."""
    return [fault for file, digest in sums.items() if (fault := fault_of(file, digest))]


def fault_of(file: str, digest: str) -> Fault | None:
    """What is wrong with a file that should have this checksum, if anything."""
    shown = file
    if os.path.islink(file):
        shown = os.path.realpath(file)
        shown = os.path.relpath(shown) if not os.path.isabs(file) else shown
        shown = f"{shown} (to which {file} leads)"
    if not os.path.lexists(file):
        return Fault(file, "is missing", absent=True)
    try:
        found = checksums.known(file)
    except FileNotFoundError:
        return Fault(shown, "is missing", absent=True)
    except OSError as error:
        return Fault(shown, f"cannot be read ({error.strerror})")
    if found == digest:
        return None
    size = os.path.getsize(file)
    what = "has another content than it was made with" if size else "is empty"
    return Fault(shown, f"{what} (checksum {found[:8]}, not {digest[:8]})" if size else what)


def wrong(file: str | os.PathLike, first: str | os.PathLike) -> str | None:
    """What is wrong with one file of the job with this first output, in words; None also where
    there are no checksums of it."""
    try:
        known = read(path(first))
    except FileNotFoundError:
        return None
    except (Damaged, OSError) as error:
        return str(error)
    found = faults(covered(known, file))
    return str(found[0]) if found else None


def files_of(outputs: Iterable[str | os.PathLike]) -> list[str]:
    """Every file of these outputs, in order."""
    found = []
    for output in map(os.fspath, outputs):
        if os.path.isdir(output):
            inside = os.walk(output, followlinks=True)
            found += sorted(
                os.path.join(top, name)
                for top, _, names in inside
                for name in names
                if name != _SNAKEMAKES
            )
        else:
            found.append(output)
    return found


def _flush(file: str) -> None:
    if os.path.islink(file):  # what it leads to is not ours
        return
    with open(file, "rb") as content:
        os.fsync(content.fileno())
