"""What a change of the configuration makes again.

Snakemake compares a job's parameters and the names of its inputs with those of the last run. This
does the same for two configurations without a run (docs/generate/reruns.py, tests/test_reruns.py).
"""

from mofe.study.graph import ALL, Node
from mofe.study.identity import Identities


def first(before: Identities, after: Identities) -> set[str]:
    """The rules of the jobs that a change makes again or adds, without those that are made again
    only because their inputs are."""
    known = {_key(job): job for job in before.graph.jobs}
    return {
        job.rule
        for job in after.graph.jobs
        if job.rule != ALL and _is_due(known.get(_key(job)), job, before, after)
    }


def readers(identities: Identities) -> dict[str, set[str]]:
    """By rule, the rules whose jobs read what it makes."""
    found: dict[str, set[str]] = {}
    for job in identities.graph.jobs:
        for file in job.inputs:
            if job.rule != ALL and file in identities.makers:
                found.setdefault(identities.makers[file].rule, set()).add(job.rule)
    return found


def _key(job: Node) -> tuple[str, ...]:
    return (job.rule, *job.wildcards.values())


def _is_due(known: Node | None, job: Node, before: Identities, after: Identities) -> bool:
    if known is None or (known.inputs, known.outputs) != (job.inputs, job.outputs):
        return True
    then, now = (found.given.of(job.rule, job.wildcards) for found in (before, after))
    return repr(then) != repr(now)  # as Snakemake compares them: the order of keys counts
