"""The package: an installed one has every file that the checkout has."""

import subprocess
import sys
import zipfile
from pathlib import Path

import jinja2
import pytest
from conftest import ROOT

from mofe import templates


def kept() -> list[str]:
    """The files below mofe/ that are kept in the repository, or will be."""
    listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "mofe"]
    run = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in run.stdout.splitlines() if (ROOT / name).exists()]


def test_a_wheel_has_every_file_of_the_package(tmp_path):
    for name in ["pyproject.toml", "README.md", "LICENSE", *kept()]:
        copy = tmp_path / "source" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((ROOT / name).read_bytes())
    (tmp_path / "source/mofe/jobs/__pycache__").mkdir()  # as a checkout has them
    (tmp_path / "source/mofe/jobs/__pycache__/old.pyc").touch()
    build = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    command = [sys.executable, "-c", build, str(tmp_path)]
    subprocess.run(command, cwd=tmp_path / "source", capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    built = [n for n in zipfile.ZipFile(wheel).namelist() if n.startswith("mofe/")]
    assert sorted(built) == sorted(kept())
    assert {"mofe/jobs/accelerate.yaml", "mofe/estimate/plan.md.jinja"} <= set(built)


@pytest.mark.parametrize("kind", ["html", "md", "tex", "txt"])
def test_a_template_that_asks_for_what_is_not_there_is_an_error(tmp_path, kind):
    file = tmp_path / f"page.{kind}.jinja"
    file.write_text("<< absent >>" if kind == "tex" else "{{ absent }}")
    with pytest.raises(jinja2.UndefinedError, match="absent"):
        templates.render(file)


@pytest.mark.parametrize(("kind", "shown"), [("html", "&lt;b&gt;"), ("md", "<b>"), ("txt", "<b>")])
def test_values_are_escaped_in_html_alone(tmp_path, kind, shown):
    file = Path(tmp_path) / f"page.{kind}.jinja"
    file.write_text("{{ text }}\n")
    assert templates.render(file, text="<b>") == f"{shown}\n"
