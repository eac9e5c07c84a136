"""How a job ended, as the last lines of its log tell.

Every job writes them (mofe/jobs/job.py, mofe/jobs/outcome.py). The process that submitted a job to
Slurm reads there what Slurm cannot know (mofe/jobs/slurm/executor.py), and partial tables give them
as the reason for a missing value. Only the standard library is imported.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Errors that come again at the next attempt: sentences about settings and inputs, and trainings
# that diverge.
REFUSALS = (ValueError, FloatingPointError)
SLURM_JOB = "SLURM_JOB_ID"
_FAILED = "failed: "  # begins the last line of the log of a job that failed


@dataclass(frozen=True)
class Ending:
    """error: the error's kind, None after a success. again: whether another attempt can help."""

    error: str | None
    again: bool

    @property
    def refused(self) -> bool:
        """Whether it failed by an error that would come again."""
        return self.error is not None and not self.again


def finished(label: str, **measured: Any) -> str:
    """The last line of the log of a job that succeeded."""
    return json.dumps({"job": label, **_where(), **measured})


def failed(error: BaseException, sentence: str) -> str:
    """The last lines of the log of a job that failed: for a job of Slurm's one for the process that
    submitted it, then the error's sentence for people."""
    told = {"error": type(error).__name__, "again": not isinstance(error, REFUSALS)}
    noted = json.dumps({**_where(), **told}) + "\n" if _where() else ""
    return f"{noted}{_FAILED}{' '.join(sentence.split())}\n"


def read(log: str | Path, slurm_job: str) -> Ending | None:
    """How a Slurm job ended; None where its log does not tell, as after it was killed."""
    if not Path(log).is_file():
        return None
    lines = Path(log).read_text(errors="replace").splitlines()
    for line in lines[-2:]:  # after an error the last line is a sentence for people
        told = _noted(line)
        if told.get("slurm_job") == slurm_job:
            return Ending(told.get("error"), told.get("again", False))
    return None


def failure(log: str | Path) -> str | None:
    """The sentence of a job's error; None where it did not fail, or ended without a word."""
    *_, last = ["", *Path(log).read_text(errors="replace").splitlines()]
    return last.removeprefix(_FAILED) if last.startswith(_FAILED) else None


def _noted(line: str) -> Mapping[str, Any]:
    if not line.startswith('{"'):
        return {}
    try:
        return json.loads(line)
    except json.JSONDecodeError:  # the disk became full, or the job was killed while it wrote
        return {}


def _where() -> Mapping[str, str]:
    return {"slurm_job": os.environ[SLURM_JOB]} if SLURM_JOB in os.environ else {}
