# The study, its plan, and the functions that all rules share.
import json
import os
import re
import shutil
from functools import cache, partial

from snakemake.exceptions import WorkflowError
from snakemake.io import IOFile
from snakemake.logging import logger

from mofe import paper, provenance
from mofe.estimate.cost import Costs
from mofe.jobs import (
    checks,
    contents,
    downloads,
    job,
    locks,
    made,
    params,
    resources,
    shown,
    unnoticed,
    warm,
)
from mofe.jobs.slurm import executor, gres, retries
from mofe.study.given import Given
from mofe.study.graph import Graph
from mofe.study.identity import Identities
from mofe.study.load import load_study
from mofe.report import figures
from mofe.report.sources import RECORDS
from mofe.study.plan import Plan
from mofe.study.values import ConfigError


def refuse(sentences):
    if sentences:
        raise WorkflowError("\n".join(sentences))


try:
    STUDY = load_study(config, *CALLED.sources)
    PLAN = Plan(STUDY)
except ConfigError as error:
    raise WorkflowError(str(error))
refuse(checks.missing_folders(PLAN, os.path.isdir))
refuse(checks.blocked_folders(PLAN, os.path.isdir, os.path.lexists))

locks.keep_those_of_other_runs()
job.prepare_environment(str(CODE), STUDY.device)
os.environ[provenance.CONFIG_FILES] = json.dumps(CALLED.hashes)
if workflow.execution_settings is not None:
    os.environ[made.LATENCY] = str(workflow.execution_settings.latency_wait)
ROOT = PLAN.root
FIGURES = figures.of(PLAN)
GRAPH = Graph(PLAN, figures.inputs(PLAN))
GIVEN = Given(
    PLAN,
    figures.given(PLAN),
    trainings=RECORDS.spec(PLAN),
    published=paper.digest(),
    command=CALLED.command,
    config=config,
)
IDENTITIES = Identities(GRAPH, GIVEN)
CONTENTS = contents.Contents(GRAPH, f"{ROOT}/contents.json")
COSTS = Costs(PLAN)

# A rule's `threads` and `resources`, by its name.
cpus = partial(resources.cpus, COSTS)
ENDS = retries.Ends()
spread = partial(resources.spread, COSTS, jobs=GRAPH.jobs)


def asks(rule):
    return resources.asks(COSTS, ENDS, rule, CALLED.rename(rule))


gres.use()
if workflow.is_main_process:  # a job has no jobs of its own
    executor.use(ENDS, PLAN.root)
unnoticed.count_as_done(IDENTITIES)


def names(planned):
    """A wildcard's pattern: planned names only, so that no rule makes a misspelt target."""
    return "|".join(map(re.escape, planned)) or "(?!)"


def models_by(origin):
    return names(m for m in PLAN.models if getattr(STUDY.models[m], origin) is not None)


@cache
def tell_stale():
    """Refuse a run of which results are stale and Snakemake cannot notice; a dry run only tells.
    This is called while Snakemake looks for jobs: before, it does not know what is asked for.
    """
    if not workflow.is_main_process:
        return
    settings = workflow.dag_settings
    if settings.forceall:
        return
    targets = {*map(plain, settings.targets)}
    found = made.stale(
        IDENTITIES,
        targets,
        {*map(plain, settings.forcerun)},
        lambda file: workflow.persistence.params(IOFile(file)) is not None,
    )
    if not found:
        return
    told = made.sentence(
        found, CALLED.command, settings.targets or [CALLED.rename("all")]
    )
    if workflow.execution_settings is not None and not workflow.dryrun:
        raise WorkflowError(told)
    logger.warning(told)


given = partial(params.given, IDENTITIES, CONTENTS, tell_stale)  # a rule's `params`


wildcard_constraints:
    dataset=names(PLAN.datasets),
    moe=names(PLAN.moes),
    variant=names(PLAN.variants),
    task=names(STUDY.tasks),
    seed=r"\d+",
    number=names(map(str, PLAN.tables)),


@cache
def plain(name):
    """A rule's name here, from its name in the workflow that uses this one as a module."""
    return {CALLED.rename(rule): rule for rule in OURS._rules}.get(name, name)


OURS = rules


def waiting():
    """The jobs of this workflow that will run."""
    return [
        checks.Waiting(
            plain(j.rule.name),
            dict(j.wildcards.items()),
            dict(j.resources.items()),
            workflow.is_local(j.rule),
            tuple(map(str, j.output)),
        )
        for j in workflow.dag.needrun_jobs()
        if j.rule.module_globals["rules"] is OURS
    ]


# Rules whose jobs import little, or what the warm parent must not.
COLD = {
    "prefetch",
    "fetch_repository",
    "pdf",
    "claims_paper",
    "verify",
    "sums",
    "partial",
    "check",
    "check_here",
    "check_node",
}


def has_gpu():
    import torch

    return torch.cuda.is_available()


def before_jobs():
    for told in COSTS.left_out():
        logger.warning(told)
    will_run = waiting()
    machine = checks.Machine(os.path.isdir, has_gpu, shutil.which)
    refuse(checks.before_the_run(COSTS, will_run, machine))
    refuse(downloads.state(STUDY.hub, checks.downloads(PLAN, will_run)))
    CONTENTS.remember()
    if not workflow.touch:
        shown.remove(shown.outdated(GRAPH, will_run))
    # A fork cannot use a GPU that its parent has initialised, nor another environment's Python.
    if (
        workflow.local_exec
        and STUDY.device == "cpu"
        and not workflow.deployment_settings.deployment_method
        and {j.rule for j in will_run} - COLD
    ):
        global WARM_PARENT
        WARM_PARENT = warm.start(settings=job.settings(STUDY.device))


onstart:
    before_jobs()


if CALLED.is_module:  # of which Snakemake heeds no `onstart`
    CALLED.also_before_jobs(workflow, before_jobs)
