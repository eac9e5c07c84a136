"""What the files of models from outside the study are, so that other files rerun what is made from
them. Snakemake itself looks at a folder's own time, which does not change where a file is
overwritten in place."""

import os
from collections.abc import Iterable
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

from mofe.study.plan import MODEL_FILES

Files = dict[str, list[list]]


def identity(folders: Iterable[str]) -> Files:
    """By folder, the name, size in bytes and time of change in ns of every file that a model is read
    from, links followed; nothing for a folder that is not there (yet)."""
    return {folder: _files(folder) for folder in folders}


@cache
def _files(folder: str) -> list[list]:
    found = []
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        file = Path(folder, name)
        if file.is_file() and any(fnmatch(name, pattern) for pattern in MODEL_FILES):
            stat = file.stat()
            found.append([name, stat.st_size, stat.st_mtime_ns])
    return found
