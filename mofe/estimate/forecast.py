"""The plan as data: what a study will take, before a GPU-hour is spent (rule `plan`).

`forecast` collects the estimates of mofe/estimate/cost.py for all jobs of the graph.
mofe/estimate/page.py prints them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from mofe import records
from mofe.estimate import memory
from mofe.estimate.cost import Costs, Estimate
from mofe.estimate.schedule import (
    TRAININGS,
    Job,
    critical_path,
    gpu_hours,
    jobs,
    makespan,
    of_a_further_seed,
    sharing,
    submissions,
)
from mofe.study.graph import Graph
from mofe.study.hardware import GPUS
from mofe.study.shapes import Shape
from mofe.study.variants import Variant

MACHINES = (1, 3, 8, 24)  # the numbers of GPUs whose makespans the plan shows

# MoFE on larger models is the paper's first open question; the plan shows what it would take.
OTHER_BASES = {
    "Mistral-7B": Shape(4096, 14336, 32, 32, 8, 32000, max_position_embeddings=32768),
    "Llama-2-7B": Shape(4096, 11008, 32, 32, 32, 32000, max_position_embeddings=4096),
    "Llama-2-70B": Shape(8192, 28672, 80, 64, 8, 32000, max_position_embeddings=4096),
}


# ----------------------------------------------------------------------------------- gathering


def forecast(
    costs: Costs, figures: Mapping[str, Sequence[str]], counted_models: int = 0
) -> records.PlanRecord:
    """Everything that the plan shows: hours, bytes, counts. figures: as in Graph. counted_models:
    kinds of trained models whose parameters were counted on the real modules."""
    study, plan, alone = costs.study, costs.plan.of_all, jobs(costs, figures)
    made = _sharing(alone)
    graph = Graph(costs.plan, figures)
    seen = _as_seen(costs, made)
    path = critical_path(seen)
    kept = sum(job.estimate.disk for job in made.values())
    scratch = max((job.estimate.scratch for job in made.values()), default=0)
    return records.PlanRecord(
        study=study.study,
        device=study.device,
        seeds=tuple(study.seeds),
        hardware=records.PlanHardware(
            **study.hardware.model_dump(exclude={"exclusive", "starting"}),
            starting=0 if costs.on_cpu else study.hardware.starting,
        ),
        jobs=tuple(_job(name, job, mixed=not costs.on_cpu) for name, job in made.items()),
        totals=_totals(made.values()),
        disk=records.PlanDisk(
            kept=kept,
            by_rule=_by_rule(made.values()),
            largest_checkpoint=scratch,
            peak_with_8=kept + sum(sorted(j.estimate.scratch for j in made.values())[-8:]),
        ),
        tables={
            str(number): _needed(graph, alone, plan.paths.table(number, "tex"))
            for number in plan.tables
        },
        claims={name: _needed(graph, alone, plan.paths.claim(name)) for name in plan.claims},
        on_demand=_on_demand(costs, figures),
        further_seed=_further_seed(costs),
        critical_path=tuple(
            records.PlanStep(rule=seen[n].rule, label=seen[n].label, hours=seen[n].estimate.hours)
            for n in path
        ),
        machines=_machines(costs, figures),
        other_bases={} if costs.on_cpu else _other_bases(costs),
        measured=records.PlanMeasured(
            epoch_tokens=dict(costs.measured.epoch_tokens), speed=dict(costs.measured.speed)
        ),
        guesses=costs.guesses(),
        left_out=costs.left_out(),
        counted_models=counted_models,
    )


def _sharing(made: Mapping[str, Job]) -> dict[str, Job]:
    return dict(zip(made, sharing(made.values()), strict=True))


def _as_seen(costs: Costs, made: Mapping[str, Job]) -> Mapping[str, Job]:
    """The jobs as Slurm sees them; a CPU study runs on one machine."""
    return made if costs.on_cpu else submissions(made)


def _job(name: str, job: Job, mixed: bool) -> records.PlanJob:
    estimate = job.estimate
    return records.PlanJob(
        rule=job.rule,
        label=job.label,
        makes=name,
        after=job.after,
        tables=job.tables,
        needs=records.PlanNeeds(**asdict(estimate.needs)),
        hours=estimate.hours,
        gpu_hours=estimate.gpu_hours,
        parameters=estimate.parameters,
        trainable=estimate.trainable,
        tokens=estimate.tokens,
        flops=estimate.flops,
        micro_batch=estimate.micro_batch,
        memory=_memory(estimate, mixed),
        disk=estimate.disk,
        scratch=estimate.scratch,
        fits=estimate.fits,
        measured=estimate.measured,
    )


def _memory(estimate: Estimate, mixed: bool) -> records.PlanMemory:
    """A job's memory: its parts, and of a training the terms of those parts that are sums. mixed:
    whether products are computed in bfloat16, as on GPUs."""
    parts, terms = estimate.memory, {}
    if estimate.request:
        shape, method, training, labelled = estimate.request
        fixed = {**training, "micro_batch": estimate.micro_batch}
        terms = memory.terms(shape, method, fixed, labelled, mixed)
    return records.PlanMemory(
        bytes=memory.total(parts),
        parts=parts,
        terms={name: found for name, found in terms.items() if name in parts},
    )


def _needed(graph: Graph, made: Mapping[str, Job], *targets: str) -> records.PlanTotals:
    """Sums over the jobs that make these files from nothing. made: every job, as `jobs` has
    them."""
    return _totals(sharing(made[node.outputs[0]] for node in graph.needed(*targets)))


def _on_demand(
    costs: Costs, figures: Mapping[str, Sequence[str]]
) -> dict[str, records.PlanOnDemand]:
    """What each table takes that is made on demand: here, on each kind of GPU, and with larger
    bases. A study that goes beyond has none left."""
    if not (numbers := costs.plan.tables.keys() - costs.plan.of_all.tables.keys()):
        return {}
    graph, kinds, bases = Graph(costs.plan, figures), {}, {}
    if not costs.on_cpu:
        kinds = {kind: Costs(costs.plan, gpu=kind) for kind in GPUS}
        bases = {
            base: Costs(costs.plan, bases=dict.fromkeys(costs.plan.models, shape))
            for base, shape in OTHER_BASES.items()
        }

    def totals(costs: Costs, target: str) -> records.PlanTotals:
        return _needed(graph, jobs(costs, figures, target), target)

    def one(target: str) -> records.PlanOnDemand:
        return records.PlanOnDemand(
            totals=totals(costs, target),
            gpu_hours={kind: totals(other, target).gpu_hours for kind, other in kinds.items()},
            other_bases={base: totals(other, target).gpu_hours for base, other in bases.items()},
        )

    tables = {number: costs.plan.paths.table(number, "tex") for number in costs.plan.tables}
    return {str(n): one(target) for n, target in tables.items() if n in numbers}


def _further_seed(costs: Costs) -> records.PlanSeed:
    """What the jobs take that one more seed adds, by what they are."""
    nodes, alone = zip(*of_a_further_seed(costs), strict=True)
    added = list(zip(nodes, sharing(alone), strict=True))
    tasks = dict.fromkeys(node.wildcards["task"] for node, _ in added if node.rule == "evaluate")

    def share(rule: str, **wildcards: str) -> records.PlanShare:
        asked = wildcards.items()
        part = [job for node, job in added if node.rule == rule and asked <= node.wildcards.items()]
        return records.PlanShare(jobs=len(part), gpu_hours=gpu_hours(part))

    return records.PlanSeed(
        totals=_totals(job for _, job in added),
        trainings=share("train"),
        experts=share("train_expert"),
        evaluations={task: share("evaluate", task=task) for task in tasks},
    )


def _totals(made: Iterable[Job]) -> records.PlanTotals:
    made = list(made)
    trainings = [job for job in made if job.rule in TRAININGS]
    evaluations = [job for job in made if job.rule == "evaluate"]
    return records.PlanTotals(
        jobs=len(made),
        trainings=len(trainings),
        trainings_gpu_hours=gpu_hours(trainings),
        evaluations=len(evaluations),
        evaluations_gpu_hours=gpu_hours(evaluations),
        gpu_submissions=len({job.submitted_as for job in made if job.gpus}),
        gpu_hours=gpu_hours(made),
        flops=sum(job.estimate.flops for job in made),
        tokens=sum(job.estimate.tokens for job in made if job.rule != "evaluate"),
        disk=sum(job.estimate.disk for job in made),
    )


def _by_rule(made: Iterable[Job]) -> dict[str, float]:
    disk: dict[str, float] = {}
    for job in made:
        disk[job.rule] = disk.get(job.rule, 0) + job.estimate.disk
    return disk


def _machines(costs: Costs, figures: Mapping[str, Sequence[str]]) -> dict[str, records.PlanMachine]:
    """Total hours and makespans by kind of GPU; in a CPU study, of this machine."""
    kinds = [costs.study.hardware.gpu] if costs.on_cpu else list(GPUS)
    machines = {}
    for kind in kinds:
        made = _as_seen(costs, _sharing(jobs(Costs(costs.plan, gpu=kind), figures)))
        machines[kind] = records.PlanMachine(
            gpu_hours=gpu_hours(made.values()),
            most_gpus=max(job.gpus for job in made.values()),
            does_not_fit=[j.label for j in made.values() if not j.estimate.fits],
            makespan={n: makespan(made, n) for n in MACHINES},
        )
    return machines


def _other_bases(costs: Costs) -> dict[str, tuple[records.PlanOther, ...]]:
    """The trainings of Tables 1 and 2 on larger models, each once, on the study's GPUs."""
    variants, found = [v for v in costs.plan.shown_in(1, 2) if v.stages], {}
    for base, shape in OTHER_BASES.items():
        other = Costs(costs.plan, bases=dict.fromkeys(costs.plan.models, shape))
        trainings = (_other(variant, other.train(variant)) for variant in variants)
        found[base] = tuple(sorted(trainings, key=lambda training: training.experts))
    return found


def _other(variant: Variant, estimate: Estimate) -> records.PlanOther:
    return records.PlanOther(
        label=variant.key,
        experts=len(variant.origin.experts),
        recipe=variant.stages[-1].recipe,
        micro_batch=estimate.micro_batch,
        parameters=estimate.parameters,
        trainable=estimate.trainable,
        memory=memory.total(estimate.memory),
        needs=records.PlanNeeds(**asdict(estimate.needs)),
        gpu_hours=estimate.gpu_hours,
        fits=estimate.fits,
        disk=estimate.disk,
    )
