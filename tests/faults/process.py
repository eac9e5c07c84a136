"""Running a job in a fork of this process, which has imported what jobs need."""

import json
import os
import re
import runpy
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults.study import ROOT, Job
from tests.faults.watch import Event, Watch

LIMIT = 240.0  # seconds after which a job hangs


@dataclass(frozen=True)
class Ended:
    """code: the exit code; negative for a signal that it died of, None where it hung. text: what the
    terminal showed. events, steps, reached: what the watch saw."""

    code: int | None
    text: str
    events: tuple[Event, ...]
    steps: int
    reached: bool
    seen: dict

    @property
    def end(self) -> str:
        """The end of what the terminal showed."""
        return self.text[-600:]


def heeds(process: int, number: int) -> bool:
    """Whether a process catches a signal."""
    (caught,) = re.findall(r"SigCgt:\s*(\w+)", Path(f"/proc/{process}/status").read_text())
    return bool(int(caught, 16) >> (number - 1) & 1)


def warm() -> None:
    """Import what jobs need, and what of it takes time at first use."""
    from mofe import provenance
    from mofe.jobs import job, warm

    job.prepare_environment(str(ROOT), "cpu")
    os.environ.update(job.settings("cpu"))
    warm.load(warm.PRELOAD)
    import torch

    torch.set_num_threads(1)
    provenance.stamp()


class Running:
    """A job in a fork. watch: what to see and do there; prepare: further changes there."""

    def __init__(
        self,
        job: Job,
        folder: Path,
        watch: Watch,
        prepare: Callable[[Watch], None] = lambda watch: None,
    ):
        self.watch, self._text = watch, watch.report.with_suffix(".text")
        watch.report.unlink(missing_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if not self.pid:
            try:
                code = self._run(job, folder, prepare)
            except BaseException:  # noqa: BLE001 - as Python would end
                import traceback

                traceback.print_exc()
                code = 1
            finally:
                os._exit(code)

    def _run(self, job: Job, folder: Path, prepare) -> int:
        os.setpgid(0, 0)
        text = os.open(self._text, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(text, 1)
        os.dup2(text, 2)
        os.chdir(folder)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(
                number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            )
        self.watch.install()
        prepare(self.watch)
        leave = os._exit

        def reported(code: int) -> None:
            self.watch.written()
            leave(code)

        os._exit = reported
        code = 0
        try:
            runpy.run_path(str(job.script), {"snakemake": job.snakemake}, "__main__")
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
        sys.stdout.flush()
        sys.stderr.flush()
        return code

    def wait(self, limit: float = LIMIT) -> Ended:
        """Wait for its end."""
        until, status = time.monotonic() + limit, 0
        while not (gone := os.waitpid(self.pid, os.WNOHANG))[0]:
            if time.monotonic() > until:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                break
            time.sleep(0.005)
        status = gone[1]
        code = os.waitstatus_to_exitcode(status) if gone[0] else None
        report = self.watch.report
        seen = json.loads(report.read_text()) if report.exists() else {}
        return Ended(
            code,
            self._text.read_text(errors="replace"),
            tuple(Event(**event) for event in seen.get("events", ())),
            seen.get("steps", 0),
            seen.get("reached", False),
            seen,
        )


def run(job: Job, folder: Path, watch: Watch, prepare=lambda watch: None) -> Ended:
    """Run a job to its end."""
    return Running(job, folder, watch, prepare).wait()
