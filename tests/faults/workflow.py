"""Faults of whole runs: Snakemake itself, as a user starts and stops it."""

import os
import random
import re
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

from tests.faults import damage, judge
from tests.faults.fault import Ending, Fault, NotReached, Outcome
from tests.faults.process import heeds
from tests.faults.study import RESULTS, Job, Study, command, forget

RUN = "A run that is stopped goes on with the same command"
WARM = "Jobs run without a warm parent"
STALE = "After a failure nothing is left that looks valid"
COPIED = "Results that were copied are due in no other clone"
TIMES = {
    "Ctrl-C": 3,
    "SIGTERM to all": 2,
    "SIGKILL to all": 3,
    "SIGKILL to Snakemake": 3,
    "a TMPDIR that is too long": 1,
    "the warm parent killed": 3,
    "a failure after a change": 2,
    "another clone": 1,
}
PROMISES = {
    "a TMPDIR that is too long": WARM,
    "the warm parent killed": WARM,
    "a failure after a change": STALE,
    "another clone": COPIED,
}
STOPS = {
    "Ctrl-C": signal.SIGINT,
    "SIGTERM to all": signal.SIGTERM,
    "SIGKILL to all": signal.SIGKILL,
    "SIGKILL to Snakemake": signal.SIGKILL,
}
AGAIN = ("variants/tinyllama_4tinyllama/medmcqa_mofe/s0/trained.safetensors",)
AGAIN += ("variants/tinyllama_4tinyllama/medmcqa_lora/s0/trained.safetensors",)
AGAIN += ("evals/tinyllama_4tinyllama/medmcqa_mofe/s0/medmcqa.json",)
AGAIN += ("evals/tinyllama_4tinyllama/medmcqa_lora/s0/medmcqa.json", "table8.tex")
TABLE = f"{RESULTS}/table8.tex"


def faults(seed: int, study: Study) -> list[Fault]:
    """The faults of runs that a seed draws."""
    rng = random.Random(f"workflow {seed}")
    return [
        Fault(
            "workflow", PROMISES.get(kind, RUN), kind, TABLE, "", rng.random(), rng.getrandbits(30)
        )
        for kind, times in TIMES.items()
        for _ in range(times)
    ]


def try_fault(fault: Fault, study: Study, at: Path) -> Outcome:
    """Make a fault in a run, run the same command again, and judge."""
    shutil.rmtree(at, ignore_errors=True)
    at.mkdir(parents=True)
    try:
        folder = study.copy(at / "copy")
        kept = Path(".snakemake", "metadata")
        shutil.copytree(study.folder / kept, folder / kept)
        again = [study.making(f"{RESULTS}/{file}") for file in AGAIN]
        match fault.kind:
            case "another clone":
                return _copied(fault, study, folder)
            case "a failure after a change":
                return _stale(fault, study, folder)
        for job in again:
            forget(folder, job)
        return _run(fault, study, folder, again)
    finally:
        shutil.rmtree(at)


def _run(fault: Fault, study: Study, folder: Path, again: list[Job]) -> Outcome:
    environment = dict(os.environ)
    if fault.kind == "a TMPDIR that is too long":
        long = folder / ("long" * 30)
        long.mkdir()
        environment["TMPDIR"] = str(long)
    with open(folder / "terminal", "w") as terminal:
        started = subprocess.Popen(
            command("--", TABLE),
            cwd=folder,
            stdout=terminal,
            stderr=terminal,
            env=environment,
            start_new_session=True,
        )
    if fault.kind in STOPS:
        while started.poll() is None and "Execute" not in (folder / "terminal").read_text():
            time.sleep(0.05)
        _sleep(started, 5 * fault.moment)  # from the first job to about the last
        if fault.kind == "SIGKILL to Snakemake":
            started.kill()
            started.wait()
            _wait_for_its_jobs(started.pid)
        else:
            if fault.kind == "Ctrl-C":
                _wait_until_scripts_heed(started)
            _tell(started.pid, STOPS[fault.kind])
    elif fault.kind == "the warm parent killed":
        _kill_parent(started, folder, 3 * fault.moment)
    code = started.wait(600)
    first = (folder / "terminal").read_text()

    def outcome(ending: Ending, told: str) -> Outcome:
        return Outcome(fault, ending, f"{told}\nfirst ({code}): {first[-1500:]}")

    if "Traceback (most recent call last)" in first:
        return outcome(Ending.TRACEBACK, "a traceback")
    if code and fault.promise == WARM:
        return outcome(Ending.DEAD_END, "the run failed without its warm parent")
    done_before = _done(folder, again)
    if code:
        if "SIGKILL" in fault.kind:  # Snakemake's own lock, and what it calls incomplete
            study.snakemake(folder, "--unlock")
        done = study.snakemake(folder, "--rerun-incomplete", "--", TABLE)
        text = done.stdout[-700:] + done.stderr[-1500:]
        if "Traceback (most recent call last)" in text:
            return outcome(Ending.TRACEBACK, text)
        if done.returncode:
            return outcome(Ending.DEAD_END, text)
    if done_before.items() - _done(folder, again).items():
        return outcome(Ending.LOST, "what a job had finished was made again")
    for job in again:
        if wrong := judge.differs(study, folder, job):
            return outcome(Ending.SILENT, wrong)
    return outcome(Ending.KEPT, "")


def _wait_until_scripts_heed(snakemake: subprocess.Popen) -> None:
    """Wait until jobs' scripts run and none has just been started. Ctrl-C in its first third of a
    second, while Snakemake's own lines in it import, is answered by Python itself."""
    while snakemake.poll() is None:
        with suppress(psutil.NoSuchProcess, FileNotFoundError):
            below = psutil.Process(snakemake.pid).children(recursive=True)
            scripts = [p.pid for p in below if _is_script(p.cmdline())]
            if scripts and all(heeds(pid, signal.SIGTERM) for pid in scripts):
                return
        time.sleep(0.01)


def _is_script(command: list[str]) -> bool:
    """Whether it is the Python of a job's script, and not its shell."""
    return len(command) > 1 and "python" in command[0] and ".snakemake/scripts/" in command[1]


def _wait_for_its_jobs(group: int) -> None:
    """Wait for the processes that a killed Snakemake left behind."""
    while True:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)


def _done(folder: Path, jobs: list[Job]) -> dict[str, int]:
    """When the checksums of these jobs, which are their last act, were written."""
    files = [folder / f"{job.outputs[0]}.sums" for job in jobs]
    return {str(file): file.stat().st_mtime_ns for file in files if file.exists()}


def _sleep(process: subprocess.Popen, seconds: float) -> None:
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)


def _tell(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except ProcessLookupError:  # it was faster
        return


def _kill_parent(snakemake: subprocess.Popen, folder: Path, after: float) -> None:
    """Kill the run's warm parent, some seconds after it is there."""
    until = time.monotonic() + 120
    while time.monotonic() < until and snakemake.poll() is None:
        listed = subprocess.run(
            ["pgrep", "--parent", str(snakemake.pid), "--full", "mofe.jobs.warm"],
            capture_output=True,
            text=True,
            check=False,
        )
        if listed.stdout.strip():
            _sleep(snakemake, after)
            for pid in listed.stdout.split():
                _tell_one(int(pid))
            return
        time.sleep(0.05)
    raise NotReached("there was no warm parent")


def _tell_one(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _stale(fault: Fault, study: Study, folder: Path) -> Outcome:
    """A key is changed and a training fails: the old table must be gone, and `partial` tells why a
    cell has no value."""
    config = ["--config", f"shots_seed={4 + fault.seed % 1000}", "shots=1"]
    data = folder / RESULTS / "questions/tinyllama"
    shutil.rmtree(data)
    world = next((folder / RESULTS / "world/openlifescienceai/medmcqa/data").glob("*"))
    damage.change(world, "half of it zeros", fault.seed, keep_time=True)
    failed = study.snakemake(folder, *config, "--", TABLE)
    text = failed.stdout[-1000:] + failed.stderr[-1500:]
    if failed.returncode == 0:
        return Outcome(fault, Ending.SILENT, text)
    if str(world.relative_to(folder)) not in failed.stdout + failed.stderr:
        return Outcome(fault, Ending.UNNAMED, text)
    if left := list((folder / RESULTS).glob("table8.*")):
        return Outcome(fault, Ending.SILENT, f"left: {left}: {text}")
    partial = study.snakemake(folder, *config, "--", "partial")
    tables = list((folder / RESULTS / "partial").glob("table8.md"))
    if partial.returncode or not tables:
        return Outcome(fault, Ending.DEAD_END, partial.stdout[-800:] + partial.stderr[-1500:])
    shown = tables[0].read_text()
    if not re.search("partial", shown, re.IGNORECASE) or not re.search("[–—]", shown):
        return Outcome(fault, Ending.UNNAMED, shown)
    return Outcome(fault, Ending.KEPT, shown[-300:])


def _copied(fault: Fault, study: Study, folder: Path) -> Outcome:
    done = study.snakemake(folder, "--dry-run")
    text = done.stdout[-800:] + done.stderr[-800:]
    due = "Nothing to be done" not in done.stdout + done.stderr
    return Outcome(fault, Ending.LOST if due else Ending.KEPT, text)
