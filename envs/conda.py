"""An environment for conda with all pins of a lock: conda.py LOCK FILE. `make lock` calls it."""

import re
import sys
from pathlib import Path

import yaml

NOTE = """\
# The whole workflow's environment for users of conda (docs/installing.md).
#   conda env create -f envs/{name}.yaml
# It has all pins of {lock}, written by make lock.
"""


def pins(lock: str) -> list[str]:
    """Every requirement of a lock's text, with its marker and without its hashes."""
    return [entry.rstrip(" \\") for entry in re.findall(r"^[a-z0-9].*$", lock, re.MULTILINE)]


def environment(name: str, lock: str) -> dict:
    """The environment, as conda reads it."""
    return {
        "name": name,
        "channels": ["conda-forge"],
        "dependencies": ["python =3.11", "pip", {"pip": pins(lock)}],
    }


def main(lock: Path, file: Path) -> None:
    told = NOTE.format(name=file.stem, lock=lock.name)
    content = environment(file.stem, lock.read_text())
    file.write_text(told + yaml.safe_dump(content, sort_keys=False, width=1000))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
