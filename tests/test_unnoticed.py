"""A job that ended well is not made again, though Snakemake saw no success."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT, overrides, snakemake

from mofe.jobs import ending

DONE = "world: it ended well without this workflow's notice, so it counts as done"


def command(results: Path, *overlays: Path) -> list[str]:
    options = ["--cores", "1", *overrides(results=str(results)), "--configfile"]
    files = [str(ROOT / "config.yaml"), str(ROOT / "profiles/mini/study.yaml"), *map(str, overlays)]
    return [*options, *files, "--", f"{results}/world"]


def survived(results: Path) -> None:
    """Kill a run at work, and wait until its job has ended well."""
    log = results / "logs" / "world.log"
    run = subprocess.Popen(
        [sys.executable, "-m", "snakemake", *command(results)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not log.exists():
        assert run.poll() is None
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.wait()
    while '"job": "world"' not in log.read_text():
        assert not ending.failure(log)
        time.sleep(0.1)
    snakemake("--unlock", *command(results))


def times(results: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in results.glob("world/**/*")}


def test_what_a_job_made_after_its_run_was_killed_is_taken(tmp_path):
    results = tmp_path / "results"
    survived(results)
    made = times(results)
    other = tmp_path / "other.yaml"
    other.write_text("world: {seed: 5}")
    changed = snakemake("-n", *command(results, other))
    assert DONE not in changed.stderr and "rule world:" in changed.stdout
    second = snakemake(*command(results))
    assert DONE in second.stderr and "Nothing to be done" in second.stderr + second.stdout
    assert times(results) == made
    third = snakemake(*command(results))
    assert DONE not in third.stderr, "it is told once"
    assert "Nothing to be done" in third.stderr + third.stdout


def test_it_is_not_taken_where_it_is_damaged(tmp_path):
    results = tmp_path / "results"
    survived(results)
    file = next(iter(sorted(results.glob("world/**/*.parquet"))))
    content = file.read_bytes()
    file.write_bytes(content[:50] + bytes([content[50] ^ 1]) + content[51:])
    done = snakemake(*command(results))
    assert DONE not in done.stderr and file.read_bytes() == content


KILL = """
import os, signal
from mofe.jobs import outcome
say = outcome.say
def killed_once(line):
    flag = os.environ["KILLED"]
    if line.startswith("world: ") and not os.path.exists(flag):
        open(flag, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    say(line)
outcome.say = killed_once
"""


@pytest.fixture
def killed_after_its_last_act(tmp_path, monkeypatch):
    """The first job dies when all is on disk, before it says so."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(KILL)
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{ROOT}")
    monkeypatch.setenv("KILLED", str(tmp_path / "killed"))
    yield
    assert (tmp_path / "killed").exists()


def test_another_attempt_takes_what_a_killed_one_had_made(tmp_path, killed_after_its_last_act):
    results = tmp_path / "results"
    done = snakemake("--retries", "1", *command(results))
    assert "an earlier attempt has made it" in done.stderr
    third = snakemake(*command(results))
    assert "Nothing to be done" in third.stderr + third.stdout


def test_what_a_killed_job_had_made_is_kept(tmp_path, killed_after_its_last_act):
    results = tmp_path / "results"
    assert snakemake(*command(results), check=False).returncode == 1
    made = times(results)
    assert made and (tmp_path / "results" / "world.sums").exists()
    second = snakemake(*command(results))
    assert "Nothing to be done" in second.stderr + second.stdout and times(results) == made


def test_what_a_failed_job_left_half_made_is_not_taken(tmp_path):
    """A folder without its checksums, as a full disk leaves it."""
    results = tmp_path / "results"
    results.mkdir()
    (results / "world.sums").mkdir()  # so that they cannot be written
    assert snakemake(*command(results), check=False).returncode == 1
    (results / "world.sums").rmdir()
    done = snakemake(*command(results))
    assert "Nothing to be done" not in done.stderr + done.stdout
    assert (results / "world.sums").is_file()
