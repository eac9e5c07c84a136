"""The archive: a study's results without its weights, in one ZIP file that describes itself.

It holds tables, claims, figures, the report, the records that they are made from, the merged
configuration and the lock of packages. ro-crate-metadata.json (RO-Crate, https://w3id.org/ro/crate)
names every file and says what it is. Equal files give equal bytes: entries are in order of name
with one time stamp, and the description has the date of the code's commit.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from rocrate.rocrate import ROCrate

from mofe import provenance
from mofe.files import atomic
from mofe.study.load import dumped

CONFIG, LOCK, DESCRIPTION = "config.yaml", "requirements.lock", "ro-crate-metadata.json"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the least time stamp that a ZIP file can have

# What a file is, by its name's pattern: a media type and a description. The first match counts.
KINDS = (
    ("evals/*.questions.jsonl.gz", "application/gzip", "Every question of an evaluation, answered"),
    ("evals/*.json", "application/json", "Scores of an evaluation"),
    ("*/train.json", "application/json", "Record of a training"),
    ("*/log.jsonl", "application/jsonl", "Loss of a training, step by step"),
    ("data/*.json", "application/json", "Counts of a training set"),
    ("claims/*.json", "application/json", "Verdict on one claim"),
    ("claims.json", "application/json", "Verdicts on all claims"),
    ("claims.csv", "text/csv", "Verdicts on all claims"),
    ("claims.md", "text/markdown", "Verdicts on all claims"),
    ("claims.tex", "application/x-tex", "Verdicts on all claims"),
    ("*.json", "application/json", "Record"),
    ("*.csv", "text/csv", "Table as tidy CSV"),
    ("*.md", "text/markdown", "Table in Markdown"),
    ("*.tex", "application/x-tex", "Table in LaTeX"),
    ("figures/*.pdf", "application/pdf", "Figure"),
    ("figures/*.png", "image/png", "Figure"),
    ("*.sums", "text/plain", "Checksums (XXH3-128) of what one job made"),
    ("report.html", "text/html", "The report"),
    (LOCK, "text/plain", "Packages with versions and hashes"),
    (CONFIG, "application/yaml", "The study's configuration, merged"),
)


def write(
    files: Iterable[str | os.PathLike],
    root: str | os.PathLike,
    config: Mapping[str, Any],
    lock: str | os.PathLike,
    study: str,
    scale: str,
    out: str | os.PathLike,
) -> None:
    """Write the archive of a study to the ZIP file `out`.

    files: all below the folder `root`, under whose relative names they are packed. config: the
    merged configuration. lock: requirements.lock. study, scale: what the description calls it.

    Raises ValueError where a file is not below `root`, or is of no kind that is described; `out` is
    then left as it was.
    """
    packed = {_below(file, root): Path(file) for file in dict.fromkeys(map(str, files))}
    packed[LOCK] = Path(lock)
    text = dumped(config)
    described = json.dumps(description([*packed, CONFIG], study, scale), indent=2) + "\n"
    contents: dict[str, Path | str] = {**packed, CONFIG: text, DESCRIPTION: described}
    with atomic(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name in sorted(contents):
            content = contents[name]
            data = content.read_bytes() if isinstance(content, Path) else content.encode()
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)


def description(names: Iterable[str], study: str, scale: str) -> dict[str, Any]:
    """The RO-Crate's description of the files with these names. Raises ValueError where a name is
    of no kind that is described."""
    crate = ROCrate()
    crate.name = f"MoFE, reproduced: study “{study}” ({scale} scale)"
    crate.description = (
        "Tables, verdicts on claims, figures and records of a reproduction of “MoFE: Mixture of "
        "Frozen Experts”."
        + ("" if scale == "paper" else " It is no evidence about the paper's models.")
    )
    crate.license = "https://www.apache.org/licenses/LICENSE-2.0"
    crate.datePublished = provenance.git_date()
    crate.root_dataset["version"] = provenance.git_revision()
    for name in sorted(names):
        kind, says = _kind(name)
        crate.add_file(
            dest_path=name, properties={"name": name, "description": says, "encodingFormat": kind}
        )
    return crate.metadata.generate()


def _kind(name: str) -> tuple[str, str]:
    for pattern, kind, says in KINDS:
        if fnmatch(name, pattern):
            return kind, says
    raise ValueError(f"archive: {name} is of no kind that is described; add it to archive.KINDS")


def _below(file: str, root: str | os.PathLike) -> str:
    try:
        return Path(file).relative_to(root).as_posix()
    except ValueError:
        raise ValueError(f"archive: {file} is not below {root}") from None
