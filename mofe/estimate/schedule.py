"""The jobs of a study as a graph with their estimates: what waits for what, what takes longest, and
how long all of it takes on so many GPUs."""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mofe.estimate.cost import LIGHT, Costs, Estimate


@dataclass(frozen=True)
class Job:
    """A job: its rule, a label for print, the jobs that it waits for, and its estimate."""

    rule: str
    label: str
    after: tuple[str, ...]
    estimate: Estimate
    tables: tuple[int | str, ...] = ()

    @property
    def gpus(self) -> int:
        return self.estimate.needs.gpus * self.estimate.needs.nodes


def jobs(costs: Costs) -> dict[str, Job]:
    """Every distinct job of the study, by the file or folder that it makes, inputs first."""
    plan, study = costs.plan, costs.study
    made: dict[str, Job] = {}
    world = ()
    if study.world:
        made[plan.paths.world] = Job("world", study.study, (), LIGHT)
        world = (plan.paths.world,)
    for dataset in plan.datasets:
        made[plan.paths.data_file(dataset)] = Job(
            "prepare_data", dataset, world, costs.data(dataset)
        )
    for model in plan.models:
        spec, name = study.models[model], plan.paths.model_dir(model)
        if spec.hub:
            made[name] = Job("fetch_model", model, (), costs.fetch(model))
        elif spec.scratch:
            made[name] = Job("pretrain", model, world, costs.train_expert(model))
        elif spec.from_:
            after = (plan.origin(model), *plan.expert_data(model))
            made[name] = Job("train_expert", model, after, costs.train_expert(model))
    for moe in plan.moes:
        after = tuple(plan.merge_input(moe))
        made[plan.paths.moe_dir(moe)] = Job("merge", moe, after, costs.merge(moe))
    for variant in plan.trained.values():
        estimate, data = costs.train(variant), plan.stage_data(variant.stages[-1].mix)
        for seed in plan.seeds(variant):
            parents = [plan.paths.train_json(v, seed) for v in variant.parents]
            after = (plan.paths.origin_dir(variant), *data, *parents)
            label = f"{variant.key}/s{seed}"
            made[plan.paths.train_json(variant, seed)] = Job("train", label, after, estimate)
    for key, tasks in plan.tasks.items():
        variant = plan.variants[key]
        for task in tasks:
            asked = plan.paths.questions(variant, task)
            after = (*world, plan.paths.model_dir(Path(asked).parent.name))
            made.setdefault(asked, Job("questions", task, after, costs.questions(task)))
            estimate = costs.evaluate(variant, task)
            for seed in plan.seeds(variant):
                own = [plan.paths.train_json(variant, seed)] if variant.stages else []
                after = (
                    plan.paths.questions(variant, task),
                    plan.paths.origin_dir(variant),
                    *own,
                )
                made[plan.paths.eval_json(variant, seed, task)] = Job(
                    "evaluate", f"{key}/s{seed}/{task}", after, estimate
                )
    for number in plan.tables:
        after = tuple(plan.table_input(number))
        made[f"{plan.root}/table{number}"] = Job("table", str(number), after, LIGHT)
    made = {n: _waiting_for(job, made) for n, job in made.items()}
    return _marked(made, list(plan.tables))


def _waiting_for(job: Job, made: Mapping[str, Job]) -> Job:
    """The job without inputs that nothing makes (a model's own folder)."""
    after = tuple(name for name in dict.fromkeys(job.after) if name in made)
    return replace(job, after=after)


def _marked(made: dict[str, Job], tables: list[int | str]) -> dict[str, Job]:
    """The jobs with the tables that need them, in the order of `tables`."""
    needed: dict[str, set[str]] = {name: set() for name in made}
    for name, job in reversed(made.items()):
        if job.rule == "table":
            needed[name].add(job.label)
        for before in job.after:
            needed[before] |= needed[name]
    return {
        name: replace(job, tables=tuple(key for key in tables if str(key) in needed[name]))
        for name, job in made.items()
    }


def critical_path(made: Mapping[str, Job]) -> list[str]:
    """The jobs that take longest one after the other: no number of GPUs is faster."""
    length, before = {}, {}
    for name, job in made.items():
        before[name] = max(job.after, key=length.__getitem__, default=None)
        length[name] = job.estimate.hours + (length[before[name]] if before[name] else 0)
    path, name = [], max(length, key=length.__getitem__, default=None)
    while name:
        path.append(name)
        name = before[name]
    return path[::-1]


def makespan(made: Mapping[str, Job], gpus: int) -> float | None:
    """Hours until every job is done on so many GPUs, by list scheduling: whenever GPUs are free, of
    the jobs that could start that which most waits for goes first. Jobs without a GPU never wait for
    a machine. None where a job needs more GPUs than there are."""
    if any(job.gpus > gpus for job in made.values()):
        return None
    waiting_for = {name: len(job.after) for name, job in made.items()}
    then: dict[str, list[str]] = {name: [] for name in made}
    for name, job in made.items():
        for before in job.after:
            then[before].append(name)
    ahead: dict[str, float] = {}
    for name, job in reversed(made.items()):
        ahead[name] = job.estimate.hours + max((ahead[n] for n in then[name]), default=0)
    ready = [name for name, count in waiting_for.items() if count == 0]
    running: list[tuple[float, str]] = []
    now, free = 0.0, gpus
    while ready or running:
        for name in sorted(ready, key=lambda n: -ahead[n]):
            if made[name].gpus <= free:
                free -= made[name].gpus
                ready.remove(name)
                heapq.heappush(running, (now + made[name].estimate.hours, name))
        now, done = heapq.heappop(running)
        free += made[done].gpus
        for name in then[done]:
            waiting_for[name] -= 1
            if waiting_for[name] == 0:
                ready.append(name)
    return now


def gpu_hours(made: Iterable[Job]) -> float:
    return sum(job.estimate.gpu_hours for job in made)
