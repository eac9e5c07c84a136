"""The folder that a training keeps its unfinished work in.

Only the standard library and light modules are imported, as in mofe/jobs/job.py.
"""

import os
import shutil
from pathlib import Path

from mofe.jobs import outcome


def of(output: str | os.PathLike) -> Path:
    """That of the training whose first output this is: a record, or a model's folder."""
    made = Path(output)
    return made.with_name("checkpoint" if made.suffix else f".{made.name}.checkpoint")


def discard(folder: str | os.PathLike) -> None:
    """Remove a folder, or the one that a link of this name leads to. If that is cut off, no half of
    it is taken for the whole. The job is done all the same where it cannot be removed, as on a
    network disk while a file in it is open: that is told."""
    place = os.path.realpath(folder)
    aside = f"{place}.removed"
    try:
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(place, aside)
        shutil.rmtree(aside)
        if os.path.islink(folder):
            os.remove(folder)
    except OSError as error:
        left = aside if os.path.exists(aside) else folder
        outcome.say(f"{left}: cannot be removed ({error.strerror}); it is no longer needed")
