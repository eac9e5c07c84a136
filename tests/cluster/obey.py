"""A job that does what a test tells it: it notes its start and its end in {root}/{name}.runs, and
between them waits for {root}/{name}.go, refuses, or takes memory, as {root}/{name}.how says. One that
is to linger goes on after its end until it is killed."""

import os
import signal
import sys
import time
from pathlib import Path

from mofe.jobs import ending

root, name, output, *logs = sys.argv[1:]
runs = Path(root, f"{name}.runs")
how = Path(root, f"{name}.how")
told = how.read_text() if how.exists() else "wait"


def note(what: str) -> None:
    with open(runs, "a") as file:
        file.write(f"{what} {os.environ.get('SLURM_JOB_ID', 'here')} {time.time()}\n")


def stopped(number, frame) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it comes from the step and from srun
    note("stopped")
    sys.exit(1)


def log(text: str) -> None:
    for file in logs:
        Path(file).write_text(text)


signal.signal(signal.SIGTERM, stopped)
attempt = len(runs.read_text().splitlines()) if runs.exists() else 0
note("started")
if told == "refuse":
    log(ending.failed(ValueError("lower it"), "lower it"))
    sys.exit(1)
if told == "memory" and attempt == 0:
    taken = bytearray(os.urandom(1024) * 1024 * 900)
    time.sleep(3600)
while not Path(root, f"{name}.go").exists():
    time.sleep(0.2)
Path(output).write_text(name)
log(ending.finished(name) + "\n")
if told == "linger":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
note("ended")
if told == "linger":
    time.sleep(3600)
