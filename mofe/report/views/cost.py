"""What the study took: time by method, evaluations, and an estimate of the energy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mofe.records import EvalRecord, TrainRecord
from mofe.study.hardware import Gpu, by_cuda_name
from mofe.units import duration


def spent(
    trained: Mapping[str, TrainRecord],
    evaluated: Mapping[str, EvalRecord],
    device: str,
) -> dict[str, Any]:
    """What the template shows of cost. trained, evaluated: the records by file."""
    by_recipe: dict[str, dict[str, TrainRecord]] = {}
    for path, record in trained.items():
        by_recipe.setdefault(record.recipe, {})[path] = record
    return {
        "recipes": [
            {"recipe": recipe, **_sums(runs), "source": list(runs)}
            for recipe, runs in by_recipe.items()
        ],
        "trainings": len(trained),
        "steps": sum(run.steps for run in trained.values()),
        "tokens": sum(run.tokens for run in trained.values()),
        "training": duration(sum(run.device_seconds for run in trained.values())),
        "cpu": duration(sum(run.cpu_seconds for run in trained.values())),
        "source": list(trained),
        "evaluations": len(evaluated),
        "evaluating": duration(sum(run.seconds for run in evaluated.values())),
        "asked": list(evaluated),
        "energy": energy(trained, evaluated, device),
    }


def _sums(runs: Mapping[str, TrainRecord]) -> dict[str, Any]:
    seconds = sum(run.device_seconds for run in runs.values())
    tokens = sum(run.tokens for run in runs.values())
    return {
        "trainings": len(runs),
        "steps": sum(run.steps for run in runs.values()),
        "tokens": tokens,
        "seconds": duration(seconds),
        "cpu": duration(sum(run.cpu_seconds for run in runs.values())),
        "speed": tokens / seconds if seconds else None,
    }


def energy(
    trained: Mapping[str, TrainRecord], evaluated: Mapping[str, EvalRecord], device: str
) -> str:
    """A sentence on energy: the GPUs' hours times the most that their boards draw, so an upper
    bound for the GPUs alone. Nothing is estimated for a CPU, or for a GPU whose board power is not
    known.

    An evaluation counts as one GPU.
    """
    if device != "cuda":
        return (
            "Energy is not estimated: no record measures it, and how much of a processor's power "
            "a job draws is not known."
        )
    by_gpu: dict[str, float] = {}
    for run in trained.values():
        for part in run.computed_by:
            _add(by_gpu, part.hardware.gpus, part.device_seconds)
    for asked in evaluated.values():
        _add(by_gpu, asked.hardware.gpus, asked.seconds)
    known = {name: by_cuda_name(name) for name in by_gpu}
    if unknown := [name for name, gpu in known.items() if gpu is None]:
        return f"Energy is not estimated: the board power of {', '.join(unknown)} is not known."
    parts = [_part(gpu, by_gpu[name]) for name, gpu in known.items() if gpu]
    total = sum(gpu.watts * by_gpu[name] / 3.6e6 for name, gpu in known.items() if gpu)
    return (
        f"Energy: at most {total:,.1f} kWh, that is {' and '.join(parts)}. Boards mostly draw "
        "less; processors, memory and cooling are not counted."
    )


def _part(gpu: Gpu, seconds: float) -> str:
    return f"{seconds / 3600:,.1f} hours of {gpu.name} at its board power of {gpu.watts} W"


def _add(by_gpu: dict[str, float], gpus: tuple[str, ...], seconds: float) -> None:
    """Add seconds to the machine's kind of GPU. A machine has GPUs of one kind."""
    name = gpus[0] if gpus else "an unnamed GPU"
    by_gpu[name] = by_gpu.get(name, 0.0) + seconds
