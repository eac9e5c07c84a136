"""Mirrors: folders {org}/{name}/... that hold repositories as the hub does.

The folder of what was fetched from the hub (mofe/data/hub.py) is a mirror. So is a cluster's shared
copy, and so is the generated world of the mini study (mofe/data/world.py). What was fetched has a
manifest beside it, {org}/{name}.json; then only the files that it lists are read, and only if they
are as they were fetched.
"""

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from huggingface_hub.utils import filter_repo_objects

from mofe import records, units

FETCH = "snakemake --profile ... prefetch"


def repository(mirror: str, repo: str, revision: str | None = None) -> Path:
    """The folder of a repository in a mirror. Raises FileNotFoundError where there is none, and
    ValueError where it was fetched at another revision."""
    folder = Path(mirror) / repo
    if not folder.is_dir():
        pinned = f" (revision {revision})" if revision else ""
        raise FileNotFoundError(
            f"mirror: {mirror!r} has no folder {repo!r}{pinned}; add it there, or, "
            f"with 'mirror: null', fetch it from the hub: {FETCH}"
        )
    fetched = manifest(folder)
    if fetched and revision and revision not in (fetched.revision, fetched.commit):
        raise ValueError(
            f"{folder} was fetched at revision {fetched.revision} (commit {fetched.commit}), but "
            f"the study reads revision {revision}; fetch it again ({FETCH}), or give the study "
            "another folder ('hub', 'mirror')"
        )
    return folder


def manifest(folder: Path) -> records.HubManifest | None:
    """What was fetched into a repository's folder; None where nothing says so."""
    file = folder.with_name(f"{folder.name}.json")
    return records.read(file, records.HubManifest) if file.is_file() else None


def paths(folder: Path) -> list[str]:
    """The paths of a repository's files in it: of what was fetched those that the manifest lists,
    else all but hidden ones."""
    fetched = manifest(folder)
    return [file.path for file in fetched.files] if fetched else list(_walk(folder, set()))


def files(folder: Path, patterns: Sequence[str] = ("*",)) -> dict[str, Path]:
    """The files of a repository by their `paths`, sorted, links followed.

    patterns: of those that are wanted (`matching`). Raises FileNotFoundError where one of them is
    missing, or is a link that leads nowhere, and ValueError where one is not as it was fetched.
    """
    found = {path: folder / path for path in matching(paths(folder), patterns)}
    for path, file in found.items():
        if not file.exists():
            what = "is a link that leads nowhere" if file.is_symlink() else "is missing"
            raise FileNotFoundError(f"{folder / path} {what}; put the file back or fetch it again")
    if (fetched := manifest(folder)) and (told := faults(folder, fetched, found)):
        file = folder.with_name(f"{folder.name}.json")
        raise ValueError(
            f"{units.first(told)}; put the file back, or, where the study fetched it, fetch it "
            f"again: snakemake --profile ... --forcerun {file} -- {file}"
        )
    return {path: file.resolve() for path, file in found.items()}


def faults(
    folder: Path, fetched: records.HubManifest, wanted: Collection[str] | None = None
) -> list[str]:
    """What is not as it was fetched, each as a sentence that names the file. wanted: the paths of
    the files that are looked at; None for all."""
    return [
        f"{folder / file.path} {why}"
        for file in fetched.files
        if (wanted is None or file.path in wanted) and (why := _fault(folder / file.path, file))
    ]


def _fault(path: Path, file: records.HubFile) -> str | None:
    if not path.is_file():
        return "is missing"
    if (size := path.stat().st_size) != file.size:
        return f"has {size} bytes, and was fetched with {file.size}"
    with open(path, "rb") as content:
        same = hashlib.file_digest(content, "sha256").hexdigest() == file.sha256
    return None if same else "has another content than was fetched (its sha256 differs)"


def identity(folder: Path) -> str | None:
    """A hash of the names, sizes and times of change (in seconds, as archives keep them) of a
    folder's files, links followed; None where there is no such folder."""
    if not folder.is_dir():
        return None
    digest = hashlib.sha256()
    for path in sorted(_walk(folder, set())):
        file = folder / path
        state = file.stat() if file.exists() else file.lstat()
        digest.update(f"{path} {state.st_size} {int(state.st_mtime)}\n".encode())
    return digest.hexdigest()


def _walk(folder: Path, above: set[Path], inside: str = "") -> Iterator[str]:
    """The paths of all files below a folder. above: the real folders that lead here, so that a link
    to one of them is not followed for ever."""
    real = folder.resolve()
    if real in above:
        return
    for entry in os.scandir(folder):
        if entry.name.startswith("."):
            continue
        path = f"{inside}{entry.name}"
        if entry.is_dir():
            yield from _walk(Path(entry.path), above | {real}, f"{path}/")
        else:
            yield path


def matching(paths: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The paths that match one of the patterns, sorted. `*` matches across folders."""
    return sorted(filter_repo_objects(paths, allow_patterns=list(patterns)))
