"""The doctor: whether a study can run here, and where its jobs run (rule `check`)."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mofe import disk, records
from mofe.estimate.cost import Costs
from mofe.estimate.schedule import jobs
from mofe.jobs.doctor import here, judge, node
from mofe.records import CheckRecord, Finding
from mofe.report import figures
from mofe.study.hardware import GPUS
from mofe.study.load import load_study
from mofe.study.plan import Plan

HUB = "https://huggingface.co"
MARKS = {"ok": "ok     ", "warning": "warning", "fault": "FAULT  "}


class CannotRun(RuntimeError):
    """Something stands in the way of running the study."""


def look_at_node(*, config: Mapping[str, Any], locks: Sequence[str], out: Path) -> str:
    """Write the facts of the machine that this job runs on. config: the study's merged
    configuration; locks: the files of pinned packages. Returns a line for the user."""
    study = load_study(config)
    facts = node.facts(locks, {recipe.held_in for recipe in study.recipes.values()} - {None})
    records.write(out, facts)
    return f"looked at {facts.host}"


def look_here(
    *,
    config: Mapping[str, Any],
    asked: Mapping[str, Any],
    cluster: bool,
    ours: Sequence[str],
    out: Path,
) -> str:
    """Look at the machine where the workflow is called, and write what was found as JSON.

    asked: the resources that the profile gives jobs. cluster: whether they are submitted. ours:
    what this run locks. Returns a line. Raises CannotRun where no job can be submitted.
    """
    plan = Plan(load_study(config))
    found = _of_here(plan, ours)
    if cluster:
        found += judge.cluster(here.slurm(), asked)
    records.write(out, CheckRecord(study=plan.study.study, findings=found, nodes=()))
    if any(one.verdict == "fault" and one.subject.startswith("Slurm") for one in found):
        raise CannotRun(screen(found))
    return f"looked at {plan.root}"


def report(*, config: Mapping[str, Any], seen: Path, nodes: Sequence[str], out: Path) -> str:
    """Put together what was found here (`seen`) and on the nodes, as JSON and as one screen, which
    is returned. Raises CannotRun with it where something is a fault."""
    study, found = load_study(config), records.read(seen, CheckRecord)
    facts = [records.read(file, records.NodeFacts) for file in nodes]
    cuda, wanted = study.device == "cuda", GPUS[study.hardware.gpu]
    findings = [*found.findings, *(f for one in facts for f in judge.node(one, cuda, wanted))]
    records.write(out, CheckRecord(study=study.study, findings=findings, nodes=facts))
    told = f"{screen(findings)}\n{out} has the same as JSON"
    if any(one.verdict == "fault" for one in findings):
        raise CannotRun(told)
    return told


def screen(findings: Sequence[Finding]) -> str:
    """What was found, a line each, with the remedy below what is not well."""
    counts = {verdict: sum(f.verdict == verdict for f in findings) for verdict in MARKS}
    lines = [f"{counts['fault']} faults, {counts['warning']} warnings, {counts['ok']} ok"]
    for one in findings:
        where = "here" if one.of == "here" else "node"
        lines.append(f"  {MARKS[one.verdict]} {where}  {one.subject}: {one.told}")
        if one.remedy:
            lines.append(f"                  -> {one.remedy}")
    return "\n".join(lines)


def _of_here(plan: Plan, ours: Sequence[str]) -> list[Finding]:
    study, root = plan.study, plan.root
    made = jobs(Costs(plan), figures.inputs(plan))
    left = [job.estimate for name, job in made.items() if not os.path.exists(name)]
    needed, scratch = sum(e.disk for e in left), max((e.scratch for e in left), default=0)
    fetched = here.fetched(plan)
    asks = not study.mirror and any(one.why for one in fetched)
    failure = here.hub_failure(os.environ.get("HF_ENDPOINT", HUB)) if asks else None
    return [
        judge.disk(needed, scratch, disk.free(root), root),
        *judge.data(fetched, failure, study.mirror),
        *judge.checkpoints(here.locks(root)),
        judge.runs(here.other_runs(Path(".snakemake", "locks"), ours, root)),
    ]
