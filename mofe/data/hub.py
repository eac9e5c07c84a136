"""Fetching repositories from the hub, each at its revision, into folders {hub}/{org}/{name}.

huggingface_hub downloads (`snapshot_download`: several files at once, and by Xet where the hub
offers it). What is ours is which files are wanted, the comparison of each file with the hub's own
hash, and the manifest {hub}/{org}/{name}.json: the commit that the revision stood for, and every
file's size and sha256. A fetched folder is read like one of a mirror (mofe/data/sources.py,
mofe/models/load.py).

Studies may share a folder, and it may hold other files: only what an earlier manifest lists is ever
removed. So files are downloaded into a hidden folder first. Snakemake deletes a job's output before
the job, so a copy of the manifest lies hidden beside it.
"""

import glob
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import (
    DryRunFileInfo,
    HfApi,
    HfFileSystem,
    RepoFile,
    constants,
    snapshot_download,
)
from huggingface_hub.utils import (
    WeakFileLock,
    build_hf_headers,
    disable_progress_bars,
    hf_raise_for_status,
    http_backoff,
)
from huggingface_hub.utils.sha import git_hash

from mofe import disk, records, stops, units
from mofe.data import sampling, weights
from mofe.data.mirror import matching
from mofe.data.refusals import Unreachable, one_sentence
from mofe.files import write_atomic
from mofe.progress import Progress

PARTS = ".parts"  # the folder that files are downloaded into; hidden, so that no reader sees it


@dataclass(frozen=True)
class Listing:
    """The wanted files of a repository, at the commit that its revision stands for."""

    commit: str
    files: tuple[RepoFile, ...]

    @property
    def size(self) -> int:
        return sum(file.size for file in self.files)


def listing(repository: Mapping[str, Any]) -> Listing:
    """Ask the hub which of a repository's files are wanted: of a data set those that match the
    patterns, of a model those of them that are its checkpoint's (mofe/data/weights.py).

    repository: a plan.Repository as a mapping. Raises ConnectionError where the hub does not
    answer, ValueError where a pattern finds nothing or a model has no whole safetensors.
    """
    repo, kind, revision = (repository[key] for key in ("repo", "kind", "revision"))
    at, patterns = f"{repo} at revision {revision}", repository["files"]
    with one_sentence(repository, f"{at} cannot be had from {constants.ENDPOINT}: "):
        commit = _commit(repo, kind, revision)
        tree = HfApi().list_repo_tree(repo, recursive=True, repo_type=kind, revision=commit)
        there = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
        index = None
        if kind == "model" and (file := there.get(weights.INDEX)):
            index = _opened(repository, commit, file).read(file.size)
    if kind == "model":
        try:
            wanted = weights.wanted(there, patterns, index)
        except ValueError as error:
            raise ValueError(f"{at}: {error}") from error
    else:
        for pattern in patterns if repository["sample"] else ():
            if not matching(there, [pattern]):
                raise ValueError(f"{at} has no file {pattern!r}")
        wanted = matching(there, patterns)
        wanted += matching(there, ["README.md"]) if wanted else []
    if not wanted:
        raise ValueError(
            f"{at} has no file that matches {list(patterns)}; see 'files' of its source"
        )
    return Listing(commit, tuple(there[path] for path in sorted(set(wanted))))


def fetch(repository: Mapping[str, Any], manifest: Path) -> str:
    """Fetch a repository into the folder of the manifest's name, then write the manifest.

    Complete files that an earlier call has left are used. With `sample`, only the drawn row groups
    are fetched. Files of another commit are removed. A call waits while another one fetches the
    same repository. Returns a line for the user. Raises what `listing` raises, and ValueError where
    a file is not what the hub says it is.
    """
    folder, found = manifest.with_suffix(""), listing(repository)
    if manifest.suffix != ".json" or not folder.name:
        raise ValueError(f"a manifest is named after its repository, with .json: {manifest}")
    folder.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(folder.with_name(f".{folder.name}.lock")):
        return _fetch(repository, manifest, found, _Folder(folder, _earlier(manifest)))


def _fetch(repository: Mapping[str, Any], manifest: Path, found: Listing, into: "_Folder") -> str:
    cut_off = (
        f"{repository['repo']}: the connection to {constants.ENDPOINT} was cut off, complete files "
        "are kept: "
    )
    sample = None
    with one_sentence(repository, f"{repository['repo']}: ", cut_off):
        if repository["sample"]:
            files, sample = _fetch_sample(repository, found, into)
        else:
            files = _fetch_files(repository, found.commit, found.files, into)
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


# ------------------------------------------------------------------------------------- files


class _Folder:
    """A repository's folder, which others may use too.

    earlier: what an earlier fetch has put there. set_aside: the names that files have now which no
    fetch had put there, and which were in the way.
    """

    def __init__(self, folder: Path, earlier: records.HubManifest | None):
        self.path, self.parts = folder, folder / PARTS
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
        """Remove what an earlier fetch has put there and the record does not list, and the folder
        of downloads."""
        for path in self.listed - {file.path for file in record.files}:
            (self.path / path).unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            shutil.rmtree(self.parts)


def _hidden(manifest: Path) -> Path:
    return manifest.with_name(f".{manifest.name}")


def _earlier(manifest: Path) -> records.HubManifest | None:
    """What an earlier fetch has put into the folder."""
    found = next((file for file in (manifest, _hidden(manifest)) if file.is_file()), None)
    return records.read(found, records.HubManifest) if found else None


def _fetch_files(
    repository: Mapping[str, Any], commit: str, files: Sequence[RepoFile], into: _Folder
) -> list[records.HubFile]:
    """Fetch those of the files that are not in the folder as the hub has them. Returns all files'
    descriptions."""
    described = {file.path: _whole(into.path / file.path, file) for file in files}
    missing = [file for file in files if described[file.path] is None]
    if missing:
        for part in into.parts.rglob("*.incomplete"):  # of a call that was killed; none goes on
            part.unlink()
        _refuse_a_full_disk(_left(missing, into.parts), into.path)
        with stops.noted() as stopped:
            _snapshot(repository, commit, missing, into.parts, tqdm_class=_bar(stopped))
    for file in missing:
        part = into.parts / file.path
        described[file.path] = _whole(part, file)
        if described[file.path] is None:
            part.unlink(missing_ok=True)  # or the next call would use it again
            raise ValueError(
                f"{repository['repo']}@{commit}: {file.path} is not what the hub says: its hash is "
                f"not {_hubs_hash(file)}; it was deleted here, so fetch it again"
            )
        into.put(part, file.path)
    return [found for found in described.values() if found is not None]


def _snapshot(
    repository: Mapping[str, Any], commit: str, files: Sequence[RepoFile], folder: Path, **options
) -> Any:
    """huggingface_hub's download of just these files."""
    return snapshot_download(
        repository["repo"],
        repo_type=repository["kind"],
        revision=commit,
        local_dir=folder,
        allow_patterns=[glob.escape(file.path) for file in files],
        **options,
    )


def _bar(stopped) -> type[Progress]:
    """huggingface_hub's bars as ours. One ends the threads of a download once `stopped` is set: the
    library waits for them, however much they have left."""

    class Bar(Progress):
        def update(self, n=1):
            if stopped.is_set():
                raise stops.Stopped("the download was stopped")
            return super().update(n)

    return Bar


def _fetch_sample(
    repository: Mapping[str, Any], found: Listing, into: _Folder
) -> tuple[list[records.HubFile], records.HubSample | None]:
    """Fetch the drawn row groups into parquet files that are named like their shards. Returns the
    files' descriptions, and what was drawn. A file that an earlier call has left, of the same
    commit, is not drawn again. Where all shards are there as a whole, they stay, and nothing is
    drawn: readers draw from them."""
    sample, folder = repository["sample"], into.path
    shards = [file for file in found.files if matching([file.path], repository["files"])]
    others = [file for file in found.files if file not in shards]
    files = _fetch_files(repository, found.commit, others, into)
    whole = [_whole(folder / file.path, file) for file in shards]
    if all(whole):
        return files + whole, None
    with sampling.Shards([_opened(repository, found.commit, file) for file in shards]) as opened:
        drawn = opened.draw(sample["rows"], sample["seed"])
        parts = into.parts / f"{found.commit}-{sample['rows']}-{sample['seed']}"
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


def _opened(repository: Mapping[str, Any], commit: str, file: RepoFile) -> Any:
    """A file of the hub for reading; each read is one request for just those bytes."""
    kind = "datasets/" if repository["kind"] == "dataset" else ""
    address = f"{kind}{repository['repo']}@{commit}/{file.path}"
    system = HfFileSystem(endpoint=constants.ENDPOINT)
    return system.open(address, "rb", size=file.size, cache_type="none")


def _whole(path: Path, file: RepoFile) -> records.HubFile | None:
    """A file's description, if it is what the hub has."""
    if not path.is_file() or path.stat().st_size != file.size:
        return None
    found = _described(path, file.path)
    same = found.sha256 if file.lfs else git_hash(path.read_bytes())
    return found if same == _hubs_hash(file) else None


def _described(path: Path, name: str) -> records.HubFile:
    with open(path, "rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return records.HubFile(path=name, size=path.stat().st_size, sha256=sha256)


def _hubs_hash(file: RepoFile) -> str:
    """The hub's hash of a file: sha256 of a large one, the git blob id of a small one."""
    return file.lfs.sha256 if file.lfs else file.blob_id


def _left(files: Sequence[RepoFile], folder: Path) -> int:
    """The bytes of those files that are not in a folder."""
    return sum(file.size for file in files if not _is_here(folder / file.path, file))


def _is_here(path: Path, file: RepoFile) -> bool:
    """Whether there is such a file, by its size."""
    return path.is_file() and path.stat().st_size == file.size


def _refuse_a_full_disk(needed: int, folder: Path) -> None:
    free = disk.free(folder)
    if needed > free:
        raise ValueError(
            f"hub: {folder} needs {units.size(needed)} more, and the disk has {units.size(free)} "
            "free; set 'hub' to a folder on a larger one"
        )


# ------------------------------------------------------------------------------------- sizes


def to_download(repository: Mapping[str, Any], found: Listing, folder: Path) -> int:
    """The bytes of a listing that will be downloaded, by huggingface_hub's dry run. Complete files
    in the repository's folder, those of an interrupted call and those in the library's own cache
    are not. Raises ConnectionError where a file cannot be had."""
    missing = [file for file in found.files if not _is_here(folder / file.path, file)]
    if not missing:
        return 0
    about = f"{repository['repo']} at revision {repository['revision']} cannot be had from "
    with one_sentence(repository, f"{about}{constants.ENDPOINT}: "):
        stated: list[DryRunFileInfo] = _snapshot(
            repository, found.commit, missing, folder / PARTS, dry_run=True
        )
    return sum(file.file_size for file in stated if file.will_download)


def sizes(repositories: Sequence[Mapping[str, Any]], hub: Path) -> list[dict[str, Any]]:
    """What each repository takes: files, bytes, and the bytes that are here already; or the
    `problem`, where it cannot be fetched. A sample's bytes are those of the files that it is drawn
    from. Raises Unreachable at the first one where the hub cannot be reached: each try takes half a
    minute."""
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
        left = found.size
        if not repository["sample"]:
            left = to_download(repository, found, hub / repository["repo"])
    except Unreachable:
        raise
    except (ConnectionError, ValueError) as error:
        return {"problem": str(error)}
    here = found.size - left
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
    disable_progress_bars()  # of dry runs, which take a moment
    try:
        stated = sizes(json.load(sys.stdin), hub)
    except Unreachable as error:
        sys.exit(f"hub: {error}")
    if all("problem" in repo for repo in stated):
        sys.exit("\n".join(f"hub: {repo['problem']}" for repo in stated))
    write_atomic(hub / "sizes.json", json.dumps(stated, indent=2) + "\n")
    print(table(stated), file=sys.stderr)


if __name__ == "__main__":
    main()
