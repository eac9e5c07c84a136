# The study, its plan, and the functions that all rules share.
import json
import os
import re
import shutil
from functools import cache, partial
from importlib.util import find_spec

from snakemake.exceptions import WorkflowError
from snakemake.io import IOFile
from snakemake.logging import logger
from snakemake.settings.types import DeploymentMethod

from mofe import paper, provenance
from mofe.estimate.cost import Costs
from mofe.files import write_atomic
from mofe.jobs import (
    checks,
    compared,
    contents,
    downloads,
    gpus,
    job,
    locks,
    looks,
    made,
    notify,
    params,
    resources,
    shown,
    unnoticed,
    warm,
    watch,
)
from mofe.jobs.slurm import executor, gres, retries
from mofe.study.given import Given
from mofe.study.graph import Graph
from mofe.study.identity import Identities
from mofe.study.load import dumped, load_study
from mofe.report import figures
from mofe.report.sources import RECORDS
from mofe.study.plan import Plan
from mofe.study.values import ConfigError

# What may be installed: for CUDA 13, and for CUDA 12.
LOCKS = [
    os.path.relpath(CODE / name) for name in ("requirements.lock", "envs/cuda12.lock")
]


def refuse(sentences):
    if sentences:
        raise WorkflowError("\n".join(sentences))


try:
    STUDY = load_study(config, *CALLED.sources)
    PLAN = Plan(STUDY, on_demand=True)
except ConfigError as error:
    raise WorkflowError(str(error))
refuse(checks.missing_folders(PLAN, os.path.isdir))
refuse(checks.blocked_folders(PLAN, os.path.isdir, os.path.lexists))

# The image that jobs run in with --software-deployment-method apptainer (docs/installing.md).
IMAGE = os.environ.get("MOFE_IMAGE", str(CODE / "mofe.sif"))
if DeploymentMethod.APPTAINER in workflow.deployment_settings.deployment_method:
    refuse(checks.missing_image(IMAGE, os.path.exists))


container: IMAGE


locks.keep_those_of_other_runs()
job.prepare_environment(str(CODE), STUDY.device)
os.environ[provenance.CONFIG_FILES] = json.dumps(CALLED.hashes)
if workflow.execution_settings is not None:
    os.environ[made.LATENCY] = str(workflow.execution_settings.latency_wait)
ROOT = PLAN.root
FIGURES = figures.of(PLAN.of_all)
GRAPH = Graph(PLAN, figures.inputs(PLAN.of_all))
GIVEN = Given(
    PLAN,
    figures.given(PLAN.of_all),
    trainings=RECORDS.spec(PLAN.of_all),
    published=paper.digest(),
    command=CALLED.command,
    config=config,
)
IDENTITIES = Identities(GRAPH, GIVEN)
CONTENTS = contents.Contents(GRAPH, f"{ROOT}/contents.json")
COSTS = Costs(PLAN)
WATCH = watch.Watch(STUDY.study)

# A rule's `threads` and `resources`, by its name.
cpus = partial(resources.cpus, COSTS)
ENDS = retries.Ends()
spread = partial(resources.spread, COSTS, jobs=GRAPH.jobs)


def asks(rule):
    return resources.asks(COSTS, ENDS, rule, CALLED.rename(rule))


gres.use()
if workflow.is_main_process:  # a job has no jobs of its own
    looks.use()
    executor.use(ENDS, PLAN.root)
elif (
    warm.IN_TURN in os.environ and not workflow.deployment_settings.deployment_method
):  # but for one that is for all tasks of a model
    WARM_PARENT = warm.start(warm.ASKING, job.settings(STUDY.device), in_turn=True)
unnoticed.count_as_done(IDENTITIES)


def names(planned):
    """A wildcard's pattern: planned names only, so that no rule makes a misspelt target."""
    return "|".join(map(re.escape, planned)) or "(?!)"


def asked_elsewhere(wildcards):
    """Claims of this study and of others, whose results no rule here makes."""
    refuse(checks.missing_replications(PLAN, os.path.exists))
    return GRAPH.replications()


def models_by(origin):
    return names(m for m in PLAN.models if getattr(STUDY.models[m], origin))


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


@cache
def plain(name):
    """A rule's name here, from its name in the workflow that uses this one as a module."""
    return {CALLED.rename(rule): rule for rule in OURS._rules}.get(name, name)


OURS = rules


def needed():
    """Snakemake's jobs of this workflow that will run, each with its rule's name here."""
    return [
        (j, plain(j.rule.name))
        for j in workflow.dag.needrun_jobs()
        if j.rule.module_globals["rules"] is OURS
    ]


def waiting():
    """The jobs of this workflow that will run."""
    return [
        checks.Waiting(
            name,
            dict(j.wildcards.items()),
            dict(j.resources.items()),
            workflow.is_local(j.rule),
            tuple(map(str, j.output)),
        )
        for j, name in needed()
    ]


def jobs_of_the_run():
    """The jobs that will run, by Snakemake's numbers, as a run is watched."""
    return {
        j.jobid: watch.Job(
            name,
            " ".join([name, "/".join(j.wildcards)]).strip(),
            resources.hours(COSTS, name, j.wildcards),
            str(j.log[0]) if j.log else None,
        )
        for j, name in needed()
    }


def tell_the_end(well, log):
    """Call the user's command."""
    if STUDY.notify and WATCH.makes:
        if told := notify.call(STUDY.notify, WATCH.outcome(ROOT, well, log)):
            logger.warning(told)


# Rules whose jobs import little, or what the warm parent must not.
COLD = {
    "prefetch",
    "fetch_repository",
    "pdf",
    "claims_paper",
    "verify",
    "sums",
    "partial",
    "compare",
    "status",
    "check",
    "check_here",
    "check_node",
}


def before_jobs():
    for told in COSTS.left_out():
        logger.warning(told)
    will_run = waiting()
    machine = checks.Machine(
        os.path.isdir, gpus.any_usable, gpus.old_driver, shutil.which, find_spec
    )
    refuse(checks.before_the_run(COSTS, will_run, machine))
    refuse(downloads.state(STUDY.hub, checks.downloads(PLAN, will_run)))
    CONTENTS.remember()
    computing = {j.rule for j in will_run} - COLD
    if computing:
        write_atomic(PLAN.paths.config, dumped(config))
    if not workflow.touch:
        shown.remove(shown.outdated(GRAPH, will_run))
    made_now = {file for j in will_run for file in j.outputs}
    WATCH.begin(jobs_of_the_run(), makes=bool(made_now.intersection(GRAPH.makers)))
    watch.show(WATCH, logger, workflow.output_settings.quiet or ())
    # A fork cannot use a GPU that its parent has initialised, nor another environment's Python.
    if (
        workflow.local_exec
        and STUDY.device == "cpu"
        and not workflow.deployment_settings.deployment_method
        and computing
    ):
        global WARM_PARENT
        WARM_PARENT = warm.start(settings=job.settings(STUDY.device))


onstart:
    before_jobs()


onsuccess:
    tell_the_end(True, log)


onerror:
    tell_the_end(False, log)


if CALLED.is_module:  # of which Snakemake heeds none of these
    CALLED.also_call(
        workflow,
        {
            "onstart": lambda log: before_jobs(),
            "onsuccess": partial(tell_the_end, True),
            "onerror": partial(tell_the_end, False),
        },
    )
