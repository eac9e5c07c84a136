"""The Makefile's own folder, its environments and where they lie."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from conftest import ROOT

PLACE = [sys.executable, str(ROOT / "envs/place.py")]


def make(*arguments: str, folder: Path = ROOT, does: bool = False) -> subprocess.CompletedProcess:
    """What make would do, or `does`, or refuses."""
    outer = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "CUDA", "VENV")  # `make test` is one itself
    environment = {k: v for k, v in os.environ.items() if k not in outer}
    return subprocess.run(
        ["make", *([] if does else ["-n"]), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def last(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_make_finds_its_own_folder(tmp_path):
    (tmp_path / "mine.yaml").touch()
    given = ["mini", "SEEDS=0 1", "OVERLAY=mine.yaml profiles/mini/look.yaml"]
    for where in (["-f", f"{ROOT}/Makefile"], ["-f", os.path.relpath(ROOT / "Makefile", tmp_path)]):
        line = last(make(*where, *given, folder=tmp_path))
        assert line.startswith(
            ".venv/bin/snakemake --profile profiles/mini --configfile config.yaml"
        )
        assert f"{tmp_path}/mine.yaml profiles/mini/look.yaml --config seeds=0,1" in line
    assert "docs/generate" in make("-C", str(ROOT), "docs", folder=tmp_path).stdout
    several = make("-f", f"{ROOT}/Makefile", "docs", "lint", folder=tmp_path)
    assert several.stdout.count("docs/generate") == 1 and "snakefmt --check" in several.stdout


def test_make_finds_its_own_folder_with_a_space_in_its_name(tmp_path):
    folder = tmp_path / "my clone"
    folder.mkdir()
    (folder / "Makefile").write_bytes((ROOT / "Makefile").read_bytes())
    for call in (["-f", f"{folder}/Makefile"], ["-C", str(folder)]):
        done = make(*call, "clean", folder=tmp_path)
        assert done.returncode == 0 and "rm -rf results .snakemake" in done.stdout, done.stderr


def test_the_environment_for_older_drivers_is_another_one():
    assert last(make("CUDA=12", "mini")).startswith(".venv-cuda12/bin/snakemake")
    refused = make("CUDA=11", "mini")
    assert refused.returncode == 2 and "there are locks for 13 and 12" in refused.stderr


def test_a_dry_run_places_nothing_and_a_name_may_have_spaces(tmp_path):
    clone, here = tmp_path / "clone", tmp_path / "here"
    (clone / "envs").mkdir(parents=True)
    here.mkdir()
    for name in (
        "Makefile",
        "requirements.lock",
        "envs/place.py",
        "envs/installer.lock",
        "envs/build.lock",
    ):
        (clone / name).write_bytes((ROOT / name).read_bytes())
    call = ["-f", "../clone/Makefile", "VENV=an environment", "WHEELHOUSE=the wheels", "setup"]
    done = make(*call, folder=here)
    assert not (clone / ".venv").is_symlink() and not [*here.iterdir()]
    assert f'--find-links "{here}/the wheels"' in done.stdout, done.stderr
    assert make(*call[:-2], "help", folder=here, does=True).returncode == 0
    assert (clone / ".venv").resolve() == here / "an environment"


def place(folder: Path, *target: Path | str) -> str:
    done = subprocess.run(
        [*PLACE, folder, *target], cwd=folder.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == bool(done.stderr)
    return done.stderr


def test_an_environment_may_lie_elsewhere(tmp_path):
    here, there, other = tmp_path / ".venv", tmp_path / "scratch/me", tmp_path / "other"
    assert place(here, there) == ""
    assert here.is_symlink() and here.resolve() == there and there.is_dir()
    (there / "kept").touch()
    assert place(here, there) == place(here) == ""  # said again, and not said again
    assert (here / "kept").exists()
    assert place(here, other) == "" and here.resolve() == other and (there / "kept").exists()
    shutil.rmtree(other)  # as scratch disks are cleared
    assert place(here) == "" and here.resolve() == other and other.is_dir()


def test_an_environment_that_is_here_is_not_removed(tmp_path):
    here = tmp_path / ".venv"
    assert place(here) == "" and here.is_dir() and not here.is_symlink()
    (here / "kept").touch()
    assert "is here already: remove it" in place(here, tmp_path / "there")
    assert (here / "kept").exists()


def test_an_environment_goes_into_no_folder_of_others(tmp_path):
    here, older = tmp_path / "clone/.venv", tmp_path / "clone/.venv-cuda12"
    here.parent.mkdir()
    assert "VENV is empty: name a folder" in place(here, "")
    (tmp_path / "clone/Makefile").touch()
    assert "has other files" in place(here, ".") and "has other files" in place(here, "..")
    assert "is no folder" in place(here, "Makefile")
    assert not here.is_symlink()
    assert place(here, ".venv") == "" and here.is_dir() and not here.is_symlink()
    here.rmdir()
    there = tmp_path / "there"
    assert place(here, there) == ""
    (there / "ready").touch()
    assert f"is the environment of {here}: name another folder" in place(older, there)
    here.unlink()
    assert place(older, there) == "" and older.resolve() == there
    assert not (there / "ready").exists(), "it has the packages of another lock"
