"""Fetching repositories from the hub, each at its revision, into folders {hub}/{org}/{name}.

A fetched folder is read like one of a mirror (mofe/data/sources.py, mofe/models/load.py). Beside it
lies its manifest {hub}/{org}/{name}.json: the commit that the revision stood for, and every file's
size and sha256. Files are compared with the hub's own hashes before the manifest is written.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import HfApi, HfFileSystem, RepoFile, constants
from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

from mofe import records, units
from mofe.data import sampling, weights
from mofe.data.mirror import matching
from mofe.files import write_atomic

PREFETCH = "snakemake --profile ... prefetch"
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
    api = HfApi()
    try:
        commit = api.repo_info(repo, repo_type=kind, revision=revision).sha
        tree = api.list_repo_tree(repo, recursive=True, repo_type=kind, revision=commit)
        there = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
        if kind == "model":  # the checkpoint is in the top folder; others hold it otherwise
            there = {path: entry for path, entry in there.items() if "/" not in path}
            remote = _Remote(repository, commit)
            used = weights.of(there, lambda path: remote.open(there[path]).read())
    except (HfHubHTTPError, httpx2.HTTPError, OfflineModeIsEnabled) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConnectionError(
            f"{repo} at revision {revision} cannot be had from {constants.ENDPOINT} ({reason}); "
            f"where there is internet, run: {PREFETCH}"
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
    remote = _Remote(repository, found.commit)
    sample = {}
    try:
        if repository["sample"]:
            files, sample["sample"] = _fetch_sample(repository, found, remote, folder)
        else:
            _refuse_a_full_disk(found.size - present(folder, found), folder)
            files = [_fetch_file(file, remote, folder) for file in found.files]
    except (HfHubHTTPError, httpx2.HTTPError) as error:
        raise ConnectionError(
            f"{repository['repo']}: the connection to {constants.ENDPOINT} was cut off ({error}); "
            f"what has come is kept, so run it again: {PREFETCH}"
        ) from error
    record = records.HubManifest(
        repo=repository["repo"],
        kind=repository["kind"],
        revision=repository["revision"],
        commit=found.commit,
        files=files,
        **sample,
    )
    _remove_all_but({file.path for file in files}, folder)
    records.write(manifest, record)
    size = sum(file.size for file in files)
    return f"{len(files)} files, {units.size(size)}, at commit {found.commit}"


class _Remote:
    """A repository at a commit, for reading parts of its files."""

    def __init__(self, repository: Mapping[str, Any], commit: str):
        # each instance asks anew: fsspec would return an earlier instance with its old listings
        self.system = HfFileSystem(skip_instance_cache=True)
        prefix = "datasets/" if repository["kind"] == "dataset" else ""
        self.root = f"{prefix}{repository['repo']}@{commit}"

    def open(self, file: RepoFile):
        """A file for reading; each read is one request for just those bytes."""
        return self.system.open(
            f"{self.root}/{file.path}", "rb", size=file.size, block_size=CHUNK, cache_type="none"
        )


def _fetch_file(file: RepoFile, remote: _Remote, folder: Path) -> records.HubFile:
    path = folder / file.path
    if not (path.is_file() and path.stat().st_size == file.size and _is_the_hubs(file, path)):
        # named by its hash, so that an incomplete file of another commit is never continued
        part = folder / PARTS / _hubs_hash(file)
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
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(part, path)
    return _described(path, file.path)


def _fetch_sample(
    repository: Mapping[str, Any], found: Listing, remote: _Remote, folder: Path
) -> tuple[list[records.HubFile], records.HubSample]:
    """Fetch the drawn row groups into parquet files that are named like their shards. Returns the
    files' descriptions, and what was drawn. A file that an earlier call has left, of the same
    commit, is not drawn again."""
    sample = repository["sample"]
    shards = [file for file in found.files if matching([file.path], repository["files"])]
    files = [_fetch_file(file, remote, folder) for file in found.files if file not in shards]
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
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            os.replace(parts / path, folder / path)
            files.append(_described(folder / path, path))
        groups = [
            records.RowGroup(file=shards[p.shard].path, row_group=p.group, rows=p.rows)
            for p in drawn
        ]
        return files, records.HubSample(**sample, of_rows=opened.rows, groups=groups)


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


def _remove_all_but(paths: set[str], folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file() and path.relative_to(folder).as_posix() not in paths:
            path.unlink()
    shutil.rmtree(folder / PARTS, ignore_errors=True)


def _refuse_a_full_disk(needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
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
    as JSON, and write them to HUB/sizes.json (mofe/jobs/downloads.py). That none can be fetched is an
    error; if only some cannot, the others are fetched all the same."""
    hub = Path(sys.argv[1])
    stated = sizes(json.load(sys.stdin), hub)
    if all("problem" in repo for repo in stated):
        sys.exit("\n".join(f"hub: {repo['problem']}" for repo in stated))
    write_atomic(hub / "sizes.json", json.dumps(stated, indent=2) + "\n")
    print(table(stated), file=sys.stderr)


if __name__ == "__main__":
    main()
