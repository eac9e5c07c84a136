"""What shows a study's numbers, and must not stay when it no longer fits the configuration.

Tables, figures, claims and pages are made again in seconds from records. So a run removes those
that it will make again before its first job starts: whatever then fails or is killed, none is left
that looks valid and shows an earlier configuration's numbers.
"""

from collections.abc import Iterable
from pathlib import Path

from mofe import sums
from mofe.jobs.checks import Waiting
from mofe.study.graph import Graph

# An archive is among them only where it is made again itself: it holds the configuration that it
# is of, and may be the only copy of what was cited.
RULES = frozenset(
    (
        "table",
        "table_on_demand",
        "figure",
        "claim",
        "claims",
        "claims_paper",
        "replications",
        "report",
        "pdf",
        "archive",
    )
)


def outdated(graph: Graph, waiting: Iterable[Waiting]) -> list[str]:
    """The files that the waiting jobs will make again, and the PDF of tables and figures where it
    shows one of them; each job's with their checksums."""
    made = [job.outputs for job in waiting if job.rule in RULES]
    if set(graph.inputs("pdf", {})).intersection(file for files in made for file in files):
        made.append((graph.plan.paths.pdf,))
    return list(dict.fromkeys(file for files in made for file in (*files, sums.path(files[0]))))


def remove(files: Iterable[str]) -> None:
    """Remove files that may be there."""
    for file in files:
        Path(file).unlink(missing_ok=True)
