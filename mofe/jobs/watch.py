"""A run of Snakemake as it goes: how far it is, what runs, and how long the rest will take.

Snakemake's own words "x of y steps (z%) done" get the time that is left. At a terminal there is a
bar besides; elsewhere a line every few minutes says what runs and how far it is, as its log tells
(mofe/progress.py). Where a plugin writes to the terminal instead, such as Snakemake's rich logger,
nothing is added.
"""

import atexit
import logging
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from snakemake.logging import ColorizingTextHandler, DefaultFormatter, is_quiet_about
from snakemake_interface_logger_plugins.common import LogEvent

from mofe import progress, units
from mofe.jobs.notify import Ended

REDRAWN = 1.0  # seconds between two looks at what runs, for a bar
LOOKED = 5.0  # and where there is no terminal
TOLD = 300.0  # seconds between two lines that say what runs
MOST = 3  # jobs that are named in a line


@dataclass(frozen=True)
class Job:
    """A job of the run. hours: what the plan expects it to take. began, ended: when it did, in
    seconds; None before."""

    rule: str
    label: str
    hours: float
    log: str | None = None
    began: float | None = None
    ended: float | None = None
    failed: bool = False

    @property
    def runs(self) -> bool:
        return self.began is not None and self.ended is None and not self.failed


def time_left(jobs: Iterable[Job], shares: Sequence[float | None], now: float) -> float | None:
    """The seconds that a run will still take; None before anything can be said.

    shares: what is done of each job that runs, as far as its log tells. The plan's hours say how
    jobs compare; the jobs that are done say how long an hour of the plan takes here, those of the
    same rule first, and how many run at once.
    """
    jobs = list(jobs)
    begun = [j for j in jobs if j.began is not None and not j.failed]
    took: dict[str, float] = defaultdict(float)
    planned: dict[str, float] = defaultdict(float)
    for job, share in zip(jobs, shares, strict=True):
        done = 1.0 if job.ended is not None else share or 0.0
        if job.began is not None and done and not job.failed:
            took[job.rule] += (job.ended or now) - job.began
            planned[job.rule] += done * job.hours
    if not sum(planned.values()):
        return None
    overall = sum(took.values()) / sum(planned.values())
    pace = {rule: took[rule] / planned[rule] for rule in planned if planned[rule]}
    left = 0.0
    for job, share in zip(jobs, shares, strict=True):
        if job.ended is None and not job.failed:
            whole = job.hours * pace.get(job.rule, overall)
            spent = now - job.began if job.runs else 0.0
            left += whole * (1 - share) if share else max(0.0, whole - spent)
    busy = sum((j.ended or now) - j.began for j in begun)
    at_once = busy / max(now - min(j.began for j in begun), 1e-9)
    return left / max(at_once, 1.0)


def running(jobs: Sequence[Job], told: Sequence[progress.Told | None]) -> str:
    """What runs and how far it is, in words. told: of each job, from its log."""
    pairs = [(job, said) for job, said in zip(jobs, told, strict=True) if job.runs]
    named = [f"{job.label} {said.text}" if said else job.label for job, said in pairs[:MOST]]
    more = len(pairs) - MOST
    return "; ".join([*named, f"and {more} more"] if more > 0 else named)


class Watch(logging.Handler):
    """What Snakemake's log says of a run's jobs."""

    def __init__(self, study: str):
        """study: its name. Nothing is watched before `begin`."""
        super().__init__(logging.INFO)
        self.study, self.makes = study, False
        self.jobs: dict[int, Job] = {}

    def begin(self, jobs: dict[int, Job], makes: bool = True) -> None:
        """The run begins. jobs: those that will run, by Snakemake's numbers. makes: whether they
        make something of the study."""
        self.jobs, self.makes = jobs, makes
        self.began = self.told_at = time.time()

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of what a record says."""
        now = time.time()
        match getattr(record, "event", None):
            case LogEvent.JOB_INFO:
                self._note(record.jobid, began=now, ended=None, failed=False)
            case LogEvent.JOB_FINISHED:
                self._note(record.job_id, ended=now, failed=False)
            case LogEvent.JOB_ERROR:
                self._note(record.jobid, failed=True)
            case LogEvent.GROUP_ERROR:
                for job in record.job_error_info:
                    self._note(job["jobid"], failed=True)

    def _note(self, number: int, **values: Any) -> None:
        if number in self.jobs:
            self.jobs[number] = replace(self.jobs[number], **values)

    @property
    def done(self) -> int:
        return sum(job.ended is not None for job in self.jobs.values())

    @property
    def failed(self) -> int:
        return sum(job.failed for job in self.jobs.values())

    def left(self) -> str:
        """The time that the rest will take, in words; empty before anything can be said."""
        jobs, told = self._seen()
        return self._left(jobs, told)

    def line(self) -> str:
        """How far the run is, and what runs."""
        jobs, told = self._seen()
        share = self.done / len(jobs) if jobs else 1.0
        parts = [f"{self.study}: {self.done} of {len(jobs)} jobs ({share:.0%})"]
        return " | ".join(filter(None, (*parts, self._left(jobs, told), running(jobs, told))))

    def outcome(self, results: str, well: bool, logs: Sequence[str]) -> Ended:
        """How the run ended. logs: Snakemake's own."""
        seconds = time.time() - self.began
        counts = (self.done, self.failed, len(self.jobs))
        return Ended(self.study, results, well, *counts, seconds, "".join(logs[:1]))

    def _seen(self) -> tuple[list[Job], list[progress.Told | None]]:
        jobs = list(self.jobs.values())
        return jobs, [_last(job) if job.runs else None for job in jobs]

    @staticmethod
    def _left(jobs: Sequence[Job], told: Sequence[progress.Told | None]) -> str:
        found = time_left(jobs, [said.share if said else None for said in told], time.time())
        return f"about {units.rough_time(found / 3600)} left" if found and found >= 1 else ""


def _last(job: Job) -> progress.Told | None:
    """What a running job's log tells, if it is of this attempt."""
    try:
        fresh = job.log is not None and os.path.getmtime(job.log) >= job.began
    except OSError:
        return None
    return progress.last(job.log) if fresh else None


# ----------------------------------------------------------------------------------- what is shown


def show(watch: Watch, logger: logging.Logger, quiet: Iterable[Any]) -> None:
    """Have Snakemake's words say the time that is left, and show what runs, until this process
    ends. quiet: what Snakemake is quiet about."""
    logger.addHandler(watch)
    for handler in logger.handlers:
        if isinstance(handler.formatter, DefaultFormatter):
            handler.formatter.format_progress = partial(_with_time, handler.formatter, watch)
    ours = [h for h in logger.handlers if isinstance(h, ColorizingTextHandler)]
    if not ours or is_quiet_about(quiet, "progress"):
        return  # a plugin shows the run, or the user wants no words
    (handler,) = ours
    bar = None
    if progress.is_terminal(handler.stream):
        bar = progress.Progress(
            total=len(watch.jobs), file=handler.stream, bar_format="{bar:20} {desc}", leave=False
        )
        handler.addFilter(partial(_cleared, bar))  # other processes clear it (outcome.say)
        atexit.register(bar.close)
    threading.Thread(target=_tell, args=(watch, bar, logger), daemon=True).start()


def _with_time(formatter: DefaultFormatter, watch: Watch, msg: dict[str, Any]) -> str:
    told = DefaultFormatter.format_progress(formatter, msg)
    left = watch.left() if msg["done"] < msg["total"] else ""
    return f"{told}, {left}" if left else told


def _cleared(bar: progress.Progress, record: logging.LogRecord) -> bool:
    """Make room for one of Snakemake's records. Returns True: it is shown."""
    bar.clear()
    return True


def _tell(watch: Watch, bar: progress.Progress | None, logger: logging.Logger) -> None:
    while True:
        time.sleep(REDRAWN if bar is not None else LOOKED)
        if bar is not None:
            bar.n = watch.done
            bar.set_description_str(watch.line())
        elif time.time() - watch.told_at >= TOLD:
            watch.told_at = time.time()
            logger.info(watch.line())
