"""Prints the plan: a page (plan.md.jinja), and a summary for the terminal (summary.txt.jinja)."""

from collections.abc import Callable, Iterable
from pathlib import Path

from mofe.estimate.cost import CPU_FLOPS, DISK, SLOWER
from mofe.estimate.forecast import MACHINES
from mofe.estimate.schedule import TRAININGS
from mofe.markdown import aligned
from mofe.records import PlanJob, PlanRecord
from mofe.study.hardware import GPUS
from mofe.templates import render

# How many seeds are recommended at paper scale, by the power of the tests: enough for what can be
# shown on new questions, and more for small differences on the benchmark's own.
ENOUGH_SEEDS, MORE_SEEDS = 5, 10

_FOLDER = Path(__file__).parent


def markdown(found: PlanRecord) -> str:
    """The forecast (mofe/estimate/forecast.py) as a page."""
    jobs = found.jobs
    page = render(
        _FOLDER / "plan.md.jinja",
        found=found,
        gpus=GPUS,
        machines=MACHINES,
        trainings=_by(
            lambda label: label.rpartition("/s")[0] or label,
            [job for job in jobs if job.rule in TRAININGS],
        ),
        evaluations=_by(
            lambda label: label.rpartition("/")[2],
            [job for job in jobs if job.rule == "evaluate"],
        ),
        with_seeds={seeds: _gpu_hours(found, seeds) for seeds in (ENOUGH_SEEDS, MORE_SEEDS)},
        enough=ENOUGH_SEEDS,
        more=MORE_SEEDS,
        cpu_flops=CPU_FLOPS,
        slower=SLOWER,
        disk_speed=DISK,
    )
    return aligned(page)


def summary(found: PlanRecord) -> str:
    """The forecast in a few lines, for the terminal."""
    return render(_FOLDER / "summary.txt.jinja", found=found, gpus=GPUS).rstrip()


def _gpu_hours(found: PlanRecord, seeds: int) -> float:
    """GPU-hours of the whole study with so many seeds."""
    further = seeds - len(found.seeds)
    return found.totals.gpu_hours + further * found.further_seed.totals.gpu_hours


def _by(name: Callable[[str], str], jobs: Iterable[PlanJob]) -> dict[str, list[PlanJob]]:
    """Jobs grouped by `name` of their label. The groups are in the order of their first jobs."""
    groups: dict[str, list[PlanJob]] = {}
    for job in jobs:
        groups.setdefault(name(job.label), []).append(job)
    return groups
