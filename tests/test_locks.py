"""Two runs in one checkout, of different studies: each keeps its locks."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

from conftest import ROOT, overrides, snakemake

LOCKS = ROOT / ".snakemake" / "locks"


def test_a_run_that_ends_leaves_the_locks_of_another_one(tmp_path):
    def command(name: str) -> list[str]:
        results = tmp_path / name
        options = ["--cores", "1", *overrides(results=str(results)), "--configfile"]
        files = [str(ROOT / "config.yaml"), str(ROOT / "profiles/mini/study.yaml")]
        return [*options, *files, "--", f"{results}/world"]

    def locks() -> list[str]:
        found = []
        for file in sorted(LOCKS.glob("*.output.lock")) if LOCKS.is_dir() else []:
            with suppress(FileNotFoundError):  # of a run of another test, which has ended meanwhile
                if str(tmp_path / "held") in file.read_text():
                    found.append(file.name)
        return found

    held = subprocess.Popen(
        [sys.executable, "-m", "snakemake", *command("held")],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not locks():
        assert held.poll() is None, held.stderr.read()
        time.sleep(0.01)
    os.kill(held.pid, signal.SIGSTOP)
    mine = locks()
    snakemake(*command("other"))
    assert locks() == mine, "a run that ended removes the lock of one at work"
    page = snakemake(*command("held")[:-1], "status").stderr
    assert "a run is at work" in page and locks() == mine, "the page locks or unlocks"
    second = snakemake(*command("held"), check=False)
    assert second.returncode == 1 and "Directory cannot be locked" in second.stderr
    assert locks() == mine, "a refused run removes the lock of the one at work"
    os.kill(held.pid, signal.SIGKILL)
    held.communicate()
    options = command("held")
    snakemake("--unlock", *options)
    assert LOCKS.is_dir() and not locks()
    snakemake(*options)
    assert not locks()
