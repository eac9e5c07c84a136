"""Rows of a data set, from a folder that is laid out like its repository on the hub.

The folder is in a mirror (mofe/data/mirror.py). Nothing here reads the hub itself. Which files a
split has is decided as `datasets` decides it: by the repository's card, else by their names. Files
of texts are read by mofe/data/readers.py, which guesses no types; other formats by `datasets`.
"""

import glob
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import yaml
from datasets import ClassLabel, Dataset, DatasetInfo, Features, List, Value, load_dataset
from datasets.data_files import (
    EmptyDatasetError,
    get_data_patterns,
    resolve_pattern,
    sanitize_patterns,
)
from datasets.exceptions import DatasetsError
from datasets.info import DatasetInfosDict
from datasets.utils.logging import disable_progress_bar
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard

from mofe.data import mirror as mirrors
from mofe.data import readers, sampling

disable_progress_bar()

CARD = "README.md"
NO_ROWS = {"state.json"}  # beside the .arrow files of Dataset.save_to_disk
GUESSING = ("csv", "json")  # readers of `datasets` that guess a column's type from its cells
# Keys of a card's configuration that say nothing about how its files are read.
SAID = {"data_files", "data_dir", "default", "description", "features", "version"}


def load(source: Mapping[str, Any], subset: str | None, split: str, mirror: str) -> Dataset:
    """The rows of one split, or the drawn rows of a source with a sample.

    source: {"repo": "org/name", "revision", "files": patterns that choose among the files of a
    fetched folder, "sample": {"files": patterns, "rows": number, "seed": seed} if rows are drawn}.
    Raises FileNotFoundError where the mirror lacks the repository or a file, and ValueError, with
    repository, file and place, where the rows cannot be read as they are written.
    """
    folder = mirrors.repository(mirror, source["repo"], source.get("revision"))
    there = _wanted(folder, source)
    if sample := source.get("sample"):
        return _dataset(_drawn(folder, there, sample), source["repo"], "parquet", {})
    with _read_by_datasets(folder, there) as stage:
        described = _described(stage, source["repo"], subset)
        paths = _split(stage, there, described, source["repo"], subset, split)
    kind, paths = _of_rows(paths, source["repo"], split)
    if kind is None:
        return _by_datasets(there, paths, source["repo"], split)
    settings = {k: v for k, v in described.config.items() if k not in SAID}
    if unknown := sorted(settings.keys() - readers.SETTINGS[kind]):
        raise ValueError(
            f"{source['repo']}: README.md asks for {', '.join(unknown)} when {paths[0]} is read, "
            f"which is not supported; save the file so that it can be read without"
        )
    named = {f"{source['repo']}/{path}": there[path] for path in paths}
    return _dataset(readers.read(kind, named, settings), source["repo"], kind, described.features)


def _wanted(folder: Path, source: Mapping[str, Any]) -> dict[str, Path]:
    """The files of a repository. Of a fetched folder, which studies may share, those that the
    source names, if they are what it asks for."""
    there, fetched = mirrors.files(folder), mirrors.manifest(folder)
    sample = source.get("sample")
    patterns = source.get("files") or (sample or {}).get("files")
    if not fetched or not patterns:
        return there
    wanted = set(mirrors.matching(there, patterns))
    drawn = {group.file for group in fetched.sample.groups} if fetched.sample else set()
    asked = (sample["rows"], sample["seed"]) if sample else None
    if wanted & drawn and asked != (fetched.sample.rows, fetched.sample.seed):
        raise ValueError(
            f"{folder} holds a sample of {fetched.sample.rows} rows by seed {fetched.sample.seed}, "
            f"which is not what the study reads of {source['repo']}; fetch it again "
            f"({mirrors.FETCH}), or give the study another folder ('hub', 'mirror')"
        )
    return {path: file for path, file in there.items() if path in wanted or path == CARD}


def _read_by_datasets(folder: Path, files: Mapping[str, Path]) -> AbstractContextManager[Path]:
    """A folder with these files, and no others, that `datasets` sees as it is: the repository's
    own, if it may be. To link many files takes longer than to read them."""
    base = folder.resolve()
    whole = mirrors.manifest(folder) is None and not glob.has_magic(str(base))
    if whole and all(file == base / path for path, file in files.items()):
        return nullcontext(base)
    return _staged(files)


@contextmanager
def _staged(files: Mapping[str, Path]):
    """A folder of links to these files: `datasets` takes brackets in a path for a pattern, and does
    not follow links to folders."""
    with TemporaryDirectory() as folder:
        for path, file in files.items():
            link = Path(folder, path)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(file)
        yield Path(folder).resolve()


# ----------------------------------------------------------------------------- the files of a split


@dataclass(frozen=True)
class _Described:
    """What a repository's card says of a subset: its configuration, and its columns' types."""

    config: Mapping[str, Any] = field(default_factory=dict)
    features: Mapping[str, Any] = field(default_factory=dict)


def _described(stage: Path, repo: str, subset: str | None) -> _Described:
    """Raises ValueError where the card has several subsets and none is named, and for a subset that
    is neither named by the card nor a folder."""
    card = stage / CARD
    if not card.exists():
        _require_subset(stage, (), repo, subset)
        return _Described()
    try:
        data = DatasetCard.load(card).data
        subsets = MetadataConfigs.from_dataset_card_data(data)
        name = subset or subsets.get_default_config_name()
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(
            f"{repo}: the header of README.md cannot be read ({reason}); mend it"
        ) from error
    if subsets and name is None:
        raise ValueError(
            f"{repo}: there are the subsets {', '.join(subsets)}; name one of them as 'subset'"
        )
    _require_subset(stage, subsets, repo, subset)
    infos = DatasetInfosDict.from_dataset_card_data(data)
    info = infos.get(name) if name else next(iter(infos.values())) if len(infos) == 1 else None
    config = subsets.get(name, {})
    return _Described(config, {**((info and info.features) or {}), **config.get("features", {})})


def _require_subset(stage: Path, described: Collection[str], repo: str, subset: str | None) -> None:
    """Raises ValueError where there is no such subset: the rows of all the others would be read.
    described: those that the card names. Without any, all files are the subset `default`."""
    if subset is None or subset in (described or ["default"]) or (stage / subset).is_dir():
        return
    known = ", ".join(described) or "none, so leave 'subset' out"
    raise ValueError(
        f"{repo}: there is no subset {subset!r}, neither as a folder nor in the header of "
        f"README.md; there are {known}"
    )


def _split(
    stage: Path,
    there: Collection[str],
    described: _Described,
    repo: str,
    subset: str | None,
    split: str,
) -> list[str]:
    """The paths of a split's files, of those that are there. Raises ValueError where there is no
    such split, and FileNotFoundError where it has no file."""
    base = stage / described.config.get("data_dir", "")
    if declared := described.config.get("data_files"):
        splits = sanitize_patterns(declared)
    else:
        # subsets that no card describes are folders, if there is one of the name
        base = base / subset if subset and (base / subset).is_dir() else base
        try:
            splits = get_data_patterns(str(base))
        except EmptyDatasetError as error:
            raise FileNotFoundError(
                f"{repo}: there is no file of data in its folder; add one, or mend 'files' of its "
                "source"
            ) from error
    splits = {str(name): patterns for name, patterns in splits.items()}
    if split not in splits:
        raise ValueError(f"{repo}: there is no split {split!r}; there are {', '.join(splits)}")
    named = dict.fromkeys(p for pattern in splits[split] for p in _resolved(base, pattern))
    paths = [path for path in (os.path.relpath(p, stage) for p in named) if path in there]
    if not paths:
        raise FileNotFoundError(
            f"{repo}: of the split {split!r} no file is there ({', '.join(splits[split])}); add "
            "them, or mend the header of README.md"
        )
    return paths


def _resolved(base: Path, pattern: str) -> list[str]:
    """The files that a pattern names; a path that is there is no pattern."""
    if (base / pattern).is_file():
        return [str(base / pattern)]
    try:
        return resolve_pattern(pattern, str(base))
    except FileNotFoundError:
        return []


def _of_rows(paths: Sequence[str], repo: str, split: str) -> tuple[str | None, list[str]]:
    """The format of a split's files (readers.FORMATS) and the files that have it; the others hold
    no rows. Where no file has one of these formats, which only `datasets` may then know: None, and
    all files. Raises ValueError where there are several formats."""
    kinds = {path: readers.format_of(path) for path in paths if Path(path).name not in NO_ROWS}
    first = {kind: path for path, kind in reversed(kinds.items()) if kind}
    if len(first) > 1:
        raise ValueError(
            f"{repo}: the split {split!r} has files of several formats, "
            f"{' and '.join(sorted(first.values()))}; "
            "name its files in the header of README.md (configs), or remove those that hold no rows"
        )
    if not first:
        return None, list(paths)
    return next(iter(first)), [path for path, kind in kinds.items() if kind]


# ----------------------------------------------------------------------------------------- the rows


def _dataset(table: pa.Table, repo: str, kind: str, described: Mapping[str, Any]) -> Dataset:
    """A table as `datasets` has it. Numbers are names of classes where the file or the card
    (described) says so."""
    try:
        features = Features.from_arrow_schema(table.schema.remove_metadata())
    except (ValueError, TypeError, KeyError, NotImplementedError) as error:
        raise ValueError(
            f"{repo}: a column has a type that is not supported ({error}); leave that column out"
        ) from error
    try:
        named = Features.from_arrow_schema(table.schema)
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        raise ValueError(
            f"{repo}: the description of the columns that `datasets` has put into the file is "
            f"damaged ({error}); get the file again"
        ) from error
    for column, feature in list(features.items()):
        classes = _with_classes(feature, named.get(column))
        features[column] = _with_classes(classes, described.get(column))
        if features[column] != feature:
            table = _numbered(table, column, features, repo)
    table = table.cast(features.arrow_schema)
    return Dataset(table, info=DatasetInfo(features=features, builder_name=kind))


def _with_classes(feature: Any, named: Any) -> Any:
    """A column's type with the names of classes that another description of it has."""
    if isinstance(named, ClassLabel) and isinstance(feature, Value):
        return named if feature.dtype.startswith(("int", "uint", "string")) else feature
    if isinstance(named, dict) and isinstance(feature, dict):
        return {key: _with_classes(inner, named.get(key)) for key, inner in feature.items()}
    if isinstance(named, List) and isinstance(feature, List):
        return List(_with_classes(feature.feature, named.feature))
    return feature


def _numbered(table: pa.Table, column: str, features: Features, repo: str) -> pa.Table:
    """The table with numbers where a column, or a part of it, has names or numbers of classes as
    texts."""

    def number(value: Any, feature: Any, row: int) -> Any:
        if isinstance(feature, ClassLabel) and isinstance(value, str):
            if value in feature.names:
                return feature.names.index(value)
            if value in ("", "-1"):
                return int(value) if value else None
            if value in map(str, range(feature.num_classes)):
                return int(value)
            raise ValueError(
                f"{repo}: row {row} has in {column!r} {value!r}, which is none of the classes that "
                f"README.md names, {', '.join(map(str, feature.names))}; mend one of them"
            )
        if isinstance(feature, dict) and isinstance(value, dict):
            return {key: number(inner, feature[key], row) for key, inner in value.items()}
        if isinstance(feature, List) and isinstance(value, list):
            return [number(inner, feature.feature, row) for inner in value]
        return value

    values = [
        number(value, features[column], row) for row, value in enumerate(table[column].to_pylist())
    ]
    numbers = pa.array(values, features.arrow_schema.field(column).type)
    return table.set_column(table.column_names.index(column), column, numbers)


def _by_datasets(files: Mapping[str, Path], paths: Sequence[str], repo: str, split: str) -> Dataset:
    """The rows of files in a format that only `datasets` reads."""
    named = {f"{n:05}{''.join(Path(p).suffixes)}": files[p] for n, p in enumerate(paths)}
    # datasets keys its cache by a folder's last name, not by its contents: it would silently return
    # another mirror's rows, or those of an earlier world. So local rows are never cached.
    with _staged(named) as stage, TemporaryDirectory() as cache:
        try:
            found = load_dataset(
                str(stage),
                split=split,
                data_files={split: list(named)},
                cache_dir=cache,
                keep_in_memory=True,
            )
        except (DatasetsError, FileNotFoundError, ValueError) as error:
            reason = " ".join(str(error.__cause__ or error).split()).replace(f"{stage}/", "")
            raise ValueError(
                f"{repo}: the rows of {paths[0]} cannot be read ({reason}); save them as parquet, "
                "CSV or JSON lines"
            ) from error
    if found.info.builder_name in GUESSING:
        raise ValueError(
            f"{repo}: {paths[0]} is packed in a way in which its cells are read with guessed types "
            "(007 as 7); unpack it, or pack it with gzip"
        )
    return found


def _drawn(folder: Path, files: Mapping[str, Path], sample: Mapping[str, Any]) -> pa.Table:
    chosen = mirrors.matching(files, sample["files"])
    if not chosen:
        raise FileNotFoundError(f"{folder} has no file that matches {sample['files']}")
    with sampling.Shards([files[path] for path in chosen]) as shards:
        pieces = shards.draw(sample["rows"], sample["seed"])
        return readers.plain(pa.concat_tables([shards.read(piece) for piece in pieces]))
