"""A job that ended well after its run was killed is not made again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

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
