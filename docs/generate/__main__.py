"""Write the generated parts of the documentation: `make docs`, or `python docs/generate`.

A generated part of a page is between `<!-- begin NAME -->` and `<!-- end NAME -->`; other files are
generated completely. With --check nothing is written, and a part that is out of date is an error
(tests/test_docs.py).
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import artifact
import claims
import errors
import findings
import first_study
import keys
import miniature
import printed
import questions
import records
import reliability
import reruns
import scale

# (page, NAME) -> the text between the marks
PARTS: dict[tuple[str, str], Callable[[], str]] = {
    **keys.PARTS,
    **records.PARTS,
    **errors.PARTS,
    **first_study.PARTS,
    **miniature.PARTS,
    **printed.PARTS,
    **questions.PARTS,
    **claims.PARTS,
    **artifact.PARTS,
    **reliability.PARTS,
    **reruns.PARTS,
    **scale.PARTS,
}
# file -> its text
FILES: dict[str, Callable[[], str]] = {
    **keys.FILES,
    **records.FILES,
    **questions.FILES,
    **findings.FILES,
}


def texts() -> dict[Path, str]:
    """The up-to-date text of every file with a generated part. Raises ValueError where a page lacks
    the marks of a part."""
    found = {ROOT / name: make() for name, make in FILES.items()}
    for (page, name), make in PARTS.items():
        path = ROOT / page
        text = found.get(path) or path.read_text()
        marks = rf"(<!-- begin {re.escape(name)} -->\n).*?(<!-- end {re.escape(name)} -->)"
        part = make().strip()
        text, count = re.subn(
            marks, lambda m, part=part: f"{m[1]}{part}\n{m[2]}", text, flags=re.DOTALL
        )
        if count != 1:
            raise ValueError(
                f"{page}: has the marks of the part {name!r} {count} times; write them once"
            )
        found[path] = text
    return found


def main() -> None:
    """Write what is out of date; with --check, only name it."""
    stale = {
        path: text
        for path, text in texts().items()
        if not path.exists() or path.read_text() != text
    }
    if "--check" in sys.argv[1:]:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        sys.exit(f"out of date: {names}; run make docs" if stale else 0)
    for path, text in stale.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
