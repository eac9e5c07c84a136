"""docs/questions.md: the open questions, and what each costs at the paper's scale."""

import json
from collections.abc import Callable, Mapping
from functools import cache

from claims import ROOT

from mofe import markdown
from mofe.estimate.cost import Costs
from mofe.estimate.forecast import OTHER_BASES, forecast
from mofe.records import PlanOnDemand
from mofe.report import figures
from mofe.study.load import read_study
from mofe.study.plan import Plan

KINDS = {"a100-80gb": "A100-80GB", "h100": "H100"}
BASE = next(iter(OTHER_BASES))


@cache
def planned() -> tuple[Plan, Mapping[str, PlanOnDemand]]:
    """The paper's scale with one seed, and what each of its questions takes."""
    # no run has been finished below this folder, so that nothing measured enters the estimates
    files = (ROOT / "config.yaml", ROOT / "profiles" / "questions.yaml")
    plan = Plan(read_study(*files, results="results/none", seeds=[0]), on_demand=True)
    return plan, forecast(Costs(plan), figures.inputs(plan.of_all)).on_demand


def cost() -> str:
    """Every question with its jobs, and the GPU-hours of one seed by the plan: on A100s, on H100s,
    and on A100s with a base of 7B."""
    plan, needed = planned()
    rows = [
        (
            f"`results/{number}.tex`",
            markdown.plain(plan.specs[key].question or plan.specs[key].caption),
            str(found.totals.trainings),
            *(f"{found.gpu_hours[kind]:.1f}" for kind in KINDS),
            f"{found.other_bases[BASE]:.0f}",
        )
        for key in plan.specs
        if (found := needed.get(number := str(key)))
    ]
    heads = ("Target", "Question", "Trainings", *KINDS.values(), f"A100-80GB, {BASE} as every base")
    return markdown.table(heads, rows, "llrrrr", padded=False)


def hours() -> str:
    """mofe/hours.json: by table, its question and its hours by kind of GPU."""
    plan, needed = planned()
    found = {
        (number := str(key)): {
            "question": spec.question,
            "hours": {
                name: round(needed[number].gpu_hours[kind], 1) for kind, name in KINDS.items()
            },
        }
        for key, spec in plan.specs.items()
        if spec.question
    }
    return json.dumps(found, indent=2) + "\n"


FILES: dict[str, Callable[[], str]] = {"mofe/hours.json": hours}
PARTS: dict[tuple[str, str], Callable[[], str]] = {("docs/questions.md", "cost"): cost}
