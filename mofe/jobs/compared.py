"""The arguments of `snakemake ... compare A B`. Snakemake takes A and B for targets too, so they
are taken out before it looks for rules that make them."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from os.path import exists
from typing import Any

RULE = "compare"
VARIABLE = "MOFE_COMPARE"  # how a job's own process, which has no targets, knows them
NAME = (
    "name two results folders or archives: "
    "snakemake --profile profiles/mini compare docs/reference results/mini"
)


def split(targets: Iterable[str], rule: str = RULE) -> tuple[list[str], list[str]]:
    """The targets without the arguments of `compare`, and these arguments: all that follow it.
    rule: what a module calls it."""
    targets = list(targets)
    if rule not in targets:
        return targets, []
    at = targets.index(rule) + 1
    return targets[:at], targets[at:]


def refused(targets: Sequence[str], arguments: Sequence[str], rule: str = RULE) -> list[str]:
    """Sentences where `compare` is asked for and has not two arguments, or one is not there."""
    if rule not in targets:
        return []
    if len(arguments) != 2:
        given = f"not {' '.join(arguments)}" if arguments else "and none are named"
        return [f"compare: two results are compared, {given}; {NAME}"]
    return [f"compare: {path} is not there; {NAME}" for path in arguments if not exists(path)]


def take_arguments(
    workflow: Any, refuse: Callable[[Sequence[str]], None], rule: str = RULE
) -> None:
    """Have Snakemake take them out of its targets. It knows these only after it has read all rules,
    when it prepares the graph. refuse: is called with sentences of what is wrong. rule: what a
    module calls it."""
    prepare, taken = workflow._prepare_dag, []

    def prepared(*args: Any, **options: Any) -> Any:
        targets, arguments = split(workflow.dag_settings.targets, rule)
        taken[:] = arguments = arguments or taken[:]  # it may be prepared again
        if not workflow.dag_settings.target_jobs:
            refuse(refused(targets, arguments, rule))
        if arguments:
            workflow.dag_settings.targets = targets
            os.environ[VARIABLE] = json.dumps(arguments)  # processes of jobs inherit it
        return prepare(*args, **options)

    workflow._prepare_dag = prepared


def places(wildcards: Any = None) -> list[str]:
    """The two places that are compared; empty texts where nothing is."""
    return json.loads(os.environ.get(VARIABLE, '["", ""]'))
