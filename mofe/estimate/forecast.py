"""The plan as data: what a study will take, before a GPU-hour is spent (rule `plan`).

`forecast` gathers the estimates of mofe/estimate/cost.py over the graph of jobs.
mofe/estimate/page.py puts it into words.
"""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from mofe.estimate import memory
from mofe.estimate.cost import Costs, Estimate
from mofe.estimate.schedule import Job, critical_path, gpu_hours, jobs, makespan
from mofe.study.hardware import GPUS
from mofe.study.shapes import Shape

MACHINES = (1, 3, 8, 24)  # numbers of GPUs that makespans are given for

# What the paper's first open question, MoFE on larger models, would take.
OTHER_BASES = {
    "Mistral-7B": Shape(4096, 14336, 32, 32, 8, 32000, max_position_embeddings=32768),
    "Llama-2-7B": Shape(4096, 11008, 32, 32, 32, 32000, max_position_embeddings=4096),
    "Llama-2-70B": Shape(8192, 28672, 80, 64, 8, 32000, max_position_embeddings=4096),
}


# ----------------------------------------------------------------------------------- gathering


def forecast(costs: Costs) -> dict[str, Any]:
    """Everything that the plan says, as plain data: hours, bytes, counts."""
    study, made = costs.study, jobs(costs)
    path = critical_path(made)
    kept = sum(job.estimate.disk for job in made.values())
    scratch = max((job.estimate.scratch for job in made.values()), default=0)
    return {
        "study": study.study,
        "device": study.device,
        "hardware": study.hardware.model_dump(),
        "jobs": [_job(name, job) for name, job in made.items()],
        "totals": _totals(made.values()),
        "disk": {
            "kept": kept,
            "by_rule": _by_rule(made.values()),
            "largest_checkpoint": scratch,
            "peak_with_8": kept + sum(sorted(j.estimate.scratch for j in made.values())[-8:]),
        },
        "tables": {
            number: _totals(j for j in made.values() if number in j.tables)
            for number in costs.plan.tables
        },
        "critical_path": [
            {"rule": made[n].rule, "label": made[n].label, "hours": made[n].estimate.hours}
            for n in path
        ],
        "machines": _machines(costs),
        "other_bases": {} if costs.on_cpu else _other_bases(costs),
        "measured": {k: dict(v) for k, v in asdict(costs.measured).items()},
        "guesses": costs.guesses(),
    }


def _job(name: str, job: Job) -> dict[str, Any]:
    it = job.estimate
    return {
        "rule": job.rule,
        "label": job.label,
        "makes": name,
        "after": list(job.after),
        "tables": list(job.tables),
        "needs": asdict(it.needs),
        "hours": it.hours,
        "gpu_hours": it.gpu_hours,
        "parameters": it.parameters,
        "trainable": it.trainable,
        "tokens": it.tokens,
        "flops": it.flops,
        "micro_batch": it.micro_batch,
        "memory": {"bytes": memory.total(it.memory), "parts": it.memory},
        "disk": it.disk,
        "scratch": it.scratch,
        "fits": it.fits,
        "measured": it.measured,
    }


def _totals(made: Iterable[Job]) -> dict[str, float]:
    made = list(made)
    rules = {"trainings": ("train", "train_expert", "pretrain"), "evaluations": ("evaluate",)}
    totals: dict[str, float] = {"jobs": len(made)}
    for what, names in rules.items():
        these = [job for job in made if job.rule in names]
        totals |= {what: len(these), f"{what}_gpu_hours": gpu_hours(these)}
    return totals | {
        "gpu_hours": gpu_hours(made),
        "flops": sum(job.estimate.flops for job in made),
        "tokens": sum(job.estimate.tokens for job in made if job.rule != "evaluate"),
        "disk": sum(job.estimate.disk for job in made),
    }


def _by_rule(made: Iterable[Job]) -> dict[str, float]:
    disk: dict[str, float] = {}
    for job in made:
        disk[job.rule] = disk.get(job.rule, 0) + job.estimate.disk
    return disk


def _machines(costs: Costs) -> dict[str, dict[str, Any]]:
    """Hours in all and makespans, by kind of GPU (of a CPU study for this machine alone)."""
    kinds = [costs.study.hardware.gpu] if costs.on_cpu else list(GPUS)
    machines = {}
    for kind in kinds:
        made = jobs(Costs(costs.plan, gpu=kind))
        machines[kind] = {
            "gpu_hours": gpu_hours(made.values()),
            "most_gpus": max(job.gpus for job in made.values()),
            "does_not_fit": [j.label for j in made.values() if not j.estimate.fits],
            "makespan": {n: makespan(made, n) for n in MACHINES},
        }
    return machines


def _other_bases(costs: Costs) -> dict[str, list[dict[str, Any]]]:
    """Tables 1 and 2 on larger models: their distinct trainings, on the study's GPUs."""
    variants, found = [v for v in costs.plan.shown_in(1, 2) if v.stages], {}
    for base, shape in OTHER_BASES.items():
        other = Costs(costs.plan, bases=dict.fromkeys(costs.plan.models, shape))
        found[base] = [
            {
                "label": v.key,
                "experts": len(v.moe.experts),
                "recipe": v.stages[-1].recipe,
                **_other(other.train(v)),
            }
            for v in variants
        ]
        found[base].sort(key=lambda it: it["experts"])
    return found


def _other(it: Estimate) -> dict[str, Any]:
    """What the table of another base shows of a training there."""
    return {
        "micro_batch": it.micro_batch,
        "parameters": it.parameters,
        "trainable": it.trainable,
        "memory": memory.total(it.memory),
        "needs": asdict(it.needs),
        "gpu_hours": it.gpu_hours,
        "fits": it.fits,
        "disk": it.disk,
    }
