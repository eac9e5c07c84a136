"""Signals that ask a process to stop: Ctrl-C, and what Slurm sends before it ends a job.

Only the standard library is imported, as in mofe/jobs/job.py.
"""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager

# SIGINT is Ctrl-C. By SIGTERM and SIGUSR1, Slurm announces a time limit or a preemption.
NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Stopped(KeyboardInterrupt):
    """A signal asked the job to stop. Its text is the signal's name."""


@contextmanager
def handled(handler: Callable | int, numbers: Iterable[int] = NUMBERS) -> Iterator[None]:
    """Signals that come meanwhile are handled so. handler: as signal.signal takes it."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former or signal.SIG_DFL)


def not_ignored() -> list[int]:
    """Those of the signals that this process does not ignore."""
    return [number for number in NUMBERS if signal.getsignal(number) != signal.SIG_IGN]


@contextmanager
def heeded() -> Iterator[None]:
    """The first of these signals raises Stopped; later ones are ignored, so that nothing cuts off
    what the first one has to leave in order. A signal that was ignored before stays ignored."""
    numbers = not_ignored()

    def stop(number: int, frame) -> None:
        for other in numbers:
            signal.signal(other, signal.SIG_IGN)
        raise Stopped(signal.Signals(number).name)

    with handled(stop, numbers):
        yield


def passed_over() -> AbstractContextManager[None]:
    """A context in which these signals are ignored: what is done must not be cut off."""
    return handled(signal.SIG_IGN)


@contextmanager
def noted() -> Iterator[threading.Event]:
    """An event that is set once one of these signals comes, which is then handled as before. For
    threads, which signals do not reach. Outside of the main thread, which alone can watch for
    signals, it is never set."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    former = {number: signal.getsignal(number) for number in NUMBERS}
    watched = {number: handler for number, handler in former.items() if callable(handler)}

    def note(number: int, frame) -> None:
        event.set()
        watched[number](number, frame)

    with handled(note, watched):
        yield event
