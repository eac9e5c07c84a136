"""How often Snakemake looks for jobs to start, and that its limit of jobs per timespan still holds."""

import re
import time
from pathlib import Path

from conftest import ROOT, overrides, snakemake

DATASETS = ("mmlu", "medmcqa", "sujet", "medical_corpus", "multi_news")
# Each job ends once so many have begun, and fails where they do not come in minutes.
MEETING = """
import sys

sys.path[:0] = [{root!r}]
from mofe.jobs import looks

looks.use()
rule all:
    input: expand("{{number}}", number=range({jobs}))
rule one:
    output: "{{number}}"
    shell:
        "touch {{output}}.here; "
        "for n in $(seq 1500); do "
        "  if [ $(ls *.here | wc -l) -ge {together} ]; then touch {{output}}; exit 0; fi; sleep 0.2; "
        "done; exit 1"
"""
SLOW = """
import time
from snakemake.executors.local import Executor

at_once = Executor.run_jobs
def run_jobs(self, jobs):
    at_once(self, jobs)
    time.sleep(3)
Executor.run_jobs = run_jobs
"""


def test_a_run_looks_for_jobs_when_one_has_ended(tmp_path):
    """Others wait for the only core all the time, and each takes some seconds."""
    done = snakemake(
        *["--profile", "profiles/mini", *overrides(results=str(tmp_path))],
        *["--cores", "1", "--verbose"],
        *["--", *(f"{tmp_path}/data/{name}.parquet" for name in DATASETS)],
    )
    told = done.stdout + done.stderr
    ended = len(re.findall(r"Finished jobid", told))
    assert ended > len(DATASETS)
    assert len(re.findall(r"Ready jobs: \d", told)) <= ended + 1


def run(folder: Path, *arguments: str, jobs: int, together: int, after: str = "") -> str:
    """What a small workflow's run prints."""
    text = MEETING.format(root=str(ROOT), jobs=jobs, together=together)
    (folder / "Snakefile").write_text(text + after)
    done = snakemake(
        *["--directory", str(folder), "--snakefile", str(folder / "Snakefile"), *arguments]
    )
    return done.stdout + done.stderr


def test_jobs_that_the_limit_held_back_are_started_after_the_timespan(tmp_path):
    limit = ["--cores", "8", "--max-jobs-per-timespan", "2/3s"]
    started = time.monotonic()
    told = run(tmp_path, *limit, jobs=6, together=1)
    assert time.monotonic() - started > 6
    assert told.count("Execute 2 jobs...") == 3


def test_so_they_are_where_submitting_takes_longer_than_the_timespan(tmp_path):
    """All are at work together, and not one pair after the other."""
    limit = ["--cores", "8", "--max-jobs-per-timespan", "2/1s"]
    told = run(tmp_path, *limit, jobs=4, together=4, after=SLOW)
    assert told.count("Execute 2 jobs...") == 2


def test_all_jobs_are_started_where_a_sample_is_looked_at(tmp_path):
    run(tmp_path, "--cores", "4", "--scheduler-subsample", "1", jobs=3, together=3)
