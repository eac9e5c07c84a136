"""What a rule's jobs ask of a machine, as functions of the wildcards for Snakemake's directives."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mofe.estimate.cost import LIGHT, Costs, Needs
from mofe.estimate.schedule import estimate
from mofe.jobs.slurm.retries import Ends, Verdict, decide
from mofe.study.graph import Node
from mofe.study.values import ConfigError


def needs(costs: Costs, rule: str) -> Callable[[Mapping[str, str]], Needs]:
    """From a job's wildcards to what it needs."""
    return lambda wildcards: estimate(costs, rule, wildcards).needs


def hours(costs: Costs, rule: str, wildcards: Mapping[str, str]) -> float:
    """How long a job is expected to take; of one whose sizes are not known before a download, as
    long as one that computes next to nothing."""
    try:
        return estimate(costs, rule, wildcards).hours
    except ConfigError:
        return LIGHT.hours


def cpus(costs: Costs, rule: str) -> Callable[[Mapping[str, str]], int]:
    """A rule's `threads`."""
    of = needs(costs, rule)
    return lambda wildcards: of(wildcards).cpus


def asks(
    costs: Costs, ends: Ends, rule: str, called: str | None = None
) -> dict[str, Callable[..., Any]]:
    """A rule's `resources`. Memory (MB) grows where earlier attempts ran out of it, and so does
    time (minutes). called: Snakemake's name of the rule, by which `ends` knows it, if that is
    another."""
    of = needs(costs, rule)

    def grown(wildcards: Mapping[str, str]) -> Verdict:
        return decide(ends.of(called or rule, wildcards), 0)

    return {
        # of the whole job, as Slurm counts them
        "gpu": lambda wildcards: of(wildcards).gpus * of(wildcards).nodes,
        "nodes": lambda wildcards: of(wildcards).nodes,
        "mem_mb": lambda wildcards: of(wildcards).mem_mb * grown(wildcards).memory,
        "runtime": lambda wildcards: of(wildcards).runtime * grown(wildcards).time,
        "sharding": lambda wildcards: of(wildcards).sharding,
    }


def spread(costs: Costs, rule: str, jobs: Iterable[Node]) -> dict[str, Any]:
    """More of a rule's `resources` where one of its jobs takes several nodes: the job itself then
    starts its processes there. Slurm's plugin would start them on the first node alone."""
    try:
        several = any(
            estimate(costs, rule, job.wildcards).needs.nodes > 1 for job in jobs if job.rule == rule
        )
    except ConfigError:  # sizes are not known before the download: the job's resources tell
        several = False
    return {"mpi": "srun", "tasks_per_node": 2} if several else {}
