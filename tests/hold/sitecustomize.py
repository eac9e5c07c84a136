"""Has a training wait where a test wants it to, so that no machine is too fast to stop it.

With this folder on PYTHONPATH every Python process reads this file as it starts. There, a training
whose checkpoint has a file `hold` beside it (conftest.hold writes it) waits after as many steps as
the file says, until its process handles a signal; that takes the file away. Without it nothing waits.
"""

import contextlib
import importlib.abc
import importlib.util
import os
import select
import signal
import sys
import time

HOUR = 3600  # so that nothing waits for ever for a test that is gone
MODULE = "mofe.training.checkpoint"  # where the class Checkpoint is


class Hook(importlib.abc.MetaPathFinder):
    """Changes the module once it is imported: importing it here would slow down every process."""

    def find_spec(self, name, path=None, target=None):
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        execute = spec.loader.exec_module

        def execute_and_change(module):
            execute(module)
            hold(module.Checkpoint)

        spec.loader.exec_module = execute_and_change
        return spec


def hold(checkpoint: type) -> None:
    """Have `checkpoint.due`, which a training asks after each step, wait where a file says so."""
    due = checkpoint.due
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)  # a byte for every signal handled, also before the wait

    def held(self):
        answer = due(self)  # before the wait: what is saved after it, the signal has saved
        gate, hangs = self.folder.with_name("hold"), time.monotonic() + HOUR
        with contextlib.suppress(FileNotFoundError):  # nothing to wait for, or no more
            while int(gate.read_text()) == len(self.log.read_text().splitlines()):
                if select.select([woken], [], [], 0.1)[0] or time.monotonic() > hangs:
                    gate.unlink()
        return answer

    checkpoint.due = held


sys.meta_path.insert(0, Hook())
