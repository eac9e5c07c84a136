# The study, its plan, and what all rules share.
import json
import os
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, workflow.basedir)  # the package of this checkout, installed or not

from mofe.jobs import job, warm
from mofe.study.values import ConfigError
from mofe.study.load import load_study
from mofe.estimate.cost import LIGHT, Costs
from mofe.report import figures
from mofe.report.sources import RECORDS
from mofe.study.plan import Plan
from mofe.study.tables import bare, files

# Snakemake lists the command line's files first; what is laid over what is the other way round.
CONFIG_FILES = dict.fromkeys(
    os.path.relpath(f) for f in ["config.yaml", *workflow.configfiles]
)

try:
    STUDY = load_study(config, CONFIG_FILES)
    PLAN = Plan(STUDY)
except ConfigError as error:
    raise WorkflowError(str(error))

for model in PLAN.models:
    path = STUDY.models[model].path
    if path is not None and not os.path.isdir(path):
        raise WorkflowError(
            f"models.{model}.path: there is no folder {path!r}; give the folder of a checkpoint in "
            "safetensors, as seen from where the workflow is called"
        )

job.prepare_environment(workflow.basedir, STUDY.device)
ROOT = PLAN.root
FIGURES = figures.of(PLAN)
COSTS = Costs(PLAN)


def names(planned):
    """A wildcard's pattern: only planned names, so that a typo is a missing rule."""
    return "|".join(map(re.escape, planned)) or "(?!)"


def models_by(origin):
    return names(m for m in PLAN.models if getattr(STUDY.models[m], origin) is not None)


def variant(wildcards):
    return PLAN.variants[wildcards.variant]


def table_key(wildcards):
    """A table's key, as the configuration has it: a number or a word."""
    return next(key for key in PLAN.tables if str(key) == wildcards.number)


def named(wildcards):
    """What a record says of the variant that it belongs to."""
    return {"moe": variant(wildcards).origin.name, "stages": variant(wildcards).name}


def to_push(wildcards):
    """The exported model that is to be pushed, where the study says whither."""
    try:
        PLAN.params.push_repo(variant(wildcards), wildcards.seed)
    except ConfigError as error:  # before anything is trained for it
        raise WorkflowError(str(error))
    return PLAN.paths.export_dir(variant(wildcards), wildcards.seed)


def needs(cost):
    """What a rule's job needs; `cost` is its estimate, or a function of the wildcards to it."""
    return (
        (lambda wildcards: cost(wildcards).needs)
        if callable(cost)
        else lambda _: cost.needs
    )


def cpus(cost):
    """A rule's `threads`."""
    of = needs(cost)
    return lambda wildcards: of(wildcards).cpus


def asks(cost):
    """A rule's `resources`. A job that ran out of memory or time is tried again with more."""
    of = needs(cost)
    return {
        # of the whole job, as Slurm counts them
        "gpu": lambda wildcards: of(wildcards).gpus * of(wildcards).nodes,
        "nodes": lambda wildcards: of(wildcards).nodes,
        "mem_mb": lambda wildcards, attempt: of(wildcards).mem_mb * attempt,
        "runtime": lambda wildcards, attempt: of(wildcards).runtime * attempt,
        "sharding": lambda wildcards: of(wildcards).sharding,
    }


def spread(cost, trainings):
    """More of a rule's `resources` where one of its trainings takes several nodes: its processes are
    then started there by the job itself. The plugin would start them on the first node alone.

    cost: the function from one of the trainings to its estimate.
    """
    try:
        several = any(cost(it).needs.nodes > 1 for it in trainings)
    except (
        ConfigError
    ):  # sizes that are not known before the download: the job's resources tell
        several = False
    return {"mpi": "srun", "tasks_per_node": 2} if several else {}


wildcard_constraints:
    dataset=names(PLAN.datasets),
    moe=names(PLAN.moes),
    variant=names(PLAN.variants),
    task=names(STUDY.tasks),
    seed=r"\d+",
    number=names(map(str, PLAN.tables)),


onstart:
    refuse_an_unfilled_profile()
    refuse_what_cannot_fit()
    refuse_an_incomplete_mirror()
    if workflow.local_exec:
        refuse_without_gpu()
    state_downloads()
    if workflow.local_exec:
        # a fork cannot use a GPU that its parent has looked at, nor another environment's Python
        if (
            STUDY.device == "cpu"
            and not workflow.deployment_settings.deployment_method
            and len(waiting()) > len(waiting("prefetch", "fetch_repository"))
        ):
            WARM_PARENT = warm.start()


TRAINING = {"train", "train_expert", "pretrain"}


def waiting(*rules):
    """The jobs that will run, of these rules or of all."""
    return [j for j in workflow.dag.needrun_jobs() if j.rule.name in rules or not rules]


def estimate(job):
    """The estimate of a training or an evaluation."""
    if job.rule.name in {"train_expert", "pretrain"}:
        return COSTS.train_expert(job.wildcards.model)
    if job.rule.name == "train":
        return COSTS.train(variant(job.wildcards))
    return COSTS.evaluate(variant(job.wildcards), job.wildcards.task)


def refuse_an_unfilled_profile():
    """Name the lines of profiles/slurm that are the user's to fill in."""
    asked = ("slurm_account", "slurm_partition", "constraint")
    waiting_jobs = [] if workflow.local_exec else waiting()
    unfilled = {
        k.removeprefix("slurm_")
        for j in waiting_jobs
        for k in asked
        if not workflow.is_local(j.rule) and j.resources.get(k) == "FILL_IN"
    }
    if unfilled:
        raise WorkflowError(
            f"profiles/slurm/config.yaml: {', '.join(sorted(unfilled))} is still FILL_IN; fill in what "
            "your cluster calls them (docs/slurm.md)"
        )


def refuse_what_cannot_fit():
    """Say what no GPU that it gets can hold, before anything starts."""
    problems = {
        COSTS.misfit(
            j.rule.name,
            getattr(j.wildcards, "variant", None) or j.wildcards.model,
            estimate(j),
            j.resources.get("gpu", 1),
        )
        for j in waiting(*TRAINING, "evaluate")
    } - {None}
    if problems:
        raise WorkflowError("\n".join(sorted(problems)))


def refuse_an_incomplete_mirror():
    """Name every repository that a waiting job reads and the user's mirror lacks."""
    read = [
        r
        for j in waiting("prepare_data")
        for r in PLAN.data_repositories(j.wildcards.dataset)
    ]
    read += [
        r
        for j in waiting("questions")
        for r in PLAN.task_repositories(j.wildcards.task)
    ]
    read += [
        r
        for j in waiting("fetch_model")
        for r in PLAN.model_repositories(j.wildcards.model)
    ]
    missing = {
        r.repo: r for r in read if not Path(PLAN.paths.model_mirror, r.repo).is_dir()
    }
    if STUDY.mirror and missing:
        names = ", ".join(f"{r.repo} (revision {r.revision})" for r in missing.values())
        raise WorkflowError(
            f"mirror: {STUDY.mirror!r} lacks {names}; add them there, or set 'mirror: null' and "
            "fetch them: snakemake --profile ... prefetch"
        )


def state_downloads():
    """Tell what the waiting jobs will download before the first of them starts."""
    repositories = [
        asdict(PLAN.repositories[j.wildcards.repo]) for j in waiting("fetch_repository")
    ]
    if repositories:
        # in a process of its own, which may reach the hub
        stated = subprocess.run(
            [sys.executable, "-m", "mofe.data.hub", STUDY.hub],
            input=json.dumps(repositories),
            text=True,
            env=job.online(),
        )
        if stated.returncode:
            raise WorkflowError(
                "the hub did not tell what there is to download; see above"
            )


def refuse_without_gpu():
    """Paper-scale training is not for a CPU: say so before anything starts."""
    needed = waiting(*TRAINING)
    if STUDY.device == "cuda" and needed:
        import torch

        if not torch.cuda.is_available():
            raise WorkflowError(
                f"{len(needed)} trainings of the study '{STUDY.study}' need a GPU, and this machine "
                f"has none: they take about {sum(estimate(j).gpu_hours for j in needed):.1f} "
                f"GPU-hours ({STUDY.hardware.gpu}). On a cluster: snakemake --profile profiles/slurm. "
                "The miniature on this machine: snakemake --profile profiles/mini. "
                "To see what would run: add -n."
            )
