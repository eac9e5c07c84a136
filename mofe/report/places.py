"""The places of results that can be compared: a results folder, an archive of one
(mofe/report/archive.py), and the committed results (mofe/report/reference.py)."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from mofe.report import reference
from mofe.report.results import Results, of_folder


@contextmanager
def opened(path: str) -> Iterator[Results]:
    """The results in a folder or an archive.

    Raises ValueError where there are none, and where a record is not whole.
    """
    place = Path(path)
    if path and place.is_dir():
        yield _in(place, path)
    elif zipfile.is_zipfile(place):
        with TemporaryDirectory() as folder:
            _extract(place, folder)
            yield _in(Path(folder), path)
    else:
        raise ValueError(_none(path))


def _extract(archive: Path, folder: str) -> None:
    try:
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ValueError(f"compare: {archive} is damaged ({error}); restore it") from error


def _in(folder: Path, path: str) -> Results:
    if reference.is_one(folder):
        return reference.read(folder, path)
    found = of_folder(folder, path)
    if not found.evaluations and not found.tables:
        raise ValueError(_none(path))
    return found


def _none(path: str) -> str:
    return (
        f"compare: {path} holds no results; name a study's results folder such as results/mini, an "
        "archive.zip of one, or docs/reference"
    )
