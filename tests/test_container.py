"""Jobs in a container's image, as Snakemake starts them. apptainer itself is a stand-in here that notes
how it was called, and runs the command on this machine, with the packages of this environment."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import CONFIG, MINI, ROOT

APPTAINER = """#!/bin/sh
if [ "$1" = --version ]; then echo "apptainer version 1.4.0"; exit; fi
echo "$@" >> "{notes}"
until [ "$1" = "$MOFE_IMAGE" ]; do shift; done
shift
PATH="{python}:$PATH" exec "$@"
"""


@pytest.fixture
def call(tmp_path, monkeypatch):
    """Calls the workflow for a table of the paper's own numbers, with jobs in an image."""
    binary = tmp_path / "bin/apptainer"
    binary.parent.mkdir()
    binary.write_text(
        APPTAINER.format(notes=tmp_path / "notes", python=Path(sys.executable).parent)
    )
    binary.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binary.parent}:{os.environ['PATH']}")

    def run(image) -> subprocess.CompletedProcess:
        monkeypatch.setenv("MOFE_IMAGE", str(image))
        command = [sys.executable, "-m", "snakemake", "--cores", "1", "--quiet", "rules"]
        command += ["--software-deployment-method", "apptainer", "--configfile", str(CONFIG)]
        command += [
            str(MINI),
            "--config",
            f"results={tmp_path}",
            "--",
            f"{tmp_path}/claims_paper.md",
        ]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    return run


def test_an_image_is_built_without_what_git_ignores():
    """docker reads .dockerignore only, and buildah and podman read it too."""
    left_out = (ROOT / ".dockerignore").read_text().split()
    assert not (ROOT / ".containerignore").exists()
    folders = {".venv*", ".snakemake", "results", "logs", "wheelhouse", "profiles/site.yaml"}
    assert folders <= {*left_out}
    ignored = {line.strip("/") for line in (ROOT / ".gitignore").read_text().split()}
    assert folders - {".venv*"} <= ignored, "a name is not what it was"


def test_a_job_runs_in_the_image_that_the_user_names(call, tmp_path):
    image = tmp_path / "my.sif"
    image.touch()
    done = call(image)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "claims_paper.md").exists()
    (called,) = (tmp_path / "notes").read_text().splitlines()
    assert f"exec --home {ROOT} " in called and f" {image} " in called


def test_an_image_that_is_not_there_is_told_before_any_job(call, tmp_path):
    done = call(tmp_path / "none.sif")
    assert done.returncode == 1 and "MOFE_IMAGE: there is no image" in done.stderr
    assert not (tmp_path / "notes").exists()
