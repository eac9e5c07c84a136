# The study, its plan, and what all rules share.
import os
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, workflow.basedir)  # the package of this checkout, installed or not

from mofe import job, warm
from mofe.config import ConfigError, load_study
from mofe.plan import Plan

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


def names(planned):
    """A wildcard's pattern: only planned names, so that a typo is a missing rule."""
    return "|".join(map(re.escape, planned)) or "(?!)"


def models_by(origin):
    return names(m for m in PLAN.models if getattr(STUDY.models[m], origin) is not None)


def variant(wildcards):
    return PLAN.variants[wildcards.variant]


def caption(figure):
    return Path(workflow.basedir, "docs", "captions", f"{figure}.rst").read_text()


def named(wildcards):
    """What a record says of the variant that it belongs to."""
    return {"moe": variant(wildcards).moe.name, "stages": variant(wildcards).name}


wildcard_constraints:
    dataset=names(PLAN.datasets),
    moe=names(PLAN.moes),
    variant=names(PLAN.variants),
    task=names(STUDY.tasks),
    seed=r"\d+",
    number=names(map(str, PLAN.tables)),


onstart:
    if workflow.local_exec:
        refuse_without_gpu()
        # a fork cannot use a GPU that its parent has looked at, nor another environment's Python
        if (
            STUDY.device == "cpu"
            and not workflow.deployment_settings.deployment_method
        ):
            WARM_PARENT = warm.start()


def refuse_without_gpu():
    """Paper-scale training is not for a CPU: say so before anything starts."""
    training = {"train", "train_expert", "pretrain"}
    waiting = [job for job in workflow.dag.needrun_jobs() if job.rule.name in training]
    if STUDY.device == "cuda" and waiting:
        import torch

        if not torch.cuda.is_available():
            raise WorkflowError(
                f"{len(waiting)} trainings of the study '{STUDY.study}' need a GPU, and this machine "
                "has none. For the miniature on this machine: snakemake --profile profiles/mini. "
                "To see what would run: add -n."
            )
