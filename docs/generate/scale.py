"""README's table of what the paper's scale takes, by the plan."""

import json
import math
import statistics
from collections.abc import Callable
from functools import cache
from pathlib import Path

from mofe import markdown
from mofe.estimate.cost import DISK, Costs
from mofe.estimate.forecast import forecast
from mofe.records import PlanRecord
from mofe.report import figures
from mofe.study.load import read_study
from mofe.study.plan import Plan

ROOT = Path(__file__).parents[2]
CONTROLS = ("C1", "C2", "C3", "C4", "C5")
SHOWN = (3, 8, 24)  # GPUs


@cache
def _planned(controls: bool) -> PlanRecord:
    # no run has been finished below this folder, so that nothing measured enters the estimates
    left_out = {} if controls else {"tables": dict.fromkeys(CONTROLS)}
    plan = Plan(read_study(ROOT / "config.yaml", results="results/none", **left_out))
    return forecast(Costs(plan), figures.inputs(plan))


def _machine(found: PlanRecord, gpu: str) -> list[str]:
    machine = found.machines[gpu]
    return [f"{machine.gpu_hours:.1f}", *(f"{machine.makespan[n]:.1f} h" for n in SHOWN)]


def table() -> str:
    """GPU-hours, and hours by the clock on some numbers of GPUs."""
    paper, whole = _planned(False), _planned(True)
    gpu, share = paper.hardware.gpu.upper(), paper.hardware.utilisation
    seeds = "; ".join(f"{found.further_seed.totals.gpu_hours:.1f}" for found in (paper, whole))
    alone = ", ".join(f"{paper.tables[n].gpu_hours:.1f}" for n in sorted(paper.tables, key=int))
    larger = {
        base: sum(training.gpu_hours for training in trainings)
        for base, trainings in paper.other_bases.items()
        if base.endswith("-7B")
    }
    nothing = [""] * len(SHOWN)
    rows = [
        [
            f"all seven tables, {gpu} at {share:.0%} of its peak",
            *_machine(paper, paper.hardware.gpu),
        ],
        ["with the controls, C1 to C5", *_machine(whole, whole.hardware.gpu)],
        ["each further seed of the tables; with the controls", seeds, *nothing],
        ["Tables 1 to 7, each alone", alone, *nothing],
        *(
            [f"all seven tables, {other.upper()}", *_machine(paper, other)]
            for other, machine in paper.machines.items()
            if other != paper.hardware.gpu and all(machine.makespan[n] for n in SHOWN)
        ),
        [
            f"Tables 1 and 2 on {', '.join(larger)} ({gpu})",
            ", ".join(f"{hours:.0f}" for hours in larger.values()),
            *nothing,
        ],
    ]
    return markdown.table(
        ["", "GPU-hours", *(f"on {n}" + " GPUs" * (n == SHOWN[0]) for n in SHOWN)],
        rows,
        "lrrrr",
        padded=False,
    )


def controls() -> str:
    """How much of all the controls are."""
    paper, whole = (found.totals.gpu_hours for found in (_planned(False), _planned(True)))
    gpu = _planned(False).hardware.gpu.upper()
    return (
        f"At paper scale the controls are planned to take {whole - paper:.0f} GPU-hours of "
        f"{whole:.0f} on {gpu} with one seed, most of it for C3. Rule `plan` has the numbers "
        "table by table. The pilot has no controls."
    )


def start() -> str:
    """Where the default of `hardware.starting` comes from."""
    found = json.loads((ROOT / "benchmarks/results/starts.json").read_text())
    computing = statistics.median(found["cpu_seconds"]["cold"]["one"])
    read = statistics.median(found["bytes_read"]["one"])
    measured, planned = computing + read / DISK, _planned(False).hardware.starting
    return (
        f"Without a GPU, what Slurm starts for a training took {computing:.0f} s of a processor of "
        f"{found['hardware']['cpu']} with a cold cache, and read {read / 1e9:.1f} GB "
        f"([benchmarks.md](benchmarks.md#starting-a-job)). On a node that is not shared that is "
        f"{measured:.0f} s, at {DISK / 1e6:.0f} MB/s. The default of {planned:.0f} s leaves "
        f"{planned - measured:.0f} s for CUDA, which was not measured, and for slower nodes. Set "
        "it to what you see."
    )


def sample() -> str:
    """What asking all open questions would cost."""
    whole = {"tables": dict.fromkeys(CONTROLS), "tasks": {"finance_open": {"sample": None}}}
    plan = Plan(read_study(ROOT / "config.yaml", results="results/none", **whole))
    more = forecast(Costs(plan), figures.inputs(plan)).totals.gpu_hours
    more -= _planned(False).totals.gpu_hours
    task = plan.study.tasks["finance_open"]
    asked, there = read_study(ROOT / "config.yaml").tasks["finance_open"].sample, task.questions
    return (
        f"`finance_open`, our own column of answers in words, asks {asked:,} of the {there:,} open "
        f"questions (`sample`). All of them would take {more:.1f} GPU-hours more. The standard "
        f"error is that of {asked:,} answers, about {math.sqrt(there / asked):.1f} times that of "
        "all. [configuration.md](configuration.md#tasks) says how the sample is drawn and recorded."
    )


PARTS: dict[tuple[str, str], Callable[[], str]] = {
    ("README.md", "scale"): table,
    ("docs/plan.md", "start"): start,
    ("docs/plan.md", "sample"): sample,
    ("docs/controls.md", "hours"): controls,
}
