# Where things are. CODE is the folder of this workflow's own files, from wherever it is called. What a
# study reads and makes is relative to the working directory (mofe/jobs/called.py).
import runpy
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError


def code():
    here = workflow.current_basedir
    if hasattr(here, "__fspath__"):
        return Path(here).parent
    # Of a git repository, Snakemake has only the files that it was asked for.
    checkout = workflow.source_path("../mofe/jobs/checkout.py")
    there = Path(".snakemake", "workflows").absolute()
    return runpy.run_path(str(checkout))["of"](here, there)


CODE = code()
sys.path.insert(0, str(CODE))  # the package of this workflow, installed or not

from mofe import platforms

if refusal := platforms.this():
    raise WorkflowError(refusal)

from mofe.jobs.called import Called

CALLED = Called.by(workflow, CODE)


configfile: CALLED.own


if CALLED.beside:

    configfile: CALLED.beside


config = CALLED.merged(config)
