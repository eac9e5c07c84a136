"""Fetching repositories from the hub, each at its revision, into folders {hub}/{org}/{name}.

A fetched folder is read like one of a mirror (mofe/data/sources.py, mofe/models/load.py). Beside it
lies its manifest {hub}/{org}/{name}.json: the commit that the revision stood for, and every file's
size and sha256. Files are compared with the hub's own hashes before the manifest is written.

Studies may share a folder, and it may hold other files: only what an earlier manifest lists is ever
removed. Snakemake deletes a job's output before the job, so a copy of the manifest lies hidden
beside it.
"""

import hashlib
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import HfApi, RepoFile, constants, hf_hub_url
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

from mofe import disk, records, units
from mofe.data import sampling, weights
from mofe.data.mirror import FETCH, matching
from mofe.files import write_atomic

CHUNK = 8 << 20  # bytes per request: what a broken connection can lose
PARTS = ".parts"  # the folder of incomplete files; hidden, so that no reader sees it


@dataclass(frozen=True)
class Listing:
    """The wanted files of a repository, at the commit that its revision stands for."""

    commit: str
    files: tuple[RepoFile, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def listing(repository: Mapping[str, Any]) -> Listing:
    """Ask the hub which of a repository's files match the patterns.

    repository: a plan.Repository as a mapping. Raises ConnectionError where the hub does not
    answer, ValueError where a pattern finds nothing or a model has no safetensors.
    """
    repo, kind, revision = (repository[key] for key in ("repo", "kind", "revision"))
    try:
        commit = _commit(repo, kind, revision)
        tree = HfApi().list_repo_tree(repo, recursive=True, repo_type=kind, revision=commit)
        there = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
        if kind == "model":  # the checkpoint is in the top folder; others hold it otherwise
            there = {path: entry for path, entry in there.items() if "/" not in path}
            remote = _Remote(repository, commit)
            used = weights.of(there, lambda path: remote.open(there[path]).read(there[path].size))
    except (HfHubHTTPError, httpx2.HTTPError, OfflineModeIsEnabled, json.JSONDecodeError) as error:
        raise ConnectionError(
            f"{repo} at revision {revision} cannot be had from {constants.ENDPOINT}: "
            f"{_reason(error, repository)}"
        ) from error
    for pattern in repository["files"] if repository["sample"] else ():
        if not matching(there, [pattern]):
            raise ValueError(f"{repo} at revision {revision} has no file {pattern!r}")
    wanted = matching(there, repository["files"])
    if kind == "model" and not used:
        raise ValueError(
            f"{repo} at revision {revision} has no weights as safetensors, and other formats can "
            "run code when they are loaded; choose a revision that has them"
        )
    if not wanted:
        raise ValueError(
            f"{repo} at revision {revision} has no file that matches {list(repository['files'])}; "
            "see 'files' of its source"
        )
    wanted += matching(there, ["README.md"]) if kind == "dataset" else []
    if kind == "model":
        wanted = sorted({*wanted} - weights.unused(wanted, used))
    return Listing(commit, tuple(there[path] for path in sorted(set(wanted))))


def fetch(repository: Mapping[str, Any], manifest: Path) -> str:
    """Fetch a repository into the folder of the manifest's name, then write the manifest.

    What an earlier call has left is used: complete files are not fetched again, and an incomplete
    one is continued. With `sample`, only the drawn row groups are fetched. Files of another commit
    are removed. Returns a line for the user. Raises what `listing` raises, and ValueError where a
    file is not what the hub says it is.
    """
    folder, found = manifest.with_suffix(""), listing(repository)
    if manifest.suffix != ".json" or not folder.name:
        raise ValueError(f"a manifest is named after its repository, with .json: {manifest}")
    folder.mkdir(parents=True, exist_ok=True)
    remote, into = _Remote(repository, found.commit), _Folder(folder, _earlier(manifest))
    sample = None
    try:
        if repository["sample"]:
            files, sample = _fetch_sample(repository, found, remote, into)
        else:
            _refuse_a_full_disk(found.size - present(folder, found), folder)
            files = [_fetch_file(file, remote, into) for file in found.files]
    except (HfHubHTTPError, httpx2.HTTPError) as error:
        told = f"{repository['repo']}: "
        if not _refused(error):
            told += f"the connection to {constants.ENDPOINT} was cut off, what has come is kept: "
        raise ConnectionError(told + _reason(error, repository)) from error
    kept, sample = into.kept(found.commit, files, sample)
    record = records.HubManifest(
        repo=repository["repo"],
        kind=repository["kind"],
        revision=repository["revision"],
        commit=found.commit,
        files=sorted([*files, *kept], key=lambda file: file.path),
        **({"sample": sample} if sample else {}),
    )
    into.remove(record)
    records.write(_hidden(manifest), record)
    records.write(manifest, record)
    size = sum(file.size for file in files)
    aside = f"; files of yours are now {', '.join(into.set_aside)}" if into.set_aside else ""
    return f"{len(files)} files, {units.size(size)}, at commit {found.commit}{aside}"


def _commit(repo: str, kind: str, revision: str) -> str:
    """The commit that a revision stands for. HfApi.repo_info asks the same, but gives up at once
    where the hub is busy (429, 503)."""
    address = f"{constants.ENDPOINT}/api/{kind}s/{repo}/revision/{quote(revision, safe='')}"
    answer = http_backoff("GET", address, headers=build_hf_headers())
    hf_raise_for_status(answer)
    return answer.json()["sha"]


def _refused(error: Exception) -> bool:
    """Whether the hub knows the repository, or may know it, and does not give it."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return isinstance(error, GatedRepoError) or status in (401, 403)


def _reason(error: Exception, repository: Mapping[str, Any]) -> str:
    """Why the hub gives nothing, and what to do."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    repo, kind = repository["repo"], repository["kind"]
    if _refused(error):
        page = f"{constants.ENDPOINT}/{'datasets/' if kind == 'dataset' else ''}{repo}"
        known = (
            "the repository is gated"
            if isinstance(error, GatedRepoError)
            else f"it answers {status}: the repository is private or gated, or there is none"
        )
        return (
            f"{known}; accept its licence on {page}, set the token of that account (`hf auth "
            f"login`, or HF_TOKEN), and run it again: {FETCH}"
        )
    if isinstance(error, RevisionNotFoundError):
        return "it has no such revision; mend 'revision'"
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return f"there is no such {kind}; mend the repository's name"
    if isinstance(error, json.JSONDecodeError):
        return (
            "what answers there is not the hub, such as a proxy's sign-in page; sign in, or set "
            f"HF_ENDPOINT to the hub's address, and run it again: {FETCH}"
        )
    if status == 429 or (status or 0) >= 500:
        return f"it is busy and answered {status} each time; run it again later: {FETCH}"
    told = (str(error).strip() or "it does not answer").splitlines()[0]
    return f"{told}; where there is internet, run: {FETCH}"


class _Remote:
    """A repository at a commit, for reading parts of its files."""

    def __init__(self, repository: Mapping[str, Any], commit: str):
        self.repository, self.commit = repository, commit
        self.root = f"{repository['repo']}@{commit}"

    def open(self, file: RepoFile) -> "_RemoteFile":
        repo, kind = self.repository["repo"], self.repository["kind"]
        url = hf_hub_url(
            repo, file.path, repo_type=kind, revision=self.commit, endpoint=constants.ENDPOINT
        )
        return _RemoteFile(url, file.size)


class _RemoteFile(io.RawIOBase):
    """A file of the hub for reading; each read is one request for just those bytes."""

    def __init__(self, url: str, size: int):
        self.url, self.size, self.place = url, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.place, os.SEEK_END: self.size}[whence]
        self.place = start + offset
        return self.place

    def readinto(self, buffer) -> int:
        end = min(self.place + len(buffer), self.size)
        if end <= self.place:
            return 0
        headers = {**build_hf_headers(), "Range": f"bytes={self.place}-{end - 1}"}
        answer = http_backoff(
            "GET", self.url, headers=headers, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT
        )
        hf_raise_for_status(answer)
        content = answer.content
        buffer[: len(content)] = content
        self.place += len(content)
        return len(content)


class _Folder:
    """A repository's folder, which others may use too.

    earlier: what an earlier fetch has put there. set_aside: the names that files have now which no
    fetch had put there, and which were in the way.
    """

    def __init__(self, folder: Path, earlier: records.HubManifest | None):
        self.path = folder
        self.listed = {file.path for file in earlier.files} if earlier else set()
        self.earlier = earlier
        self.set_aside: list[str] = []

    def put(self, part: Path, path: str) -> None:
        """Move a complete file to its place."""
        place = self.path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if path not in self.listed and os.path.lexists(place):
            numbers = ("", *map(str, range(1, 1000)))
            free = next(
                name
                for number in numbers
                if not os.path.lexists(name := place.with_name(f"{place.name}.yours{number}"))
            )
            place.rename(free)
            self.set_aside.append(str(free))
        os.replace(part, place)

    def kept(
        self, commit: str, files: Sequence[records.HubFile], sample: records.HubSample | None
    ) -> tuple[list[records.HubFile], records.HubSample | None]:
        """The files of an earlier fetch that stay: those of the same commit, but of a sample only
        if the new fetch has none of its files and no sample of its own. And the sample that is now
        in the folder."""
        if self.earlier is None or self.earlier.commit != commit:
            return [], sample
        fetched = {file.path for file in files}
        drawn = {g.file for g in self.earlier.sample.groups} if self.earlier.sample else set()
        stays = sample is None and not drawn & fetched
        gone = fetched if stays else fetched | drawn
        kept = [file for file in self.earlier.files if file.path not in gone]
        kept = [file for file in kept if (self.path / file.path).is_file()]
        return kept, self.earlier.sample if stays else sample

    def remove(self, record: records.HubManifest) -> None:
        """Remove what an earlier fetch has put there and the record does not list, and this fetch's
        folder of incomplete files, if nothing else is in it."""
        for path in self.listed - {file.path for file in record.files}:
            (self.path / path).unlink(missing_ok=True)
        for folder in sorted((self.path / PARTS).rglob("*"), reverse=True):
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        if (self.path / PARTS).is_dir() and not any((self.path / PARTS).iterdir()):
            (self.path / PARTS).rmdir()


def _hidden(manifest: Path) -> Path:
    return manifest.with_name(f".{manifest.name}")


def _earlier(manifest: Path) -> records.HubManifest | None:
    """What an earlier fetch has put into the folder."""
    found = next((file for file in (manifest, _hidden(manifest)) if file.is_file()), None)
    return records.read(found, records.HubManifest) if found else None


def _fetch_file(file: RepoFile, remote: _Remote, into: _Folder) -> records.HubFile:
    path = into.path / file.path
    if not _is_whole(path, file):
        # named by its hash, so that an incomplete file of another commit is never continued
        part = into.path / PARTS / _hubs_hash(file)
        part.parent.mkdir(exist_ok=True)
        with remote.open(file) as source, open(part, "ab") as out:
            source.seek(out.tell())
            while data := source.read(min(CHUNK, file.size - out.tell())):
                out.write(data)
                out.flush()
        if not _is_the_hubs(file, part):
            part.unlink()  # or the next call would use it again
            raise ValueError(
                f"{remote.root}: {file.path} is not what the hub says: its hash is not "
                f"{_hubs_hash(file)}; it was deleted here, so fetch it again"
            )
        into.put(part, file.path)
    return _described(path, file.path)


def _fetch_sample(
    repository: Mapping[str, Any], found: Listing, remote: _Remote, into: _Folder
) -> tuple[list[records.HubFile], records.HubSample | None]:
    """Fetch the drawn row groups into parquet files that are named like their shards. Returns the
    files' descriptions, and what was drawn. A file that an earlier call has left, of the same
    commit, is not drawn again. Where all shards are there as a whole, they stay, and nothing is
    drawn: readers draw from them."""
    sample, folder = repository["sample"], into.path
    shards = [file for file in found.files if matching([file.path], repository["files"])]
    files = [_fetch_file(file, remote, into) for file in found.files if file not in shards]
    if all(_is_whole(folder / file.path, file) for file in shards):
        return files + [_described(folder / file.path, file.path) for file in shards], None
    with sampling.Shards([remote.open(file) for file in shards]) as opened:
        drawn = opened.draw(sample["rows"], sample["seed"])
        parts = folder / PARTS / f"{found.commit}-{sample['rows']}-{sample['seed']}"
        drawn_from = list(dict.fromkeys(piece.shard for piece in drawn))
        for number in drawn_from:
            if (part := parts / shards[number].path).exists():
                continue
            tables = [opened.read(piece) for piece in drawn if piece.shard == number]
            sink = pa.BufferOutputStream()
            with pq.ParquetWriter(sink, tables[0].schema) as writer:
                for table in tables:
                    writer.write_table(table, row_group_size=len(table))
            part.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(part, sink.getvalue().to_pybytes())
        for path in (shards[number].path for number in drawn_from):
            into.put(parts / path, path)
            files.append(_described(folder / path, path))
        groups = [
            records.RowGroup(file=shards[p.shard].path, row_group=p.group, rows=p.rows)
            for p in drawn
        ]
        return files, records.HubSample(**sample, of_rows=opened.rows, groups=groups)


def _is_whole(path: Path, file: RepoFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size and _is_the_hubs(file, path)


def _described(path: Path, name: str) -> records.HubFile:
    sha256 = _hash(path, hashlib.sha256())
    return records.HubFile(path=name, size=path.stat().st_size, sha256=sha256)


def _hubs_hash(file: RepoFile) -> str:
    """The hub's hash of a file: sha256 of a large one, the git blob id of a small one."""
    return file.lfs.sha256 if file.lfs else file.blob_id


def _is_the_hubs(file: RepoFile, path: Path) -> bool:
    if file.lfs:
        return _hash(path, hashlib.sha256()) == file.lfs.sha256
    blob = hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
    return _hash(path, blob) == file.blob_id


def _hash(path: Path, digest) -> str:
    with open(path, "rb") as file:
        while data := file.read(CHUNK):
            digest.update(data)
    return digest.hexdigest()


def _refuse_a_full_disk(needed: int, folder: Path) -> None:
    free = disk.free(folder)
    if needed > free:
        raise ValueError(
            f"hub: {folder} needs {units.size(needed)} more, and the disk has {units.size(free)} "
            "free; set 'hub' to a folder on a larger one"
        )


# ------------------------------------------------------------------------------------- sizes


def present(folder: Path, found: Listing) -> int:
    """The bytes of a listing that are here already, in complete and incomplete files."""
    total = 0
    for file in found.files:
        path, part = folder / file.path, folder / PARTS / _hubs_hash(file)
        if path.is_file() and path.stat().st_size == file.size:
            total += file.size
        elif part.is_file():
            total += part.stat().st_size
    return total


def sizes(repositories: Sequence[Mapping[str, Any]], hub: Path) -> list[dict[str, Any]]:
    """What each repository takes: files, bytes, and the bytes that are here already; or the
    `problem`, where it cannot be fetched. A sample's bytes are those of the files that it is drawn
    from."""
    return [
        {
            "repo": repository["repo"],
            "revision": repository["revision"],
            "sample": repository["sample"]["rows"] if repository["sample"] else None,
            **_size(repository, hub),
        }
        for repository in repositories
    ]


def _size(repository: Mapping[str, Any], hub: Path) -> dict[str, Any]:
    try:
        found = listing(repository)
    except (ConnectionError, ValueError) as error:
        return {"problem": str(error)}
    here = 0 if repository["sample"] else present(hub / repository["repo"], found)
    return {"commit": found.commit, "files": len(found.files), "bytes": found.size, "present": here}


def table(stated: Sequence[Mapping[str, Any]]) -> str:
    """The sizes as lines for the terminal; what cannot be fetched comes last."""
    problems = [f"not to be had: {repo['problem']}" for repo in stated if "problem" in repo]
    stated = [repo for repo in stated if "problem" not in repo]
    head = ("repository", "revision", "files", "size", "here already")
    rows = [
        (
            repo["repo"],
            repo["revision"][:24],
            str(repo["files"]),
            units.size(repo["bytes"]),
            f"a sample of {repo['sample']:,} rows"
            if repo["sample"]
            else units.size(repo["present"]),
        )
        for repo in stated
    ]
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *rows)]
    missing = sum(repo["bytes"] - repo["present"] for repo in stated if not repo["sample"])
    sampled = ", and the samples' row groups" if any(repo["sample"] for repo in stated) else ""
    return "\n".join([*lines, f"to download: {units.size(missing)}{sampled}", *problems])


def summary(manifests: Sequence[str], instead: str) -> str:
    """A line on what was fetched or, without manifests, on what is read instead of the hub."""
    if not manifests:
        return f"nothing to download: data and models are read from {instead}"
    fetched = [records.read(file, records.HubManifest) for file in manifests]
    size = sum(file.size for manifest in fetched for file in manifest.files)
    return f"{len(fetched)} repositories are here, {units.size(size)}"


def main() -> None:
    """`python -m mofe.data.hub HUB`: print the sizes of the repositories that standard input gives
    as JSON, and write them to HUB/sizes.json (mofe/jobs/downloads.py). That none can be fetched is
    an error; if only some cannot, the others are fetched all the same."""
    hub = Path(sys.argv[1])
    stated = sizes(json.load(sys.stdin), hub)
    if all("problem" in repo for repo in stated):
        sys.exit("\n".join(f"hub: {repo['problem']}" for repo in stated))
    write_atomic(hub / "sizes.json", json.dumps(stated, indent=2) + "\n")
    print(table(stated), file=sys.stderr)


if __name__ == "__main__":
    main()
