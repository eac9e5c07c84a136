"""The lock on a checkpoint: who holds it, who takes it over, and several that want it at once."""

import contextlib
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_interrupted import job

from mofe.stages import train
from mofe.training import lock


def held(folder: Path, ready: int) -> None:
    """In a process of its own: hold the lock until it is killed."""
    lock.BEAT = 0.05
    with lock.Lock(folder):
        os.write(ready, b".")
        signal.pause()


@pytest.fixture
def holder(tmp_path):
    """Starts processes that hold the lock of a folder, and ends them."""
    started = []

    def start(folder: Path = tmp_path) -> int:
        reader, writer = os.pipe()
        if (child := os.fork()) == 0:
            try:
                held(folder, writer)
            finally:
                os._exit(1)
        started.append(child)
        assert os.read(reader, 1) == b"."
        return child

    yield start
    for child in started:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def elsewhere(folder: Path, **changes) -> None:
    """Have the lock say that its holder is on another machine, without changing its beats."""
    file = lock.read(folder).file
    owner = json.loads(file.read_text()) | {"host": "node7", "boot": "other"} | changes
    with open(file, "r+") as opened:
        opened.truncate()
        opened.write(json.dumps(owner))


def test_a_training_that_another_process_computes_is_refused_by_name(tiny, data, tmp_path, holder):
    asked = job(tiny, data, tmp_path, "mofe")
    (tmp_path / "checkpoint").mkdir()
    child = holder(tmp_path / "checkpoint")
    with pytest.raises(lock.Locked, match=rf"by process {child} on .*or stop it \(kill {child}\)"):
        train.train_variant(**asked.arguments)
    assert lock.read(tmp_path / "checkpoint").standing == "live"
    assert not list((tmp_path / "checkpoint").glob("step-*"))


def test_a_folder_where_the_lock_belongs_is_named(tmp_path):
    (tmp_path / "lock.json").mkdir()
    with pytest.raises(lock.Locked, match=r"lock.json: a folder, where the lock .*; rename it"):
        lock.Lock(tmp_path).__enter__()
    assert lock.read(tmp_path) is None


def test_a_holder_on_another_machine_is_known_by_its_beats(tmp_path, holder, monkeypatch):
    holder()
    elsewhere(tmp_path, slurm_job="17")
    assert lock.read(tmp_path).standing == "unknown"
    monkeypatch.setattr(lock, "PATIENCE", 60.0)  # the first beat ends the watch
    with pytest.raises(lock.Locked, match=r"on node7, Slurm job 17, .* \(scancel 17\)"):
        lock.Lock(tmp_path).__enter__()


def test_a_holder_that_shows_no_life_is_replaced_and_notices_it(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 0.3)
    with lock.Lock(tmp_path) as first:
        elsewhere(tmp_path)
        with lock.Lock(tmp_path) as second:
            assert second.held() and not first.held() and first.lost
            assert lock.read(tmp_path).owner.pid == os.getpid()
    assert lock.read(tmp_path) is None, "and it is gone when its holder is"


@pytest.mark.parametrize("content", ["", "{", '{"host": 3}'])
def test_a_lock_that_cannot_be_read_is_watched_like_any_other(tmp_path, monkeypatch, content):
    monkeypatch.setattr(lock, "PATIENCE", 0.3)
    (tmp_path / "lock.json").write_text(content)
    with lock.Lock(tmp_path) as taken:
        assert taken.held()


def test_a_dead_process_or_a_requeued_job_is_replaced_at_once(tmp_path, holder, monkeypatch):
    monkeypatch.setattr(lock, "PATIENCE", 3600.0)  # watching would hang
    child = holder()
    os.kill(child, signal.SIGKILL)
    while lock.read(tmp_path).standing == "live":
        pass
    with lock.Lock(tmp_path):
        elsewhere(tmp_path, slurm_job="17", restarts=0)
        monkeypatch.setenv("SLURM_JOB_ID", "17")
        monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
        with lock.Lock(tmp_path) as taken:
            assert taken.held()


# ---------------------------------------------------------------------------- several at once

HOW_MANY = 3


def leave_a_stale_lock(folder: Path, name: str = "lock.json") -> None:
    gone = lock._me().model_dump() | {"pid": 4194303, "started": 1}
    (folder / name).write_text(json.dumps(gone))


class Process(threading.Thread):
    """A thread that takes the lock, in the role of a process: the scheduler lets it go on from one
    file operation to the next.

    ended: how it ended: "had it", "refused", or what is wrong.
    """

    def __init__(self, folder: Path, inside: set[threading.Thread]):
        super().__init__(daemon=True)
        self.lock, self.inside, self.ended = lock.Lock(folder), inside, ""
        self._may, self._did = threading.Semaphore(0), threading.Semaphore(0)

    def run(self) -> None:
        self._may.acquire()
        try:
            with self.lock:
                self.inside.add(self)
                self.wait()
                alone = self.inside == {self}
                kept = not self.lock.lost and self.lock.held()
                self.inside.remove(self)
            self.ended = "had it" if alone and kept else f"alone: {alone}, kept: {kept}"
        except lock.Locked:
            self.ended = "refused"
        except Exception as error:  # noqa: BLE001 - the test shows it
            self.ended = repr(error)
        finally:
            self._did.release()

    def wait(self) -> None:
        """Called by the thread: wait for its next turn."""
        self._did.release()
        self._may.acquire()

    def go_on(self) -> None:
        """Called by the scheduler: up to the next operation, or to the end."""
        if not self.ended:
            self._may.release()
            self._did.acquire()


def stopping(act: Callable) -> Callable:
    """The same function; processes wait for their turn before it, unless it is about other files."""

    def waiting(*arguments, **keywords):
        process = threading.current_thread()
        if isinstance(process, Process) and str(process.lock.folder) in f"{arguments[0]}":
            process.wait()
        return act(*arguments, **keywords)

    return waiting


@contextlib.contextmanager
def stopped_at_files() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            *((lock, name) for name in ("_locks", "_beats", "_owner")),
            *((os, "open"), (Path, "unlink"), (Path, "rename")),
        ):
            patch.setattr(owner, name, stopping(getattr(owner, name)))
        patch.setattr(time, "sleep", lambda seconds: None)
        yield


def run(folder: Path, turns: Sequence[tuple[int, int]]) -> list[str]:
    """How the processes end that take these turns (which one, and for how many operations) and then
    one operation each in turn."""
    inside: set[threading.Thread] = set()
    processes = [Process(folder, inside) for _ in range(HOW_MANY)]
    with stopped_at_files():
        for process in processes:
            process.start()
        for number, operations in turns:
            for _ in range(operations):
                processes[number].go_on()
        while not all(process.ended for process in processes):
            for process in processes:
                process.go_on()
    return [process.ended for process in processes]


@settings(max_examples=300)
@example(left=["lock.json"], turns=[(0, 1), (1, 1), (2, 3), (0, 9)])
@given(
    left=st.sampled_from([[], ["lock.json"], ["lock.json", "lock.2.json"]]),
    turns=st.lists(st.tuples(st.integers(0, HOW_MANY - 1), st.integers(1, 9)), max_size=12),
)
def test_one_at_a_time_has_the_lock_and_keeps_it(left, turns):
    with tempfile.TemporaryDirectory() as folder:
        for name in left:
            leave_a_stale_lock(Path(folder), name)
        ended = run(Path(folder), turns)
        assert "had it" in ended and set(ended) <= {"had it", "refused"}, ended
        assert lock.read(Path(folder)) is None and len(list(Path(folder).iterdir())) == 1


def test_of_many_that_find_a_stale_lock_one_gets_it(tmp_path):
    for number in range(20):
        folder = tmp_path / str(number)
        folder.mkdir()
        leave_a_stale_lock(folder)
        reader, writer = os.pipe()
        children = []
        for _ in range(6):
            if (child := os.fork()) == 0:
                code = 1
                try:
                    with lock.Lock(folder):
                        os.write(writer, b"+")
                        signal.sigtimedwait([], 0.02)
                        os.write(writer, b"-")
                    code = 0
                except lock.Locked:
                    code = 2
                finally:
                    os._exit(code)
            children.append(child)
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        os.close(writer)
        told = os.read(reader, 99)
        os.close(reader)
        assert set(codes) <= {0, 2} and 0 in codes
        assert told == b"+-" * codes.count(0), "never two at once"
