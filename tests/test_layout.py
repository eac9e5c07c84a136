"""The house: packages import one another in one direction, and the map names what is there."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

# From the ground up: a package imports those of the floors below it, and none beside or above it.
FLOORS = (
    ("platforms", "processes"),
    (
        "checksums",
        "clusters",
        "files",
        "markdown",
        "metrics",
        "paper",
        "provenance",
        "stops",
        "units",
    ),
    ("disk", "progress", "records", "sums", "templates"),
    ("study",),
    ("estimate", "layers"),
    ("training", "data"),
    ("models", "tasks"),
    ("report", "jobs"),
    ("stages",),
)
FLOOR = {room: number for number, floor in enumerate(FLOORS) for room in floor}


def imports() -> set[tuple[str, str]]:
    """(importer, imported) for every two rooms of the package, from all of its files; imports inside
    functions and for type checkers count too."""
    found = set()
    for file in (ROOT / "mofe").rglob("*.py"):
        if (room := file.relative_to(ROOT / "mofe").parts[0].removesuffix(".py")) == "__init__":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "mofe":
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("mofe."):
                names = [node.module.split(".")[1]]
            elif isinstance(node, ast.Import):
                names = [a.name.split(".")[1] for a in node.names if a.name.startswith("mofe.")]
            else:
                continue
            found |= {(room, name) for name in names if name != room}
    return found


def test_every_room_has_a_floor():
    rooms = {p.stem for p in (ROOT / "mofe").iterdir() if p.suffix == ".py" or p.is_dir()}
    assert rooms - {"__init__", "__pycache__"} == set(FLOOR)


def test_imports_point_one_way():
    arrows = imports()
    assert len(arrows) > 20
    assert not {f"{a} imports {b}" for a, b in arrows if FLOOR[b] >= FLOOR[a]}


@pytest.mark.parametrize("room", ["study", "estimate"])
def test_the_plan_needs_no_model_library(room):
    modules = [
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for file in sorted((ROOT / "mofe" / room).rglob("*.py"))
    ]
    loaded = "[m for m in ('torch', 'transformers', 'matplotlib') if m in sys.modules]"
    call = f"import sys, {', '.join(modules)}; print({loaded})"
    done = subprocess.run(
        [sys.executable, "-c", call], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------------------- the map


def house(page: str) -> str:
    """The map of the package in a page: its block of code that begins with mofe/."""
    (block,) = re.findall(
        r"(?:^    mofe/.*\n(?:^    .*\n)*)", (ROOT / page).read_text(), re.MULTILINE
    )
    return block


def test_the_map_names_every_room():
    named = set(
        re.findall(r"^ {4,8}(?:mofe/)?(\w+)(?:/|\.py)", house("CONTRIBUTING.md"), re.MULTILINE)
    )
    assert set(FLOOR) <= named


def test_one_place_per_change_names_files_that_are_there():
    """CONTRIBUTING's table: every file and folder that a row names exists, and so does every name in
    capitals or of a function that it puts before them."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    table = text.split("## One place per change")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 15
    for row in rows:
        for word in re.findall(r"`([^`]+)`", row):
            if re.fullmatch(r"[\w.-]+(/[\w.{}*-]*)+", word) or re.search(
                r"\.(py|yaml|in|csv)$", word
            ):
                assert list(ROOT.glob(word.rstrip("/"))), f"{word} in: {row}"
            elif re.fullmatch(r"[A-Z_]{4,}", word):
                files = [f for w in re.findall(r"`([^`]+\.py)`", row) for f in ROOT.glob(w)]
                assert any(word in Path(f).read_text() for f in files), f"{word} in: {row}"
