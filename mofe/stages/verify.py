"""The checksums of everything that a study has: comparing them (rule `verify`), and writing those
that are missing (rule `sums`)."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mofe import records, sums, units
from mofe.data import mirror
from mofe.jobs import made
from mofe.progress import BYTES, Progress
from mofe.report import figures
from mofe.study.given import Given
from mofe.study.graph import ALL, Graph, Node
from mofe.study.identity import Identities
from mofe.study.load import load_study
from mofe.study.plan import Plan
from mofe.training import saved

SHOWN = 20  # damaged files that are told in the terminal; the log has all


class NotWhole(ValueError):
    """Something of a study's results is not as it was made."""


@dataclass
class Found:
    """What became of a study's artefacts, by their first outputs: whole, damaged, with files
    missing, without checksums (unsummed). told: a sentence for each damaged file; again: what is
    made again for them."""

    whole: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unsummed: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    again: list[str] = field(default_factory=list)


def verify(*, config: Mapping[str, Any], command: str) -> str:
    """Hash again everything that a study has made. config: its merged configuration. command: what
    makes a file of it (mofe.jobs.called). Returns counts for the user.

    Raises NotWhole, with a sentence for each damaged file and the commands that make them again;
    also where something has no checksums, because nothing proves that it is whole.
    """
    identities = _identities(config, command)
    plan, jobs = identities.graph.plan, _there(identities.graph)
    found = Found()
    with Progress(total=sum(map(_size, jobs)), unit=BYTES) as told:
        for job in jobs:
            _check(identities, job, found)
            told.update(_size(job))
    checked = _fetched(plan, identities, found)
    checked += _checkpoints(plan, found)
    print("\n".join(found.told))
    counts = (
        f"{len(found.whole)} whole, {len(found.damaged)} damaged, {len(found.missing)} with files "
        f"missing, {len(found.unsummed)} without checksums"
    )
    lines = [f"{counts}; {checked} fetched folders and checkpoints" if checked else counts]
    if found.unsummed:
        as_is = made.taking(made.command(identities))
        told = units.first(found.unsummed)
        lines.append(f"without checksums (of an earlier version): {told}; take as it is: {as_is}")
    if not found.told and not found.unsummed:
        return "\n".join(lines)
    rest = len(found.told) - SHOWN
    lines += found.told[:SHOWN] + ([f"and {rest} more (see the log)"] if rest > 0 else [])
    if found.again:
        lines.append("make them again, and what is made from them follows by itself:")
        lines.append(made.making(made.command(identities), found.again))
    raise NotWhole("\n".join(lines))


def take(*, config: Mapping[str, Any], command: str) -> str:
    """Write the checksums of everything that has none, as it is. Arguments as of `verify`. Returns
    a line for the user."""
    identities = _identities(config, command)
    taken = []
    for job in _there(identities.graph):
        if not os.path.exists(sums.path(job.outputs[0])) and not _lacks(job):
            sums.write(job.outputs)
            taken.append(job.outputs[0])
            print(job.outputs[0])
    return f"checksums of {len(taken)} results were written, as they are now"


def _identities(config: Mapping[str, Any], command: str) -> Identities:
    plan = Plan(load_study(config), on_demand=True)
    graph = Graph(plan, figures.inputs(plan.of_all))
    given = Given(plan, figures.given(plan.of_all), command=command, config=config)
    return Identities(graph, given)


def _there(graph: Graph) -> list[Node]:
    """The jobs of which something is there, if only its checksums."""
    jobs = [job for job in (*graph.jobs, *graph.on_demand) if job.outputs != (ALL,)]
    return [
        job for job in jobs if any(map(os.path.lexists, (*job.outputs, sums.path(job.outputs[0]))))
    ]


def _lacks(job: Node) -> list[str]:
    return [output for output in job.outputs if not os.path.exists(output)]


def _check(identities: Identities, job: Node, found: Found) -> None:
    target = sums.path(job.outputs[0])
    if not os.path.exists(target):
        if lacking := _lacks(job):
            found.missing.append(job.outputs[0])
            found.told.append(f"{lacking[0]}: is missing, and so are the checksums")
            found.again += made.again(identities, job)
        else:
            found.unsummed.append(job.outputs[0])
        return
    try:
        faults = made.faults(target, job.outputs)
        told, absent = [str(fault) for fault in faults], all(fault.absent for fault in faults)
    except (sums.Damaged, OSError) as error:
        told, absent = [str(error)], False
    if not told:
        found.whole.append(job.outputs[0])
        return
    (found.missing if absent else found.damaged).append(job.outputs[0])
    found.told += told
    found.again += made.again(identities, job)


def _fetched(plan: Plan, identities: Identities, found: Found) -> int:
    """Compare the folders that were fetched with their manifests. Returns their number."""
    manifests = [m for m in map(Path, plan.manifests) if m.is_file()]
    for file in manifests:
        try:
            told = mirror.faults(file.with_suffix(""), records.read(file, records.HubManifest))
        except ValueError as error:
            told = [str(error)]
        if told:
            found.damaged.append(str(file.with_suffix("")))
            found.told += told
            maker = identities.makers.get(str(file))
            found.again += made.again(identities, maker) if maker else ()
    return len(manifests)


def _checkpoints(plan: Plan, found: Found) -> int:
    """Compare the saved states of unfinished trainings with the checksums in them. Returns their
    number. A damaged one is no loss: its training takes the one before, or starts over."""
    folders = {file.parent for file in Path(plan.root).glob("**/*checkpoint/step-*")}
    states = [state for folder in sorted(folders) for state in saved.newest_first(folder)]
    for folder in states:
        try:
            saved.check(folder, saved.read(folder)[0].files)
        except (saved.Damaged, OSError) as error:
            found.damaged.append(str(folder))
            found.told.append(f"{folder}: {error}; its training will not go on from it")
    return len(states)


def _size(job: Node) -> int:
    return sum(os.path.getsize(file) for file in sums.files_of(job.outputs) if os.path.exists(file))
