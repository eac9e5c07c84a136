"""Signals that ask a job to stop: Ctrl-C, and what Slurm sends before it ends a job.

Only the standard library is imported, as in mofe/jobs/job.py.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stopped(KeyboardInterrupt):
    """A signal asked the job to stop. Its text is the signal's name."""


@contextmanager
def heeded() -> Iterator[None]:
    """The first of these signals raises Stopped; later ones are ignored, so that nothing cuts off
    what the first one has to leave in order. A signal that was ignored before stays ignored."""
    before = {n: signal.getsignal(n) for n in NUMBERS if signal.getsignal(n) != signal.SIG_IGN}

    def stop(number: int, frame) -> None:
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(signal.Signals(number).name)

    for number in before:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


@contextmanager
def passed_over() -> Iterator[None]:
    """Signals that come meanwhile are ignored: what is done must not be cut off."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in NUMBERS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
