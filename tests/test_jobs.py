"""How a job is run and how it ends: with the warm parent and without it, stopped, on a full disk."""

import errno
import os
import pickle
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mofe import disk
from mofe.jobs import outcome, warm
from mofe.jobs.job import Job, execute
from tests.faults.process import heeds

# what a job calls: it notes who its parent is, and waits until it may end
CALLS = """
import os, time
from pathlib import Path

def note(file, wait_for=None):
    with open(file, "a") as opened:
        opened.write(f"{os.getpid()}\\n")
    while wait_for and not Path(wait_for).exists():
        time.sleep(0.02)
    return "noted"

def write(file):
    with open(file, "wb") as opened:
        while True:
            opened.write(bytes(1 << 16))

def talk():
    while True:
        print("word " * 1000)

def prepare():
    Path(__file__).with_name("prepared").write_text(str(os.getpid()))
"""
SCRIPT = """
import os, pickle, sys
from mofe.jobs import warm
from mofe.jobs.job import execute
work, patience = pickle.loads(sys.stdin.buffer.read())
folder = os.environ.get(warm.VARIABLE)
code = warm.call(folder, work, patience) if folder else None
sys.exit(execute(work) if code is None else code)
"""
ALONE = warm.ALONE


class Run:
    """A run of jobs in scripts of their own, as Snakemake's, whose parent is this process."""

    def __init__(self, folder: Path, monkeypatch):
        self.folder, self.notes, self.server = folder, folder / "notes", None
        self.count = 0
        (folder / "calls.py").write_text(CALLS)
        monkeypatch.setenv("PYTHONPATH", f"{folder}:{Path.cwd()}")
        monkeypatch.setenv(warm.VARIABLE, "")  # so that it is gone again after the test
        monkeypatch.setenv("TMPDIR", str(folder))
        monkeypatch.setattr("tempfile.tempdir", None)

    def start(self, *preload: str, in_turn: bool = False) -> None:
        os.environ.pop(warm.VARIABLE, None)
        self.server = warm.start(preload, in_turn=in_turn)

    def script(
        self, patience: float = 60, function: str = "calls:note", **more
    ) -> subprocess.Popen:
        call = {"file": str(self.notes), **more}
        work = Job(function, call, "note x", log=str(self.folder / "log"))
        with open(self._told(self.count), "w") as told:
            script = subprocess.Popen(
                [sys.executable, "-c", SCRIPT],
                stdin=subprocess.PIPE,
                stderr=told,
                start_new_session=True,
            )
        script.number, self.count = self.count, self.count + 1
        script.stdin.write(pickle.dumps((work, patience)))
        script.stdin.close()
        return script

    def _told(self, number: int) -> Path:
        return self.folder / f"told-{number}"

    def end(self, script: subprocess.Popen) -> tuple[int, list[str]]:
        """A script's exit code and the lines that it told."""
        script.wait(120)
        return script.returncode, self._told(script.number).read_text().splitlines()

    def noted(self) -> list[int]:
        return [int(line) for line in self.notes.read_text().split()] if self.notes.exists() else []

    def wait(self, times: int = 1) -> int:
        """Wait until a job has begun, and return its process."""
        for _ in range(6000):
            if len(self.noted()) >= times:
                return self.noted()[-1]
            select.select([], [], [], 0.02)
        raise AssertionError("the job did not begin")


@pytest.fixture
def run(tmp_path, monkeypatch):
    run = Run(tmp_path, monkeypatch)
    yield run
    if run.server and run.server.poll() is None:
        run.server.kill()
        run.server.wait(60)


def test_a_job_is_a_fork_of_the_parent_also_where_tmpdir_is_long(run, tmp_path, monkeypatch):
    long = tmp_path / ("long" * 30) / "folder"
    long.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setattr("tempfile.tempdir", None)
    run.start("json")
    script = run.script()
    assert run.end(script) == (0, ["note x: noted"])
    assert run.noted() != [script.pid]
    run.server.stdin.close()
    assert run.server.wait(60) == 0 and not list(long.iterdir())


def test_the_parent_calls_what_it_is_told_to_once_for_all_jobs(run, tmp_path):
    run.start("json", "calls:prepare")
    for _ in range(2):
        assert run.end(run.script())[0] == 0
    assert int((tmp_path / "prepared").read_text()) == run.server.pid not in run.noted()


@pytest.mark.parametrize("when", ["importing", "serving"])
def test_a_killed_parent_leaves_jobs_to_their_scripts_and_is_told_once(run, tmp_path, when):
    slow = "import pathlib, time\npathlib.Path(r'%s').touch()\ntime.sleep(600)" % (
        tmp_path / "here"
    )
    (tmp_path / "slow.py").write_text(slow)
    run.start("slow" if when == "importing" else "json")
    if when == "serving":
        run.end(run.script())
    waiting = [run.script()] if when == "importing" else []
    while waiting and not (tmp_path / "here").exists():
        select.select([], [], [], 0.02)
    run.server.kill()
    run.server.wait()
    scripts = [*waiting, *(run.script() for _ in range(3))]
    ends = [run.end(script) for script in scripts]
    assert all(code == 0 and told[-1] == "note x: noted" for code, told in ends)
    told = [line for _, lines in ends for line in lines[:-1]]
    assert len(told) == 1 and told[0].startswith(ALONE)
    assert sorted(run.noted()[-len(scripts) :]) == sorted(script.pid for script in scripts)


@pytest.mark.parametrize("in_turn", [False, True])
def test_what_an_imported_library_warns_of_is_in_the_jobs_log(run, tmp_path, in_turn):
    """transformers and others hold on to the stderr of the process that imports them."""
    library = "import logging\nlogging.getLogger('talks').addHandler(logging.StreamHandler())\n"
    (tmp_path / "talks.py").write_text(library)
    with open(tmp_path / "calls.py", "a") as calls:
        calls.write(
            "import logging\ndef warn(file):\n    logging.getLogger('talks').error('old')\n"
        )
    run.start("talks", in_turn=in_turn)
    code, told = run.end(run.script(function="calls:warn"))
    assert (code, told) == (0, ["note x: written"])
    assert "old" in (tmp_path / "log").read_text().splitlines()


def test_a_parent_that_cannot_import_says_why(run, tmp_path):
    (tmp_path / "large.py").write_text("raise MemoryError('8 GB of address space')")
    run.start("large")
    code, told = run.end(run.script())
    assert code == 0 and told[1:] == ["note x: noted"]
    assert told[0].startswith(ALONE) and "MemoryError: 8 GB of address space" in told[0]


def test_a_parent_that_cannot_fork_leaves_the_job_to_its_script(run, tmp_path):
    lines = "import os\ndef fork():\n raise BlockingIOError(11, 'no memory')\nos.fork = fork"
    (tmp_path / "bare.py").write_text(lines)
    run.start("bare")
    script = run.script()
    code, told = run.end(script)
    assert code == 0 and "no memory" in told[0] and run.noted() == [script.pid]
    assert run.end(run.script()) == (0, ["note x: noted"]), "it is told once"


def test_a_parent_that_hangs_is_not_waited_for_and_runs_nothing_later(run):
    run.start("json")
    run.end(run.script())
    os.kill(run.server.pid, signal.SIGSTOP)
    script = run.script(patience=0.5)
    code, told = run.end(script)
    assert code == 0 and told[0].startswith(ALONE) and told[1:] == ["note x: noted"]
    os.kill(run.server.pid, signal.SIGCONT)
    later = run.script()
    assert run.end(later)[0] == 0
    assert len(run.noted()) == 3 and run.noted()[1] == script.pid


def test_a_parent_that_cannot_be_started_is_one_line(run, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    run.start("json")
    assert run.server is None and warm.VARIABLE not in os.environ
    (told,) = capsys.readouterr().err.splitlines()
    assert told.startswith(ALONE) and "no-python" in told


def test_a_fork_that_is_killed_in_its_call_is_not_called_again(run):
    run.start("json")
    script = run.script(wait_for="/nowhere")
    os.kill(run.wait(), signal.SIGKILL)
    assert run.end(script) == (1, ["note x: its process died (out of memory?)"])
    assert len(run.noted()) == 1


def test_a_fork_ends_with_its_script(run):
    run.start("json")
    script = run.script(wait_for="/nowhere")
    fork = run.wait()
    script.kill()
    script.wait()
    for _ in range(3000):
        if not Path(f"/proc/{fork}").exists():
            return
        select.select([], [], [], 0.02)
    raise AssertionError("the fork lives on")


def test_one_process_does_jobs_in_turn_until_one_fails(run, tmp_path):
    """As for all tasks of a model in one of Slurm's jobs: the next job must not meet what a failed one
    left behind."""
    run.start("json", in_turn=True)
    for _ in range(2):
        assert run.end(run.script()) == (0, ["note x: noted"])
    stopped = run.script(wait_for=tmp_path / "go")
    assert {run.wait(times=3), *run.noted()} == {run.server.pid}
    os.kill(stopped.pid, signal.SIGTERM)
    code, told = run.end(stopped)
    assert code == 1 and len(told) == 1 and "stopped by SIGTERM" in told[0]
    run.server.wait(60)
    code, told = run.end(last := run.script())
    assert code == 0 and told[-1] == "note x: noted" and run.noted()[-1] == last.pid
    assert len(told) <= 2 and all(line.startswith(ALONE) for line in told[:-1])


# ------------------------------------------------------------------------------------ stopped


@pytest.mark.parametrize("parent", ["forks", "in turn", None])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_is_one_line_and_no_traceback(run, parent, number):
    if parent:
        run.start("json", in_turn=parent == "in turn")
    script = run.script(wait_for="/nowhere")
    run.wait()
    os.killpg(script.pid, number)  # as a terminal's Ctrl-C
    code, told = run.end(script)
    assert code == 1
    assert told == [f"note x: stopped by {number.name}; the same command makes it"]
    assert "Traceback" not in (run.folder / "log").read_text()


def sleeps(process: int) -> bool:
    """Whether a process waits for something."""
    return psutil.Process(process).status() == psutil.STATUS_SLEEPING


def test_a_job_that_waits_for_its_parent_is_stopped_by_one_line(run):
    run.start("json")
    run.end(run.script())
    os.kill(run.server.pid, signal.SIGSTOP)
    script = run.script()
    while not (heeds(script.pid, signal.SIGTERM) and sleeps(script.pid)):
        select.select([], [], [], 0.02)
    os.kill(script.pid, signal.SIGINT)
    code, told = run.end(script)
    assert code == 1 and len(told) == 1 and "stopped by SIGINT" in told[0]
    assert len(run.noted()) == 1


# ----------------------------------------------------------------------------------- full disks


@pytest.fixture
def small(tmp_path):
    """A disk of 256 KB."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("call", ["write", "talk"])
def test_a_full_disk_is_called_so_also_by_a_log_that_lies_on_it(
    run, small, call, monkeypatch, capfd
):
    """`write` fills the disk by a file of its own, so that the log has no room either."""
    monkeypatch.syspath_prepend(str(run.folder))
    given = {"file": str(small / "result")} if call == "write" else {}
    work = Job(f"calls:{call}", given, f"{call} x", log=str(small / "logs" / "x.log"))
    assert execute(work) == 1
    (told,) = capfd.readouterr().err.splitlines()
    assert told.startswith(f"{call} x: the disk is full: {small}")
    assert told.endswith(
        "make room and run the same command again, which goes on from what is done"
    )


def test_a_log_that_cannot_be_made_is_told(small, capfd):
    for number in range(4):
        with pytest.raises(OSError), open(small / str(number), "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
    work = Job("mofe.units:size", {"amount": 1}, "x", log=str(small / "logs" / "x.log"))
    execute(work)
    told = capfd.readouterr().err
    assert "Traceback" not in told and len(told.splitlines()) == 1


class Wrapper(Exception):
    """As torch's CheckpointException, which holds what the processes raised."""


def wrapped() -> list[BaseException]:
    full, quota = (
        OSError(errno.ENOSPC, "No space left on device", "a/b"),
        OSError(errno.EDQUOT, "x"),
    )
    caused = RuntimeError("saving failed")
    caused.__cause__ = full
    later = ValueError("then this")
    later.__context__ = caused
    return [
        full,
        quota,
        caused,
        later,
        Wrapper("failures", {0: (full, None)}),
        ExceptionGroup("several", [ValueError("x"), full]),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
        OSError("write failed: Disk quota exceeded"),
        Exception("IoError(Os { code: 122, kind: QuotaExceeded }) (os error 122)"),
    ]


@pytest.mark.parametrize("error", wrapped(), ids=lambda error: f"{type(error).__name__}")
def test_a_full_disk_is_known_however_it_is_wrapped(error, tmp_path):
    told = disk.told(error, [str(tmp_path)])
    assert re.match(r"the disk (is full|quota is used up): (a/b|/\S+): .+ free there; make", told)
    assert outcome.sentence(error, f"{tmp_path}/x.log") == told


@pytest.mark.parametrize(
    "error", [ValueError("device 28"), OSError(errno.EACCES, "denied", "a"), KeyError(28)]
)
def test_other_errors_are_no_full_disk(error):
    assert disk.told(error) is None


def test_an_error_without_words_is_told_by_its_kind():
    assert outcome.sentence(MemoryError(), "a.log") == "MemoryError (see a.log)"


def test_a_job_that_ends_by_itself_is_not_complained_of_by_libraries(tmp_path):
    """Triton's nanobind tells at the interpreter's end what was not freed: 31 lines of a training,
    4 of an import."""
    pytest.importorskip("triton")
    (tmp_path / "calls.py").write_text("import triton\ndef call():\n    return 'done'\n")
    script = "from mofe.jobs.job import Job, execute; import sys; "
    script += f"sys.exit(execute(Job('calls:call', {{}}, 'x', log={str(tmp_path / 'log')!r})))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{Path.cwd()}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("", "x: done\n")
