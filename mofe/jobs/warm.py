"""The warm parent: jobs start as forks of a process that has already imported what they need.

Importing torch, transformers, peft and lm-eval takes longer than most jobs of the mini study. So a
workflow that runs its jobs on this machine starts one process that imports them once. Scripts send
it their job through a socket, and it makes a fork for each. It ends with the workflow. Without a
warm parent, as on a cluster's nodes, a script does its work itself.
"""

import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

VARIABLE = "MOFE_WARM_PARENT"  # the environment variable that holds the socket's path
PRELOAD = [
    "peft",
    "bitsandbytes",
    "mofe.stages.train",
    "mofe.stages.evaluate",
    "mofe.stages.merge",
    "mofe.stages.prepare",
    "mofe.report.tables",
    "mofe.report.figures",
    "mofe.report.page",
    "scipy.io",  # which datasets imports when it reads
]

# glibc returns large blocks to the system after each use. Where page faults are slow, getting them
# again costs more than the computation: training steps took up to ten times as long.
KEEP_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 36),
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TOP_PAD_": str(1 << 26),
}


def start() -> subprocess.Popen:
    """Start the warm parent, and put its socket's path into this process's environment.

    It serves until its standard input closes, which happens when this process ends.
    """
    path = Path(tempfile.mkdtemp(prefix="mofe-")) / "socket"
    server = subprocess.Popen(
        [sys.executable, "-m", "mofe.jobs.warm", str(path)], stdin=subprocess.PIPE
    )
    os.environ[VARIABLE] = str(path)
    return server


def call(path: str, job) -> int:
    """Have the warm parent at `path` run a job, and return its exit code. The job prints to this
    process's stdout and stderr. Raises ConnectionError where the parent is gone."""
    with socket.socket(socket.AF_UNIX) as connection:
        _connect(connection, path)
        data = pickle.dumps(job)
        streams = [sys.__stdout__.fileno(), sys.__stderr__.fileno()]
        socket.send_fds(connection, [struct.pack("!Q", len(data))], streams)
        connection.sendall(data)
        answer = connection.recv(1)
    if not answer:
        print(f"{job.label}: its process died (out of memory?)", file=sys.stderr)
        return 1
    return answer[0]


def _connect(connection: socket.socket, path: str) -> None:
    # The parent binds its socket before it imports anything, so this waits only for Python to
    # start.
    for _ in range(600):
        if os.path.exists(path):
            connection.connect(path)
            return
        select.select([], [], [], 0.1)
    raise ConnectionError(f"no warm parent at {path}")


def serve(path: str) -> None:
    """Import what jobs need, then fork for every job until standard input closes."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path + ".new")
    listener.listen(64)
    os.rename(path + ".new", path)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the workflow tells its jobs to stop
    _preload()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # forks report through their connection
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            break
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            code = 1
            try:
                code = _work(connection)
            finally:
                os._exit(code)
        connection.close()
    os.unlink(path)
    os.rmdir(os.path.dirname(path))


def _preload() -> None:
    import importlib
    import logging

    for name in PRELOAD:
        importlib.import_module(name)
    logging.getLogger().handlers.clear()  # handlers would hold on to this process's stderr


def _work(connection: socket.socket) -> int:
    """In a fork: receive a job, run it with the caller's streams, and report its exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    header, streams, _, _ = socket.recv_fds(connection, 8, 2)
    (length,) = struct.unpack("!Q", header)
    data = b""
    while len(data) < length:
        part = connection.recv(length - len(data))
        if not part:
            return 1  # the script that asked is gone
        data += part
    for target, stream in zip((1, 2), streams, strict=True):
        os.dup2(stream, target)
    job = pickle.loads(data)
    os.chdir(job.folder)
    os.environ.clear()
    os.environ.update(job.environment)
    threading.Thread(target=_die_with, args=(connection,), daemon=True).start()
    code = _execute(job)
    sys.stdout.flush()
    sys.stderr.flush()
    connection.send(bytes([code]))
    return code


def _execute(job) -> int:
    from mofe.jobs.job import execute

    return execute(job)


def _die_with(connection: socket.socket) -> None:
    """End this fork when the script that asked for it is gone."""
    if not connection.recv(1):
        os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    serve(sys.argv[1])
