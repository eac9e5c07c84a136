"""A training that is stopped at any moment, in any way, and called again is the one that was not: bit
for bit, with no state lost that was saved, and nothing damaged used."""

import errno
import itertools
import json
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import TRAINING
from test_models import SETTINGS

from mofe import checksums, provenance, records
from mofe.jobs.job import Job, execute
from mofe.models import store
from mofe.training import checkpoint, loop
from mofe.training.checkpoint import Checkpoint

METHODS = ("full", "mofe", "freeze2", "lora", "qlora", "dora")
FREEZE2 = {"method": "freeze", "frozen": 2}
STEPS = 6
KILLED, SIGNALLED, FULL, CUT = "killed", "signalled", "disk full", "power cut"
# What a training does, one moment each: anything between two of these is like one of them.
DONE = (
    (loop.AnswerLoss, "forward"),
    (checkpoint.dcp, "save"),
    (checkpoint.dcp, "load"),
    (checksums, "of"),
    (provenance, "hash_tensors"),
    (store, "save_file"),
    (os, "fsync"),
    (os, "rename"),
    (os, "replace"),
    (os, "unlink"),
    (os, "rmdir"),
    (shutil, "rmtree"),
    (records, "write"),
)
WRITES = ("save", "save_file", "fsync", "replace", "rename", "write")  # that a full disk fails


def job(tiny: Path, data: str, out: Path, method: str, **training) -> Job:
    """A training as its script asks for it."""
    settings = FREEZE2 if method == "freeze2" else SETTINGS[method]
    dropout = {"dropout": 0.2} if "lora" in method else {}
    return Job(
        "mofe.stages.train:train_variant",
        {
            "merge": str(tiny / "moe2a2b"),
            "data": [data],
            "parents": [],
            "chain": [],
            "params": {
                "recipe": method,
                **settings,
                **dropout,
                "training": {**TRAINING, "micro_batch": 8, **training},
            },
            "names": {"moe": "moe2a2b", "stages": method},
            "seed": 0,
            "trained": out / "trained.safetensors",
            "record": out / "train.json",
            "log": out / "log.jsonl",
            "checkpoint": out / "checkpoint",
        },
        "train it",
        log=str(out / "log"),
        scratch=str(out / "checkpoint"),
    )


def in_a_fork(call: Callable[[], int]) -> int:
    """Make the call in a fork. Returns its exit code, or minus the signal that ended it."""
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        code = 99
        try:
            code = call()
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    return os.waitstatus_to_exitcode(status)


def watched(asked: Job, moment: int, act: Callable[[str], None], report: Path) -> int:
    """Run the job, saving a state after each step, and act at its moment of this number. The report
    gets the number of moments, and the sizes up to which files were flushed, by inode."""
    counted, synced = itertools.count(), {}

    def told() -> None:
        report.write_text(json.dumps([next(counted), synced]))

    def passing(name: str, real: Callable) -> Callable:
        def passed(*args, **kwargs):
            if (now := next(counted)) == moment:
                told()
                act(name)
            if name == "fsync":
                status = os.fstat(args[0])
                synced[status.st_ino] = status.st_size
            return real(*args, **kwargs)

        return passed

    Checkpoint.due = lambda self: True
    for place, name in DONE:
        setattr(place, name, passing(name, getattr(place, name)))
    code = execute(asked)
    told()
    return code


def fault(kind: str, number: signal.Signals) -> Callable[[str], None]:
    """What happens at a moment."""

    def act(name: str) -> None:
        if kind in (KILLED, CUT):
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == SIGNALLED:
            signal.raise_signal(number)
        if kind == FULL and name in WRITES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return act


def lose_unsynced(folder: Path, report: Path, rng: random.Random) -> None:
    """What a power cut may do: what was not flushed to disk is gone, or zeros."""
    synced = {int(inode): size for inode, size in json.loads(report.read_text())[1].items()}
    for file in [f for f in folder.rglob("*") if f.is_file()]:
        flushed, size = synced.get(file.stat().st_ino, 0), file.stat().st_size
        if flushed < size:
            os.truncate(file, flushed)
            if rng.random() < 0.5:
                os.truncate(file, size)


@pytest.fixture(scope="module")
def whole(tiny, data, tmp_path_factory) -> dict[str, tuple[Path, int]]:
    """Each method's training that nothing stopped, and how many moments it has."""
    found = {}
    for method in METHODS:
        out = tmp_path_factory.mktemp(method)
        asked = job(tiny, data, out, method)
        assert in_a_fork(lambda a=asked, o=out: watched(a, -1, print, o / "report")) == 0
        assert not (out / "checkpoint").exists(), "what is done keeps no checkpoint"
        found[method] = out, json.loads((out / "report").read_text())[0]
    return found


def same(out: Path, expected: Path) -> None:
    """The training is the one that nothing stopped, but for times."""
    assert (out / "trained.safetensors").read_bytes() == (
        expected / "trained.safetensors"
    ).read_bytes()
    logs = [(folder / "log.jsonl").read_text().splitlines() for folder in (out, expected)]
    one, two = ([{**json.loads(line), "seconds": 0} for line in log] for log in logs)
    assert one == two
    record = json.loads((out / "train.json").read_text())
    parts = record["segments"]
    assert record["steps"] == STEPS == len(one)
    assert sum(p["device_seconds"] for p in parts) == pytest.approx(record["device_seconds"])
    ends = [(p["first_step"], p["last_step"]) for p in parts]
    assert [first for first, _ in ends] == [1, *(last + 1 for _, last in ends[:-1])]
    assert ends[-1][1] == STEPS


# `make faults` tries all of them; here are some of each kind, others in each method.
TRIED = int(os.environ.get("MOFE_FAULTS", "1"))


@pytest.mark.parametrize("kind", [KILLED, SIGNALLED, FULL, CUT])
@pytest.mark.parametrize("method", METHODS)
def test_a_training_stopped_at_any_moment_goes_on(tiny, data, tmp_path, whole, method, kind):
    expected, moments = whole[method]
    rng = random.Random(f"{method} {kind}")
    for moment in rng.sample(range(moments), min(TRIED, moments)):
        number = rng.choice([signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
        out = tmp_path / str(moment)
        asked = job(tiny, data, out, method)
        act = fault(kind, number)
        out.mkdir()
        code = in_a_fork(lambda: watched(asked, moment, act, out / "report"))  # noqa: B023
        told = f"moment {moment}, {number.name}, code {code}: {(out / 'log').read_text()[-3000:]}"
        assert code == -signal.SIGKILL if kind in (KILLED, CUT) else code in (0, 1), told
        steps = [int(f.name[5:]) for f in (out / "checkpoint").glob("step-*")]
        if code == 0:
            assert kind in (SIGNALLED, FULL)
        else:
            assert not (kind == FULL and list((out / "checkpoint").glob("partial-*"))), told
            if kind == CUT:
                lose_unsynced(out, out / "report", rng)
            assert in_a_fork(lambda: execute(asked)) == 0, told  # noqa: B023
            record = json.loads((out / "train.json").read_text())
            if steps and kind != CUT:
                text = (out / "log").read_text()
                assert f"going on after step {max(steps)}\n" in text, told + text
                assert record["resumed"] == 1
        same(out, expected)
        assert not (out / "checkpoint").exists()
        shutil.rmtree(out)
