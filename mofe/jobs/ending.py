"""How a job of Slurm's ended, as a line at the end of its log tells: what Slurm cannot know.

Every job writes such a line (mofe/jobs/job.py, mofe/jobs/outcome.py). The process that submitted it
reads the line (mofe/jobs/slurm/executor.py). Only the standard library is imported.
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


@dataclass(frozen=True)
class Ending:
    """error: the error's kind, None after a success. again: whether another attempt can help."""

    error: str | None
    again: bool


def finished(label: str, **measured: Any) -> str:
    """The last line of the log of a job that succeeded."""
    return json.dumps({"job": label, **_where(), **measured})


def failed(error: BaseException) -> str:
    """What the log of a job of Slurm's tells of an error: a line, or nothing for other jobs."""
    if not _where():
        return ""
    told = {"error": type(error).__name__, "again": not isinstance(error, REFUSALS)}
    return json.dumps({**_where(), **told}) + "\n"


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


def _noted(line: str) -> Mapping[str, Any]:
    if not line.startswith('{"'):
        return {}
    try:
        return json.loads(line)
    except json.JSONDecodeError:  # the disk became full, or the job was killed while it wrote
        return {}


def _where() -> Mapping[str, str]:
    return {"slurm_job": os.environ[SLURM_JOB]} if SLURM_JOB in os.environ else {}
