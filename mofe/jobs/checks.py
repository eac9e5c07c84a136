"""What speaks against a run, before any job starts.

Pure functions of the plan, its costs and the jobs that will run. Each returns sentences for the
user: none where there is nothing to refuse. What they need to know of the machine is passed to
them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from mofe.estimate.cost import Costs, Estimate
from mofe.estimate.schedule import ON_GPUS, TRAININGS, estimate
from mofe.study.checks.training import set_by, too_long
from mofe.study.config import Study
from mofe.study.plan import Plan, Repository
from mofe.study.variants import Stage
from mofe.study.words import NO_LATEX, NO_TRACKER
from mofe.units import listed

SITES = ("slurm_account", "slurm_partition", "constraint")  # what a site's file has to say
MISSING = "missing in "  # what stands in place of one that it does not say; then the file

IsFolder = Callable[[str], bool]


@dataclass(frozen=True)
class Machine:
    """What is to be known of the machine that starts the run; each is asked only if it matters.
    is_folder: of a path. has_gpu: one that torch can use. old_driver: a sentence where NVIDIA's
    driver is too old for this torch. has_program, has_package: by
    their names."""

    is_folder: IsFolder
    has_gpu: Callable[[], bool]
    old_driver: Callable[[], object]
    has_program: Callable[[str], object]
    has_package: Callable[[str], object]


@dataclass(frozen=True)
class Waiting:
    """A job that will run.

    resources: what Snakemake gives it (`gpu` counts the GPUs of all its nodes). local: it runs on
    this machine, also where an executor runs the others. outputs: the files that it makes.
    """

    rule: str
    wildcards: Mapping[str, str] = field(default_factory=dict)
    resources: Mapping[str, Any] = field(default_factory=dict)
    local: bool = False
    outputs: tuple[str, ...] = ()


def before_the_run(costs: Costs, waiting: Sequence[Waiting], machine: Machine) -> list[str]:
    """Every reason not to start these jobs."""
    found = by_check(costs, waiting, machine)
    return [sentence for sentences in found.values() for sentence in sentences]


def by_check(costs: Costs, waiting: Sequence[Waiting], machine: Machine) -> dict[str, list[str]]:
    """What each check of `before_the_run` says. They spare a user the wait; only the submitting
    process makes them, so a job refuses the same itself (tests/test_promises.py shows it)."""
    return {
        "unknown_site": unknown_site(waiting),
        "too_long_rows": too_long_rows(costs, waiting),
        "tied_heads": tied_heads(costs, waiting),
        "misfits": misfits(costs, waiting),
        "incomplete_mirror": incomplete_mirror(costs.plan, waiting, machine.is_folder),
        "no_gpu": no_gpu(costs, waiting, machine.has_gpu, machine.old_driver),
        "too_few_held_out": too_few_held_out(costs, waiting),
        "no_latex": no_latex(waiting, machine.has_program),
        "no_tracker": no_tracker(costs.study, waiting, machine.has_package),
    }


def missing_replications(plan: Plan, exists: Callable[[str], bool]) -> list[str]:
    """The results of other studies that do not have all claims which are compared with theirs."""
    if not plan.elsewhere:
        return ["replications.results: names no other study's folder; give one or more"]
    return [
        f"replications.results: {paths.root} has no verdict on {listed(missing)}; make the target "
        f"`replicated` of the study whose results lie there, or leave the folder out"
        for paths in plan.elsewhere
        if (missing := [n for n in plan.replicated if not exists(paths.claim(n))])
    ]


def missing_folders(plan: Plan, is_folder: IsFolder) -> list[str]:
    """The models of the study whose `path` is no folder."""
    paths = {model: plan.study.models[model].path for model in plan.models}
    how = (
        "give the folder of a checkpoint in safetensors, as seen from where the workflow is called"
    )
    return [
        f"models.{model}.path: there is no folder {path!r}; {how}"
        for model, path in paths.items()
        if path is not None and not is_folder(path)
    ]


def blocked_folders(plan: Plan, is_folder: IsFolder, exists: Callable[[str], bool]) -> list[str]:
    """The folders that the workflow writes to, where they or a folder above them are no folders."""
    found = []
    for key, path in {"results": plan.study.results, "hub": plan.study.hub}.items():
        above = [path, *map(str, PurePath(path).parents)]
        there = next((folder for folder in above if exists(folder)), None)
        if there is not None and not is_folder(there):
            found.append(
                f"{key}: {path!r} cannot be made, because {there!r} is a file; name another"
            )
    return found


def missing_image(image: str, exists: Callable[[str], bool]) -> list[str]:
    """The image that jobs are to run in, where it is a file that is not there."""
    if "://" in image or exists(image):
        return []
    how = "build it, or set this variable of the environment to it (docs/installing.md)"
    return [f"MOFE_IMAGE: there is no image {image!r}; {how}"]


def unknown_site(waiting: Iterable[Waiting]) -> list[str]:
    """What the site's file (profiles/slurm/site.py) leaves out, where a job is to be submitted."""
    missing = {
        (key.removeprefix("slurm_"), str(job.resources[key]).removeprefix(MISSING))
        for job in waiting
        for key in SITES
        if not job.local and str(job.resources.get(key)).startswith(MISSING)
    }
    if not missing:
        return []
    keys = ", ".join(sorted({key for key, _ in missing}))
    file = min(file for _, file in missing)
    how = "write there what your cluster calls them, as docs/slurm.md shows"
    return [f"{file}: nothing is submitted without {keys}; {how}"]


def misfits(costs: Costs, waiting: Iterable[Waiting]) -> list[str]:
    """The trainings and evaluations that the GPUs they get cannot hold, and what could."""
    found = {
        costs.misfit(
            job.rule,
            _name(job),
            _estimate(costs, job),
            job.resources.get("gpu", 1),
        )
        for job in waiting
        if job.rule in ON_GPUS
    }
    return sorted(found - {None})


def too_long_rows(costs: Costs, waiting: Iterable[Waiting]) -> list[str]:
    """The trainings whose longest rows their model has no positions for, by its config.json. The
    sizes of a pretrained model are in the configuration, where they are checked."""
    found = {}
    for job in waiting:
        if job.rule not in TRAININGS - {"pretrain"}:
            continue
        shape, _, training, _ = _estimate(costs, job).request
        if training["max_length"] > shape.max_position_embeddings:
            key = set_by(costs.study, _stage(costs.plan, job), "max_length")
            lengths = training["max_length"], shape.max_position_embeddings
            found[too_long(key, *lengths, _base(costs, job))] = None
    return list(found)


def tied_heads(costs: Costs, waiting: Iterable[Waiting]) -> list[str]:
    """The trainings whose method cannot train a model that ties its head, by its config.json."""
    found = {}
    for job in waiting:
        if job.rule in TRAININGS:
            shape, method, _, _ = _estimate(costs, job).request
            named = f"model '{_base(costs, job)}'"
            why = method.misfit(shape.num_local_experts, named, shape.tie_word_embeddings)
            if why:
                found[f"{job.rule} of {_name(job)}: its recipe {why}"] = None
    return list(found)


def _name(job: Waiting) -> str:
    return job.wildcards.get("variant") or job.wildcards["model"]


def _stage(plan: Plan, job: Waiting) -> Stage:
    """What a job trains on, and how."""
    if variant := job.wildcards.get("variant"):
        return plan.variants[variant].stages[-1]
    ((mix, recipe),) = plan.study.models[job.wildcards["model"]].train.items()
    return Stage(mix, recipe)


def _base(costs: Costs, job: Waiting) -> str:
    """The model from outside the study that a training's positions come from."""
    trained = job.wildcards.get("variant")
    model = costs.plan.variants[trained].origin.base if trained else job.wildcards["model"]
    return costs.study.lineage(model)[0]


def incomplete_mirror(plan: Plan, waiting: Iterable[Waiting], is_folder: IsFolder) -> list[str]:
    """Every repository that a waiting job reads and the user's mirror lacks."""
    if not plan.study.mirror:
        return []
    read = {r.repo: r for job in waiting for r in repositories(plan, job)}
    missing = [
        f"{repo} (revision {r.revision})"
        for repo, r in read.items()
        if not is_folder(f"{plan.paths.model_mirror}/{repo}")
    ]
    if not missing:
        return []
    how = "or set 'mirror: null' and fetch them: snakemake --profile ... prefetch"
    return [f"mirror: {plan.study.mirror!r} lacks {', '.join(missing)}; add them there, {how}"]


def no_gpu(
    costs: Costs,
    waiting: Iterable[Waiting],
    has_gpu: Callable[[], bool],
    old_driver: Callable[[], object],
) -> list[str]:
    """Trainings and evaluations of a study for GPUs that would run on this machine, where torch
    can use none."""
    study = costs.study
    local = [job for job in waiting if job.local and job.rule in ON_GPUS]
    needing = [job for job in local if job.resources.get("gpu", 1)]
    if study.device != "cuda" or not needing or has_gpu():
        return []
    if told := old_driver():
        return [str(told)]
    hours = sum(_estimate(costs, job).gpu_hours for job in needing)
    told = (
        f"{len(needing)} trainings and evaluations of the study '{study.study}' need a GPU, and "
        f"this machine has none that torch can use: they take about {hours:.1f} GPU-hours "
        f"({study.hardware.gpu}). On a cluster: snakemake --profile profiles/slurm. The miniature "
        "on this machine: snakemake --profile profiles/mini. To see what would run: add -n."
    )
    return [told]


def too_few_held_out(costs: Costs, waiting: Sequence[Waiting]) -> list[str]:
    """The tasks that are to ask more rows than training leaves of a training set, where that set
    was prepared earlier and its rows have been counted."""
    study, found = costs.study, set()
    prepared_now = {job.wildcards["dataset"] for job in waiting if job.rule == "prepare_data"}
    for name in {job.wildcards["task"] for job in waiting if job.rule == "questions"}:
        task = study.tasks[name]
        if task.held_out is None or task.held_out in prepared_now:
            continue
        counts = costs.counts(task.held_out)
        if counts and task.questions > counts.usable - counts.sampled:
            found.add(
                f"tasks.{name}.questions: {task.questions} are to be asked, but training on "
                f"{counts.sampled} of the {counts.usable} usable rows of data.{task.held_out} "
                f"leaves {counts.usable - counts.sampled}; lower one of them"
            )
    return sorted(found)


def no_latex(waiting: Iterable[Waiting], has_program: Callable[[str], object]) -> list[str]:
    """The document of all tables, where pdflatex is missing."""
    if not any(job.rule == "pdf" for job in waiting) or has_program("pdflatex"):
        return []
    return [NO_LATEX]


def no_tracker(
    study: Study, waiting: Iterable[Waiting], has_package: Callable[[str], object]
) -> list[str]:
    """What trainings are to be watched with, where it is not installed."""
    if not study.track or not any(job.rule in TRAININGS for job in waiting):
        return []
    return [] if has_package(study.track) else [NO_TRACKER.format(by=study.track)]


def downloads(plan: Plan, waiting: Iterable[Waiting]) -> list[Repository]:
    """The repositories that will be fetched from the hub."""
    jobs = [job for job in waiting if job.rule == "fetch_repository"]
    return [plan.repositories[job.wildcards["repo"]] for job in jobs]


def repositories(plan: Plan, job: Waiting) -> list[Repository]:
    """The repositories of the hub, or of its mirror, that a job reads."""
    match job.rule:
        case "prepare_data":
            return plan.data_repositories(job.wildcards["dataset"])
        case "questions":
            return plan.task_repositories(job.wildcards["task"])
        case "fetch_model":
            return plan.model_repositories(job.wildcards["model"])
        case _:
            return []


def _estimate(costs: Costs, job: Waiting) -> Estimate:
    return estimate(costs, job.rule, job.wildcards)
