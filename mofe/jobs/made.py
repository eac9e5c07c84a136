"""Whether what is there was made with the settings that the configuration has now.

Snakemake compares a job's parameters with its own notes (.snakemake). Results that were copied,
downloaded or unpacked have none, so their own hashes are compared: a record has its `config_hash`,
and the log of every job ends with it. Only the standard library is imported, as in
mofe/jobs/job.py.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mofe import units

if TYPE_CHECKING:
    from mofe.study.graph import Node
    from mofe.study.identity import Identities

_HASH = re.compile(r'"config_hash": "([0-9a-f]{64})"')


class MadeOtherwise(ValueError):
    """An input was made with other settings than the configuration has now."""


@dataclass(frozen=True)
class Input:
    """An input of a job: its address, where its hash is noted (records first, then the log of the
    job that made it), and the hash that it should have."""

    file: str
    notes: tuple[str, ...]
    config_hash: str

    @property
    def is_stale(self) -> bool:
        """Whether its notes tell another hash. Where there is no note, nothing is known."""
        return recorded(self.notes) not in (None, self.config_hash)


def inputs(identities: Identities, rule: str, wildcards: Mapping[str, str]) -> list[dict[str, Any]]:
    """A job's inputs that other jobs make, each as the arguments of an `Input`."""
    return [
        {"file": file, "notes": notes(identities, identities.makers[file]), "config_hash": planned}
        for file, planned in identities.inputs(rule, wildcards).items()
    ]


def notes(identities: Identities, job: Node) -> tuple[str, ...]:
    """Where the hash of what a job made is noted: its records, then its log."""
    records = [file for file in job.outputs if file.endswith(".json")]
    folders = [file for file in job.outputs if not Path(file).suffix]
    records += [f"{folder}/train.json" for folder in folders]
    return (*records, identities.graph.plan.paths.log(job.outputs[0]))


def recorded(notes: Iterable[str]) -> str | None:
    """The hash that the first of these files has; None where none has one."""
    for note in notes:
        if os.path.isfile(note) and (
            found := _HASH.findall(Path(note).read_text(errors="replace"))
        ):
            return found[-1]
    return None


def refuse(read: Iterable[Mapping[str, Any]]) -> None:
    """Raises MadeOtherwise, one sentence that names the files, where inputs are stale. read: the
    arguments of each `Input`."""
    stale = [file.file for file in (Input(**one) for one in read) if file.is_stale]
    if stale:
        raise MadeOtherwise(
            f"{units.first(stale)}: made with other settings than the configuration has now; make "
            f"it again: snakemake ... --forcerun {shlex.join(stale)}, with the study's "
            "--configfile or --profile"
        )


def stale(
    identities: Identities,
    targets: Collection[str],
    forced: Collection[str],
    compared: Callable[[str], bool],
) -> list[Node]:
    """The jobs whose results are stale although Snakemake does not notice it. Jobs that are made
    from stale results are left out: they are made again when those are.

    targets: the files that are asked for; empty for all. forced: rules and files that are made
    again anyway. compared: whether Snakemake has notes of a file, with which it compares
    parameters.
    """
    graph, found = identities.graph, []
    again: set[str] = set()  # addresses that are made again, or will be
    for job in graph.needed(*targets) if targets else graph.jobs:
        if again.intersection(job.inputs) or {job.rule, *job.outputs}.intersection(forced):
            again.update(job.outputs)
        elif os.path.exists(job.outputs[0]) and not all(map(compared, job.outputs)):
            planned = identities.of(job.rule, job.wildcards)
            if Input(job.outputs[0], notes(identities, job), planned).is_stale:
                found.append(job)
                again.update(job.outputs)
    return found


def sentence(jobs: Iterable[Node], command: str, targets: Collection[str]) -> str:
    """What to tell of stale results. command: what makes a file, to which the file is added.
    targets: as in `stale`."""
    files = [job.outputs[0] for job in jobs]
    wanted = shlex.join(sorted(targets) or ["all"])
    how = f"{command.removesuffix(' --')} --forcerun {shlex.join(files)} -- {wanted}"
    return (
        f"{units.first(files)}: made with other settings than the configuration has now, and "
        "Snakemake has no notes of it here (.snakemake); make it again, with all that is made from "
        f"it: {how}"
    )
