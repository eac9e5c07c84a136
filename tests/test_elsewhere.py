"""Where there is neither /proc nor a safe fork, as on macOS; and where this does not run at all."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import CONFIG, MINI, REDUCED, ROOT, TRAINING, cannot
from test_models import SETTINGS

from mofe import platforms, processes, records
from mofe.estimate import schedule
from mofe.estimate.cost import Costs
from mofe.jobs import job
from mofe.report import figures
from mofe.study.load import read_study
from mofe.study.plan import Plan

ELSEWHERE = ROOT / "tests" / "elsewhere"
# /proc is emptied for one command and its children alone. psutil finds it in another folder, and torch,
# which does not start on Linux without it, /proc/cpuinfo.
WITHOUT = (
    'mount --bind /proc "$1" && mount -t tmpfs none /proc && touch /proc/cpuinfo && '
    'mount --bind "$1/cpuinfo" /proc/cpuinfo && shift && exec "$@"'
)

TELL = """
import json, os, sys
from mofe import platforms, processes
from mofe.training import lock
me = lock._me()
told = {"proc": os.listdir("/proc"), "forks": platforms.forks(), "age": processes.age(),
    "peak": processes.peak_memory(), "standing": lock.standing(me, me), "pid": os.getpid(),
    "parent": processes.started(os.getppid()), "nobody": processes.started(4194303), "boot": me.boot}
print(json.dumps(told))
"""


@pytest.fixture
def elsewhere(tmp_path):
    """Runs a command without /proc and fork, and returns what it did."""
    proc = tmp_path / "proc"
    proc.mkdir()
    tried = subprocess.run(
        ["unshare", "-m", "sh", "-c", WITHOUT, "sh", str(proc), "true"],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        cannot(f"/proc cannot be taken away here: {tried.stderr.strip()}", "MOFE_REQUIRE_UNSHARE")
    path = os.pathsep.join(map(str, (ELSEWHERE, ROOT, ROOT / "tests")))
    given = {**os.environ, "PYTHONPATH": path, "MOFE_PROC": str(proc)}

    def call(*command: str) -> subprocess.CompletedProcess:
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", WITHOUT, "sh", str(proc), sys.executable, *command],
            cwd=ROOT,
            env=given,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done

    return call


def test_processes_are_known_without_proc(elsewhere):
    before = time.monotonic()
    told = json.loads(elsewhere("-c", TELL).stdout)
    took = time.monotonic() - before
    assert (told["proc"], told["forks"], told["standing"]) == (["cpuinfo"], False, "live")
    # psutil knows the start of this machine to the second
    assert -1 <= told["age"] <= took + 1
    assert 10 << 20 < told["peak"] < 8 << 30
    assert told["parent"] and told["nobody"] is None
    assert told["boot"] == json.loads(elsewhere("-c", TELL).stdout)["boot"]


def test_a_process_that_has_ended_is_not_taken_for_one_that_runs(monkeypatch, tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    for proc in (Path("/proc"), tmp_path):
        monkeypatch.setattr(processes, "_PROC", proc)
        assert processes.started(ended.pid) is None
        assert processes.started(os.getpid()) is not None
    ended.wait()
    assert processes.started(ended.pid) is None


TRAIN = """
import sys
from pathlib import Path
from mofe.jobs.job import Job, execute
arguments = eval(sys.argv[1], {"Path": Path})
code = execute(Job("mofe.stages.train:train_variant", arguments, "train x", log=sys.argv[2]))
sys.exit(code)
"""


def test_a_training_without_proc_and_fork(elsewhere, tiny, data, tmp_path):
    given = {
        "merge": str(tiny / "moe2a"),
        "data": [data],
        "parents": [],
        "chain": [],
        "params": {"recipe": "mofe", **SETTINGS["mofe"], "training": {**TRAINING, "epochs": 1}},
        "names": {"moe": "moe2a", "stages": "mofe"},
        "seed": 0,
        "trained": tmp_path / "trained.safetensors",
        "record": tmp_path / "train.json",
        "log": tmp_path / "log.jsonl",
        "checkpoint": tmp_path / "checkpoint",
    }
    text = repr(given).replace("PosixPath", "Path")
    elsewhere("-c", TRAIN, text, str(tmp_path / "x.log"))
    found = records.read(tmp_path / "train.json", records.TrainRecord)
    assert found.peak_memory_bytes > 50 << 20
    *_, last = (tmp_path / "x.log").read_text().splitlines()
    assert 0 < json.loads(last)["seconds"]["starting"] < 600


def test_jobs_of_a_run_start_their_own_processes_where_none_may_fork(elsewhere, tmp_path):
    study = [
        "--configfile",
        str(CONFIG),
        str(MINI),
        str(REDUCED),
        "--config",
        f"results={tmp_path}",
    ]
    target = f"{tmp_path}/world"
    done = elsewhere("-m", "snakemake", "--cores", "2", "--quiet", "rules", *study, "--", target)
    assert "world: " in done.stderr and "warm parent" not in done.stderr
    assert (tmp_path / "world/mofe/tokenizer").is_dir()


@pytest.mark.parametrize(
    "system, machine, python, told",
    [
        ("Linux", "x86_64", (3, 11), None),
        ("Linux", "aarch64", (3, 13), None),
        ("Darwin", "arm64", (3, 12), None),
        ("Darwin", "x86_64", (3, 12), "Macs with Apple silicon only"),
        ("Windows", "AMD64", (3, 12), "does not run on Windows itself"),
        ("Linux", "ppc64le", (3, 12), "this is Linux on ppc64le"),
        ("FreeBSD", "amd64", (3, 12), "this is FreeBSD on amd64"),
        ("Linux", "x86_64", (3, 10), "needs Python 3.11 or newer, and this is 3.10"),
        ("Linux", "x86_64", (2, 7), "needs Python 3.11 or newer, and this is 2.7"),
    ],
)
def test_where_this_runs(system, machine, python, told):
    found = platforms.refusal(system, machine, python)
    assert found is None if told is None else (told in found and "\n" not in found)


@pytest.mark.parametrize("glibc", [True, False])
def test_settings_of_glibcs_memory_are_for_glibc(glibc, monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.setattr(platforms, "has_glibc", lambda: glibc)
    job.prepare_environment(str(ROOT), "cpu")
    assert bool({v for v in os.environ if v.startswith("MALLOC_")}) == glibc


def test_no_two_files_of_a_study_differ_in_upper_and_lower_case_only():
    """A Mac's disk takes them for the same."""
    for overlays in ([], [MINI]):
        plan = Plan(read_study(CONFIG, *overlays))
        names = [name.lower() for name in schedule.jobs(Costs(plan), figures.inputs(plan))]
        assert len(set(names)) == len(names) > 100


UNAME = """
import platform
platform.system = lambda: "Darwin"
platform.machine = lambda: "x86_64"
"""


def test_an_unknown_platform_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(UNAME)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    for command in (["mofe/platforms.py"], ["-m", "snakemake", "-n", "--profile", "profiles/mini"]):
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1 and "Apple silicon only" in done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
