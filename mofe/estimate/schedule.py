"""The jobs of a study as a graph with estimates: which jobs wait for which, the longest chain, and
the time of the whole study on a number of GPUs."""

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from mofe.estimate.cost import LIGHT, Costs, Estimate, Needs
from mofe.study.graph import ALL, Graph, Node
from mofe.study.plan import Plan

TRAININGS = frozenset({"train", "train_expert", "pretrain"})  # the rules that train
TABLES = frozenset({"table", "table_on_demand"})
ON_GPUS = TRAININGS | {"evaluate", "tokens"}  # those whose jobs take GPUs
FREE = Estimate(Needs(cpus=0, mem_mb=0, runtime=0), hours=0)


@dataclass(frozen=True)
class Job:
    """A job: its rule, its printed label, the jobs that it waits for, its estimate, and the tables
    that need it."""

    rule: str
    label: str
    after: tuple[str, ...]
    estimate: Estimate
    tables: tuple[int | str, ...] = ()

    @property
    def gpus(self) -> int:
        return self.estimate.needs.gpus * self.estimate.needs.nodes

    @property
    def submitted_as(self) -> str:
        """What is the same for jobs that Slurm sees as one: all tasks of a model with one seed
        (profiles/slurm, `groups`)."""
        shown = self.label.rpartition("/")[0] if self.rule == "evaluate" else self.label
        return f"{self.rule} {shown}"


def estimate(costs: Costs, rule: str, wildcards: Mapping[str, str]) -> Estimate:
    """What a rule's job takes. Rules that compute next to nothing are LIGHT. So are downloads,
    whose sizes the hub tells before the first job starts. `all` does nothing and is FREE."""
    match rule:
        case "prepare_data":
            return costs.data(wildcards["dataset"])
        case "fetch_model":
            return costs.fetch(wildcards["model"])
        case "pretrain" | "train_expert":
            return costs.train_expert(wildcards["model"])
        case "reinitialise":
            return costs.reinitialise(wildcards["model"])
        case "merge" | "merge_per_seed":
            return costs.merge(wildcards["moe"])
        case "train":
            return costs.train(costs.plan.variants[wildcards["variant"]])
        case "questions":
            return costs.questions(wildcards["task"])
        case "evaluate" | "tokens":  # a few of the questions take no more
            return costs.evaluate(costs.plan.variants[wildcards["variant"]], wildcards["task"])
        case "export":
            return costs.export(costs.plan.variants[wildcards["variant"]])
        case "all":
            return FREE
        case _:
            return LIGHT


def jobs(costs: Costs, figures: Mapping[str, Sequence[str]], *targets: str) -> dict[str, Job]:
    """Every job that makes these addresses, by default those of `all`, by the first file or folder
    that it makes, inputs first.

    figures: as in Graph.
    """
    needed = Graph(costs.plan, figures).needed(*(targets or (ALL,)))
    maker = {output: node.outputs[0] for node in needed for output in node.outputs}
    made = {
        node.outputs[0]: _job(
            costs, node, dict.fromkeys(maker[name] for name in node.inputs if name in maker)
        )
        for node in needed
    }
    return _marked(made, list(costs.plan.tables))


def _job(costs: Costs, node: Node, after: Iterable[str] = ()) -> Job:
    label = node.label or costs.study.study
    return Job(node.rule, label, tuple(after), estimate(costs, node.rule, node.wildcards))


def of_a_further_seed(costs: Costs) -> list[tuple[Node, Job]]:
    """The jobs that one more seed adds to the study. Tables, figures and the report are made again
    too; they are not among them."""
    seeds, plan = [*costs.study.seeds, max(costs.study.seeds) + 1], costs.plan.of_all
    more = Plan(costs.study.model_copy(update={"seeds": seeds}))
    there = {output for node in Graph(plan, {}).jobs for output in node.outputs}
    added = (node for node in Graph(more, {}).jobs if not there.issuperset(node.outputs))
    return [(node, _job(costs, node)) for node in added]


def _marked(made: dict[str, Job], tables: list[int | str]) -> dict[str, Job]:
    """The jobs with `tables` filled in: the tables that need them, in the given order."""
    needed: dict[str, set[str]] = {name: set() for name in made}
    for name, job in reversed(made.items()):
        if job.rule in TABLES:
            needed[name].add(job.label)
        for before in job.after:
            needed[before] |= needed[name]
    return {
        name: replace(job, tables=tuple(key for key in tables if str(key) in needed[name]))
        for name, job in made.items()
    }


def sharing(made: Iterable[Job]) -> list[Job]:
    """The jobs, with the start of those that Slurm sees as one divided among them."""
    made = list(made)
    together = Counter(job.submitted_as for job in made)

    def shared(job: Job) -> Job:
        starting = job.estimate.starting / together[job.submitted_as]
        hours = job.estimate.hours - job.estimate.starting + starting
        return replace(job, estimate=replace(job.estimate, hours=hours, starting=starting))

    return [shared(job) for job in made]


def submissions(made: Mapping[str, Job]) -> dict[str, Job]:
    """The jobs as Slurm sees them: those that it sees as one, with the hours of all (of `sharing`
    ones), under the name of the last."""
    members: dict[str, list[str]] = {}
    for name, job in made.items():
        members.setdefault(job.submitted_as, []).append(name)
    last = {name: names[-1] for names in members.values() for name in names}

    def one(names: Sequence[str]) -> Job:
        parts = [made[name] for name in names]
        after = dict.fromkeys(last[before] for part in parts for before in part.after)
        hours = sum(part.estimate.hours for part in parts)
        label = parts[-1].label if len(parts) == 1 else parts[-1].label.rpartition("/")[0]
        estimate = replace(parts[-1].estimate, hours=hours)
        return replace(parts[-1], label=label, after=tuple(after), estimate=estimate)

    return {n: one(members[job.submitted_as]) for n, job in made.items() if last[n] == n}


def critical_path(made: Mapping[str, Job]) -> list[str]:
    """The longest chain of jobs that wait for each other: no number of GPUs is faster."""
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
    """Hours until every job is done on `gpus` GPUs, by list scheduling: whenever GPUs are free, the
    job with the longest chain of jobs after it starts first. Jobs that need no GPU start at once.
    None if a job needs more GPUs than there are."""
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
