"""How often Snakemake looks for jobs to start, and that its limit of jobs per timespan still holds."""

import re
import time

from conftest import ROOT, overrides, snakemake

DATASETS = ("mmlu", "medmcqa", "sujet", "medical_corpus", "multi_news")
WAITS = """
import sys

sys.path[:0] = [{root!r}]
from mofe.jobs import looks

looks.use()
rule all:
    input: expand("{{number}}", number=range(6))
rule one:
    output: "{{number}}"
    shell: "touch {{output}}"
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


def test_jobs_that_the_limit_held_back_are_started_after_the_timespan(tmp_path):
    (tmp_path / "Snakefile").write_text(WAITS.format(root=str(ROOT)))
    start = time.monotonic()
    done = snakemake(
        *["--directory", str(tmp_path), "--snakefile", str(tmp_path / "Snakefile")],
        *["--cores", "8", "--max-jobs-per-timespan", "2/3s"],
    )
    assert time.monotonic() - start > 6
    assert (done.stdout + done.stderr).count("Execute 2 jobs...") == 3
