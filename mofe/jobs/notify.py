"""The user's own command at the end of a run, or on failure (`notify`).

It changes nothing of the run: one that fails is told, and a run that went well has gone well.
"""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from mofe import units

PATIENCE = 60.0  # seconds that the command may take


@dataclass(frozen=True)
class Ended:
    """How a run ended.

    study, results: the study's name and folder. done, failed, total: numbers of the run's jobs.
    seconds: by the clock. log: Snakemake's own log of the run.
    """

    study: str
    results: str
    well: bool
    done: int
    failed: int
    total: int
    seconds: float
    log: str = ""

    @property
    def message(self) -> str:
        """All of it in one line."""
        failed = f", {self.failed} failed" if self.failed else ""
        how = "done" if self.well else "failed"
        counts = f"{self.done} of {self.total} jobs{failed}"
        return f"{self.study}: {how}, {counts}, {units.duration(self.seconds)}"

    @property
    def variables(self) -> dict[str, str]:
        """What the command gets in its environment."""
        return {
            "MOFE_MESSAGE": self.message,
            "MOFE_STUDY": self.study,
            "MOFE_OUTCOME": "done" if self.well else "failed",
            "MOFE_RESULTS": self.results,
            "MOFE_JOBS_DONE": str(self.done),
            "MOFE_JOBS_FAILED": str(self.failed),
            "MOFE_JOBS_LEFT": str(self.total - self.done),
            "MOFE_JOBS": str(self.total),
            "MOFE_SECONDS": f"{self.seconds:.0f}",
            "MOFE_LOG": self.log,
        }


def call(command: str, ended: Ended, environment: Mapping[str, str] = os.environ) -> str | None:
    """Call the command in a shell. Returns a sentence where it failed, None where it did not.
    environment: what it gets besides Ended.variables."""
    try:
        done = subprocess.run(
            command,
            shell=True,
            env={**environment, **ended.variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _told(command, f"it took more than {PATIENCE:.0f} s and was stopped")
    except OSError as error:
        return _told(command, str(error))
    if not done.returncode:
        return None
    said = done.stdout.strip().splitlines()
    return _told(command, f"exit code {done.returncode}" + (f": {said[-1]}" if said else ""))


def _told(command: str, why: str) -> str:
    return f"notify: the command failed ({why}); the run itself is not concerned: {command}"
