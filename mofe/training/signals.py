"""Signals that ask a training to stop: Slurm's before it ends a job, and Ctrl-C."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from typing import Self

from mofe import stops


class Interrupted(Exception):
    """Training stopped on a signal, and its state is saved."""


class Signals:
    """A context manager by which SIGTERM, SIGUSR1 and SIGINT raise Interrupted. Within `noted` they
    do so only when `answer` is called. `asked` is the name of the last signal, or None. told: what
    Interrupted says behind the signal's name.
    """

    def __init__(self, told: Callable[[], str]):
        self._told, self._patience = told, 0
        self.asked: str | None = None

    def __enter__(self) -> Self:
        self._handled = stops.handled(self._note)
        self._handled.__enter__()
        return self

    def __exit__(self, *exc) -> None:
        self._handled.__exit__(*exc)

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Only note signals meanwhile: what is done then must not be cut off."""
        self._patience += 1
        try:
            yield
        finally:
            self._patience -= 1

    def answer(self) -> None:
        """Raise Interrupted if there was a signal."""
        if self.asked:
            raise Interrupted(f"stopped by {self.asked} {self._told()}")

    def _note(self, number: int, frame) -> None:
        self.asked = signal.Signals(number).name
        if not self._patience:
            self.answer()
