"""How a job ended, as the last line of its log tells: what Slurm cannot know.

Every job prints such a line (mofe/jobs/job.py). The process that submitted it reads the line
(mofe/jobs/slurm.py). Only the standard library is imported.
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


def failed(label: str, error: BaseException) -> str:
    """The last line of the log of a job that failed."""
    told = {"error": type(error).__name__, "again": not isinstance(error, REFUSALS)}
    return json.dumps({"job": label, **_where(), **told})


def read(log: str | Path, slurm_job: str) -> Ending | None:
    """How a Slurm job ended; None where its log does not tell, as after it was killed."""
    if not Path(log).is_file():
        return None
    lines = Path(log).read_text(errors="replace").splitlines()
    if not lines or not lines[-1].startswith("{"):
        return None
    try:
        told = json.loads(lines[-1])
    except json.JSONDecodeError:  # the disk became full, or the job was killed while it wrote
        return None
    if told.get("slurm_job") != slurm_job or "job" not in told:
        return None
    return Ending(told.get("error"), told.get("again", False))


def _where() -> Mapping[str, str]:
    return {"slurm_job": os.environ[SLURM_JOB]} if SLURM_JOB in os.environ else {}
