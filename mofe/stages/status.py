"""The study as a page of text: what is done, what runs, what failed, and what is left (rule
`status`). From files alone, so it can be looked at while a run is at work."""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mofe import paper, records, units
from mofe.estimate.cost import Costs
from mofe.estimate.schedule import TRAININGS, estimate
from mofe.jobs import scratch, standing
from mofe.jobs.doctor import here
from mofe.jobs.standing import Standing
from mofe.report import figures
from mofe.report.sources import RECORDS
from mofe.study.given import Given
from mofe.study.graph import Graph
from mofe.study.identity import Identities
from mofe.study.load import load_study
from mofe.study.plan import Plan
from mofe.study.values import ConfigError
from mofe.templates import render
from mofe.training import saved

TEMPLATE = Path(__file__).with_name("status.txt.jinja")
FAILURES = 5  # the last ones, which are told
NAMED = 20  # jobs that run, which are told
LONGEST = 300  # characters of a failure's sentence
COMPUTING = TRAININGS | {"evaluate"}  # the rules whose jobs take GPUs


@dataclass(frozen=True)
class Hours:
    """GPU-hours of a study's trainings and evaluations; in a CPU study, hours of its processors.
    left: what the plan expects; None where it cannot know. unreadable: records that do not tell."""

    spent: float
    left: float | None
    unreadable: Sequence[str] = ()


def write(*, config: Mapping[str, Any]) -> str:
    """The page of a study, for the terminal. config: its merged configuration."""
    plan = Plan(load_study(config))
    graph = Graph(plan, figures.inputs(plan))
    given = Given(plan, figures.given(plan), trainings=RECORDS.spec(plan), published=paper.digest())
    identities = Identities(graph, given)
    at_work = bool(here.other_runs(standing.SNAKEMAKE / "locks", (), plan.root))
    found = standing.of(identities, graph.jobs, standing.marked(), at_work)
    return page(plan, graph, found, at_work, hours(Costs(plan), found), time.time())


def page(
    plan: Plan,
    graph: Graph,
    found: Sequence[Standing],
    at_work: bool,
    took: Hours,
    now: float,
) -> str:
    """The page as text. at_work: whether a run is at work. now: seconds since the epoch."""
    by_output = {one.job.outputs[0]: one for one in found}
    failed = sorted((one for one in found if one.state == "failed"), key=lambda one: -one.at)
    runs = [one for one in found if one.state in ("running", "queued")]
    tables = {str(n): _left(graph, by_output, plan.paths.table(n, "tex")) for n in plan.tables}

    def ago(at: float) -> str:
        return units.duration(max(0, now - at))

    def doing(one: Standing) -> str:
        """What a job does that runs or is queued."""
        if one.state == "queued":
            return "queued, or starting"
        told = one.told.text if one.told else "begun"
        return f"{told} ({ago(one.at)} ago)"

    return render(
        TEMPLATE,
        study=plan.study.study,
        results=plan.root,
        counts=standing.counts(found),
        total=len(found),
        at_work=at_work,
        cut_off=[one.label for one in found if one.cut_off],
        heads=_columns(standing.STATES),
        stages=_stages(found),
        unit="GPU-hours" if plan.study.device == "cuda" else "hours of computing",
        hours=took,
        runs=runs[:NAMED],
        more_runs=len(runs) - NAMED,
        failures=failed[:FAILURES],
        more_failures=len(failed) - FAILURES,
        ready=[name for name, left in tables.items() if not left],
        unready=[f"{left} for table {name}" for name, left in tables.items() if left],
        report=_left(graph, by_output, plan.paths.report),
        ago=ago,
        doing=doing,
        amount=_amount(plan.study.device == "cuda"),
        longest=LONGEST,
        first=units.first,
    ).rstrip("\n")


def _amount(on_gpus: bool) -> Callable[[float], str]:
    """How hours are printed: GPU-hours as a number, those of a small study in minutes."""
    return (lambda hours: f"{hours:.1f}") if on_gpus else units.rough_time


def _stages(found: Sequence[Standing]) -> list[tuple[str, str]]:
    """By rule, as data flows, how many jobs are in each state, in columns."""
    rules = dict.fromkeys(one.job.rule for one in found)
    by_rule = {r: standing.counts([one for one in found if one.job.rule == r]) for r in rules}
    return [(r, _columns(n or "-" for n in counts.values())) for r, counts in by_rule.items()]


def _columns(cells: Iterable[object]) -> str:
    return "".join(f"{cell!s:>9}" for cell in cells)


def _left(graph: Graph, found: Mapping[str, Standing], file: str) -> int:
    """How many jobs a file still needs; none where it is ready."""
    needed = (found[job.outputs[0]] for job in graph.needed(file))
    return sum(one.state != "done" for one in needed)


def hours(costs: Costs, found: Sequence[Standing]) -> Hours:
    """What trainings and evaluations took, and will take."""
    spent, unreadable = 0.0, []
    computing = [one for one in found if one.job.rule in COMPUTING]
    for one in computing:
        try:
            spent += _seconds(one) / 3600
        except (OSError, ValueError):
            unreadable.append(one.job.outputs[0])
    try:
        left = sum(_to_come(costs, one) for one in computing if one.state != "done")
    except ConfigError:  # sizes are not known before the models are fetched
        left = None
    return Hours(spent, left, unreadable)


def _seconds(one: Standing) -> float:
    """The seconds that a job has computed, on all its devices together; of a training that is not
    done those by the clock, as its log tells. Raises OSError and ValueError where a record cannot
    be read."""
    output = one.job.outputs[0]
    if one.state == "done":
        if one.job.rule == "evaluate":
            return records.read(output, records.EvalRecord).seconds
        kind = records.TrainRecord if one.job.rule == "train" else records.DenseTrainRecord
        file = output if one.job.rule == "train" else f"{output}/train.json"
        return records.read(file, kind).device_seconds
    if one.job.rule == "evaluate":
        return 0.0
    folder = scratch.of(output)
    lines = _lines(folder / saved.LOG)
    return records.LossStep.model_validate_json(lines[-1]).seconds if lines else 0.0


def _lines(log: Path) -> list[str]:
    """The whole lines of a training's log so far."""
    text = log.read_text() if os.path.exists(log) else ""
    return text[: text.rfind("\n") + 1].splitlines()


def _to_come(costs: Costs, one: Standing) -> float:
    """The hours that a job will still take, on all its GPUs together."""
    expected = estimate(costs, one.job.rule, one.job.wildcards)
    hours = expected.hours if costs.on_cpu else expected.gpu_hours
    return hours * (1 - (one.told.share if one.told else 0.0))
