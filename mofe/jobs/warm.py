"""The warm parent: jobs start as forks of a process that has already imported what they need.

Importing torch, transformers, peft and lm-eval takes longer than most jobs of the mini study. So a
workflow that runs its jobs on this machine starts one process that imports them once. Scripts send
it their job through a socket, and it makes a fork for each. It ends with the workflow. Without a
warm parent, as on a cluster's nodes or where it died, a script does its work itself.

A fork cannot use a GPU that its parent has used. So in a job of Slurm's that is for all tasks of a
model (mofe/jobs/slurm/executor.py), the process does the jobs itself, one after the other
(`in_turn`), and keeps the model that one has loaded for the next.
"""

import atexit
import gc
import os
import pickle
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from mofe import platforms, stops

VARIABLE = "MOFE_WARM_PARENT"  # the environment variable that holds the folder of the socket
PATIENCE = 300.0  # seconds for which a job waits for the parent's imports
BACKLOG = 1024  # jobs that wait for them
PATIENCE_AGAIN = 10.0  # for which it waits once a job of the run had to wait in vain
IN_TURN = "MOFE_IN_TURN"  # the environment variable of one of Slurm's jobs that is for several
TOLD = "told"  # the file that is there after that
WORDS = "words"  # the file of what the parent prints
ALONE = "no warm parent: each job imports by itself what it needs, which takes longer"
_READY, _GO = b"r", b"g"  # what a fork and its script tell each other, besides signals
PRELOAD = [
    "peft",
    "bitsandbytes",
    "mofe.stages.train",
    "mofe.stages.evaluate",
    "mofe.stages.merge",
    "mofe.stages.reinitialise",
    "mofe.stages.prepare",
    "mofe.report.tables",
    "mofe.report.figures",
    "mofe.report.page",
    "scipy.io",  # which datasets imports when it reads
    "mofe.models.load:know_names",
    "mofe.provenance:versions",
]

ASKING = ["mofe.stages.evaluate"]  # for a job that is for all tasks of a model

# glibc returns large blocks to the system after each use. Where page faults are slow, getting them
# again costs more than the computation: training steps took up to ten times as long.
KEEP_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 36),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(1 << 26),
}


def start(
    preload: Sequence[str] = PRELOAD,
    settings: Mapping[str, str] | None = None,
    in_turn: bool = False,
) -> subprocess.Popen | None:
    """Start the warm parent, and put the folder of its socket into this process's environment.

    preload: the modules that it imports, and as "module:function" what it calls besides, so that a
    fork need not. settings: what its environment has besides. in_turn: it makes no forks, and does
    the jobs itself, one after the other. It serves until its standard input closes, which happens
    when this process ends. Where it cannot be started, one line says so, and jobs do their work
    themselves. They do so without a line where no process may fork, as on macOS.
    """
    if not platforms.forks():
        return None
    # -P: no package of this name in the working directory
    command = [sys.executable, "-P", "-m", "mofe.jobs.warm"]
    try:
        folder = tempfile.mkdtemp(prefix="mofe-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        with (
            socket.socket(socket.AF_UNIX) as listener,
            open(Path(folder, WORDS), "w") as words,
        ):
            with _address(folder) as address:
                listener.bind(address)
            listener.listen(BACKLOG)
            how = ["in-turn" if in_turn else "forks", folder, str(listener.fileno())]
            server = subprocess.Popen(
                [*command, *how, *preload],
                pass_fds=[listener.fileno()],
                stdin=subprocess.PIPE,
                stdout=words,
                stderr=words,
                env={**os.environ, **(settings or {})},
            )
    except OSError as error:
        print(f"{ALONE} (it cannot be started: {error})", file=sys.stderr, flush=True)
        return None
    os.environ[VARIABLE] = folder
    return server


@contextmanager
def _address(folder: str) -> Iterator[str]:
    """A path of the socket that is short enough for one, however long the folder's is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/socket"
    finally:
        os.close(descriptor)


# ------------------------------------------------------------------------- in a job's script


def call(folder: str, job, patience: float = PATIENCE) -> int | None:
    """Have the warm parent whose socket is in `folder` run a job, and return its exit code. The job
    prints to this process's stdout and stderr, and a signal to this process is passed on to it.

    None: the job has certainly not begun, and its script has to run it. That is so where no fork of
    the parent is ready within `patience` seconds; then the first job of a run says why. A fork that
    is ready waits for this process's word before it begins.
    """
    if Path(folder, TOLD).exists():
        patience = min(patience, PATIENCE_AGAIN)
    with socket.socket(socket.AF_UNIX) as connection, stops.heeded():
        try:
            _wait_until_ready(folder, job, connection, patience)
            with _passed_on(connection):
                return _answer(connection, job)
        except OSError as error:
            _tell(folder, error)
            return None
        except stops.Stopped as error:
            print(f"{job.label}: stopped by {error} before it began", file=sys.stderr)
            return 1


def _wait_until_ready(folder: str, job, connection: socket.socket, patience: float) -> None:
    """Hand a job over, until a fork is ready for it. Raises OSError where none is."""
    connection.settimeout(patience)
    with _address(folder) as address:
        connection.connect(address)
    data = pickle.dumps(job)
    streams = [sys.__stdout__.fileno(), sys.__stderr__.fileno()]
    socket.send_fds(connection, [struct.pack("!Q", len(data))], streams)
    connection.sendall(data)
    if not connection.recv(1):
        raise ConnectionError("it does not answer")
    connection.settimeout(None)


def _answer(connection: socket.socket, job) -> int:
    """Let a fork that is ready begin, and wait for its exit code."""
    answer = b""
    with suppress(ConnectionError):
        connection.sendall(_GO)
        answer = connection.recv(1)
    if not answer:
        print(f"{job.label}: its process died (out of memory?)", file=sys.stderr)
        return 1
    return answer[0]


@contextmanager
def _passed_on(connection: socket.socket) -> Iterator[None]:
    """Signals that ask this process to stop are passed on to the fork, which no terminal reaches.
    Meanwhile this process waits until the fork has left everything in order."""

    def pass_on(number: int, frame) -> None:
        with suppress(ConnectionError):  # it is gone, which the answer tells
            connection.send(bytes([number]))

    with stops.handled(pass_on, stops.not_ignored()):
        yield


def _tell(folder: str, error: OSError) -> None:
    """Say once in a run why there is no warm parent, with its own last words if it had any."""
    try:
        os.close(os.open(Path(folder, TOLD), os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        said = Path(folder, WORDS).read_text(errors="replace").strip().splitlines()
    except FileExistsError:
        return
    except OSError:  # the folder is gone too, or its disk is full
        said = []
    last = f"; its last words: {said[-1]}" if said else ""
    print(f"{ALONE} ({error}{last})", file=sys.stderr, flush=True)


# --------------------------------------------------------------------------- in the parent


def serve(how: str, folder: str, listening: int, preload: Sequence[str]) -> None:
    """Load what jobs need (`load`), then fork for every job until standard input closes, or do the
    jobs here ("in-turn") until one fails: what a failed job leaves behind must not reach the next
    one. listening: the descriptor of the socket, which takes jobs from before this process was
    started.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the workflow tells its jobs to stop
    listener = socket.socket(fileno=listening)
    listener.settimeout(None)
    load(preload)
    if how == "forks":
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks report through their connection
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            break
        connection, _ = listener.accept()
        with connection:
            if how == "forks":
                _fork(listener, connection)
            elif _in_turn(connection):
                break
    shutil.rmtree(folder, ignore_errors=True)


def _fork(listener: socket.socket, connection: socket.socket) -> None:
    """Fork for a job. Where there is no memory for it, the job's script sees the connection close,
    and does the work itself."""
    try:
        child = os.fork()
    except OSError as error:
        print(f"cannot fork: {error}", file=sys.stderr, flush=True)
        return
    if child == 0:
        code = 1
        try:
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.setsid()  # a terminal's Ctrl-C comes through the script that asked, once
            code = _work(connection)
        finally:
            os._exit(code)


def _in_turn(connection: socket.socket) -> int:
    """Do a job in this process. Returns its exit code."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    own = [os.dup(1), os.dup(2)]
    try:
        return _work(connection)
    finally:
        for target, stream in zip((1, 2), own, strict=True):
            os.dup2(stream, target)
            os.close(stream)
        gc.unfreeze()
        gc.collect()


def load(preload: Sequence[str]) -> None:
    """Import modules, and call the functions that are named as "module:function"."""
    import importlib
    import logging

    for name in preload:
        module, _, function = name.partition(":")
        found = importlib.import_module(module)
        if function:
            getattr(found, function)()
    logging.getLogger().handlers.clear()
    for logger in list(logging.Logger.manager.loggerDict.values()):
        for handler in getattr(logger, "handlers", ()):
            if vars(handler).get("stream") is sys.stderr:
                handler.stream = _Stderr()


class _Stderr:
    """What is stderr when something is written: a job's log, and not that of the process in which a
    library was imported, to which its loggers would hold on."""

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


# --------------------------------------------------------------- in a fork, or in the parent


def _work(connection: socket.socket) -> int:
    """Receive a job, run it with the caller's streams, and report its exit code."""
    header, streams, _, _ = socket.recv_fds(connection, 8, 2)
    if len(header) < 8:
        return 1  # the script that asked is gone
    (length,) = struct.unpack("!Q", header)
    data = b""
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            return 1  # the script that asked is gone
        data += part
    for target, stream in zip((1, 2), streams, strict=True):
        os.dup2(stream, target)
        os.close(stream)
    job = pickle.loads(data)
    os.chdir(job.folder)
    os.environ.clear()
    os.environ.update(job.environment)
    connection.sendall(_READY)
    if connection.recv(1) != _GO:
        return 1  # the script has lost patience, and runs the job
    over = threading.Event()
    threading.Thread(target=_obey, args=(connection.dup(), over), daemon=True).start()
    code = _execute(job)
    over.set()
    sys.stdout.flush()
    sys.stderr.flush()
    with suppress(ConnectionError):  # the script is gone
        connection.sendall(bytes([code]))
    return code


def _execute(job) -> int:
    from mofe.jobs.job import execute

    return execute(job)


def _obey(connection: socket.socket, over: threading.Event) -> None:
    """Send this process the signals that its script passes on, and SIGTERM when that is gone, until
    the job is over."""
    with connection, suppress(ConnectionError):
        while (passed_on := connection.recv(1)) and not over.is_set():
            os.kill(os.getpid(), passed_on[0])
    if not over.is_set():
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    serve(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4:])
