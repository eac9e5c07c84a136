"""What a job's output becomes: its log, and the one line that the terminal gets where it fails.

Only the standard library and light modules are imported, as in mofe/jobs/job.py.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress

from mofe import disk, stops
from mofe.jobs import ending
from mofe.training.signals import Interrupted

CLEAR = "\r\x1b[K"  # has a terminal forget the line that its cursor is in


def reported(label: str, log: str | None, act: Callable[[], None]) -> int:
    """Act, with what is printed in the log. Returns 0, or 1 after an error, which is told in one
    line in the terminal; the log then ends with its traceback. A signal is told without one."""
    with stops.heeded():
        try:
            with _logged(log):
                act()
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 - it fails, whatever it is
            say(f"{label}: {sentence(error, log)}")
            return 1
    return 0


def say(line: str) -> None:
    """A line for the terminal, in place of the bar that may be there (mofe/jobs/watch.py). Where it
    is a file on a full disk, nobody can be told."""
    with suppress(OSError):
        clear = CLEAR if sys.__stderr__.isatty() else ""
        print(f"{clear}{line}", file=sys.__stderr__, flush=True)


def sentence(error: BaseException, log: str | None) -> str:
    """What an error tells the user. log: the file that has its traceback."""
    told = _words(error, log)
    return f"{told} (see {log})" if log and _has_traceback(error) else told


def _words(error: BaseException, log: str | None) -> str:
    if isinstance(error, stops.Stopped):
        return f"stopped by {error}; the same command makes it"
    full = disk.told(error, [os.path.dirname(log) or "."] if log else ())
    return full or ": ".join(filter(None, (type(error).__name__, str(error))))


def _has_traceback(error: BaseException) -> bool:
    """Whether a log shows where an error was raised: of a signal and of a full disk that says
    nothing."""
    return not isinstance(error, stops.Stopped | Interrupted) and not disk.told(error)


@contextmanager
def _logged(log: str | None) -> Iterator[None]:
    """What is printed meanwhile goes to the log, and so does an error, with its traceback. Raises
    OSError where the log itself cannot be written."""
    if log is None:
        yield
        return
    os.makedirs(os.path.dirname(log) or ".", exist_ok=True)
    file = open(log, "w")  # noqa: SIM115 - closing it can fail too
    try:
        with redirect_stdout(file), redirect_stderr(file):
            yield
        file.close()
    except BaseException as error:
        # a log on a full disk must not hide the error that it was to tell
        with suppress(OSError):
            if _has_traceback(error):
                traceback.print_exc(file=file)
            file.write(ending.failed(error, _words(error, log)))
        with suppress(OSError):
            file.close()
        raise
