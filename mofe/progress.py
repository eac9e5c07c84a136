"""How far a piece of work is, and how long the rest will take.

At a terminal that is tqdm's bar. In a log it is a line from time to time, never a carriage return:

    [ 27%] 310 of 1,128 steps, 1.97 per second, 6 min 55 s left, loss 0.4312

`last` reads such a line back, so that others can tell how far a job is (mofe/jobs/watch.py and
mofe/jobs/standing.py).
"""

import os
import re
import sys
import threading
from dataclasses import dataclass

from tqdm import tqdm

from mofe import units

FIRST = 5.0  # seconds of work before a log gets its first line
INTERVAL = 30.0  # seconds between two lines of a log
BYTES = "B"  # the unit whose amounts are printed as sizes
_TAIL = 8192  # bytes at a log's end in which its last line of progress is looked for
_LINE = re.compile(r"^\[ *(\d+)%\] (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Told:
    """A line of progress, read back. share: what is done, from 0 to 1. text: the rest of it."""

    share: float
    text: str


def due(waited: float, is_first: bool) -> bool:
    """Whether a log gets a line. waited: seconds since the last one, or since the work began."""
    return waited >= (FIRST if is_first else INTERVAL)


def line(
    n: float,
    total: float,
    initial: float,
    seconds: float,
    unit: str,
    name: str = "",
    said: str = "",
) -> str:
    """A line for a log.

    n, total: how much is done, and of how much. initial: how much of it was done before; the
    `seconds` are those since then. unit: in the plural, or BYTES. name: of what. said: what else.
    """
    amount = units.size if unit == BYTES else (lambda count: f"{count:,.0f}")
    named = "" if unit in (BYTES, "it") else f" {unit}"  # "it" is tqdm's own for what has no name
    done = f"{amount(n)} of {amount(total)}{named}"
    speed = (n - initial) / seconds if seconds > 0 else 0.0
    parts = [f"{name}: {done}" if name else done]
    if n >= total:
        parts[0] += f" in {units.duration(seconds)}"
    if speed:
        parts.append(_speed(speed, amount))
        if n < total:
            parts.append(f"{units.duration((total - n) / speed)} left")
    share = 100 * n / total if total else 100
    return f"[{min(100, int(share)):3d}%] {', '.join(filter(None, (*parts, said)))}"


def _speed(speed: float, amount) -> str:
    if amount is units.size:
        return f"{units.size(speed)} per second"
    return f"{speed:.3g} per second" if speed >= 1 else f"{units.duration(1 / speed)} each"


def last(log: str | os.PathLike) -> Told | None:
    """The last line of progress in a log; None where it has none, or cannot be read: not there, or
    replaced on a shared disk meanwhile."""
    try:
        with open(log, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - _TAIL))
            found = _LINE.findall(file.read().decode(errors="replace"))
    except OSError:
        return None
    return Told(int(found[-1][0]) / 100, found[-1][1]) if found else None


class Progress(tqdm):
    """tqdm's bar at a terminal; in a log, a line from time to time.

    The arguments are tqdm's; where `file` is not given, it is what `print` writes to. unit: in the
    plural, or BYTES. leave: whether there is a line at the end even where the work took no time.
    Libraries that take a class of tqdm take this one (huggingface_hub's `tqdm_class`).
    """

    monitor_interval = 0  # no thread: forks are made from processes that have used it

    def __init__(self, *args, file=None, leave=True, **kwargs):
        file = sys.stdout if file is None else file
        self._in_log, self._lines, self._said = not is_terminal(file), 0, ""
        if self._in_log:
            kwargs |= {"mininterval": 0, "miniters": 1}
        else:
            kwargs = {"dynamic_ncols": True, **kwargs}
            by_unit = {"unit_scale": True}
            if (unit := kwargs.get("unit", BYTES)) != BYTES:
                by_unit = {"unit": f" {unit}"}
            kwargs |= by_unit
        super().__init__(*args, file=file, leave=leave, **kwargs)

    def update(self, n=1, said: str = ""):
        """`n` more are done. said: what else the line says."""
        self._said = said
        if self.disable or not self._in_log:
            if said and not self.disable:
                self.set_postfix_str(said, refresh=False)
            return super().update(n)
        self.n += n
        self.last_print_n = self.n  # from where tqdm counts when it is iterated
        if due(self._time() - self.last_print_t, not self._lines) and self.n < (self.total or 0):
            self._write()
            return True
        return False

    def refresh(self, *args, **kwargs):
        return None if getattr(self, "_in_log", False) else super().refresh(*args, **kwargs)

    def close(self) -> None:
        """The end, with a last line, but for work that was cut off."""
        if getattr(self, "disable", True) or not self._in_log:
            return super().close()
        if self.total and self.n >= self.total and (self.leave or self._lines):
            self._write()
        self.disable = True
        self._decr_instances(self)
        return None

    def _write(self) -> None:
        seconds = self._time() - self.start_t
        total = self.total or self.n
        told = line(
            self.n, total, self.initial, seconds, self.unit, self.desc.rstrip(": "), self._said
        )
        print(told.replace("\r", " "), file=self.fp, flush=True)
        self.last_print_t = self._time()
        self._lines += 1


# tqdm's own lock is shared with forks, where a fork that is killed would keep it for ever
Progress.set_lock(threading.RLock())


def is_terminal(file) -> bool:
    """Whether a bar can be drawn there: a terminal that can move its cursor."""
    return bool(getattr(file, "isatty", lambda: False)()) and os.environ.get("TERM") != "dumb"
