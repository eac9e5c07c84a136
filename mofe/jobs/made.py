"""Whether what is there is as it was made, and with the settings that the configuration has now.

Before a job's call, the checksums of its inputs are compared with those that their makers left
(mofe/sums.py), so that damage is named by its file and never used.

Snakemake compares a job's parameters with its own notes (.snakemake). Results that were copied,
downloaded or unpacked have none, so their own hashes are compared: a record has its `config_hash`,
and the log of every job ends with it. Only light modules are imported, as in mofe/jobs/job.py.
"""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mofe import checksums, sums, units
from mofe.jobs import ending

if TYPE_CHECKING:
    from mofe.study.graph import Node
    from mofe.study.identity import Identities

# The environment variable that says how many seconds a shared disk may take to show a file, on a
# cluster's node (rules/common.smk sets it).
LATENCY = "MOFE_LATENCY"
_HASH = re.compile(r'"config_hash": "([0-9a-f]{64})"')


class MadeOtherwise(ValueError):
    """An input was made with other settings than the configuration has now."""


class DamagedInput(ValueError):
    """An input is not as it was made."""


@dataclass(frozen=True)
class Input:
    """An input of a job that another job makes.

    file: its address. notes: where its hash is noted (records first, then the log of its maker).
    config_hash: the hash that it should have. sums: the file of its checksums; None where it is not
    checked. checked: what the job reads of it: the file, and what is read beside it. again: what is
    made again where it is damaged. command: the study's call of Snakemake, to which this is added.
    if_there: the job can do without it.
    """

    file: str
    notes: tuple[str, ...]
    config_hash: str
    sums: str | None = None
    checked: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    command: str = ""
    if_there: bool = False

    @property
    def is_stale(self) -> bool:
        """Whether its notes tell another hash. Where there is no note, nothing is known."""
        return recorded(self.notes) not in (None, self.config_hash)

    def faults(self) -> list[sums.Fault]:
        """What is not as it was made. Raises FileNotFoundError where there are no checksums, and
        mofe.sums.Damaged."""
        return faults(self.sums, self.checked)


def faults(target: str, outputs: Iterable[str]) -> list[sums.Fault]:
    """What of a job's outputs is not as its checksums (the file `target`) say. Raises
    FileNotFoundError where there are none, and mofe.sums.Damaged."""
    known, found = sums.read(target), []
    for output in outputs:
        if not (own := sums.covered(known, output)):
            raise sums.Damaged(f"{target}: the file of checksums does not name {output}")
        found += sums.faults(own)
    return found


def is_whole(outputs: Sequence[str]) -> bool:
    """Whether all outputs of a job are there, with checksums that hold."""
    try:
        return bool(outputs) and not faults(sums.path(outputs[0]), outputs)
    except (sums.Damaged, OSError):
        return False


def inputs(identities: Identities, rule: str, wildcards: Mapping[str, str]) -> list[dict[str, Any]]:
    """A job's inputs that other jobs make, each as the arguments of an `Input`."""
    planned = identities.inputs(rule, wildcards)
    found = [_input(identities, file, config_hash) for file, config_hash in planned.items()]
    for file in identities.given.also_read(rule, wildcards):
        if file in identities.makers:
            maker = identities.makers[file]
            planned = identities.of(maker.rule, maker.wildcards)
            found.append({**_input(identities, file, planned), "if_there": True})
    return found


def _input(identities: Identities, file: str, config_hash: str) -> dict[str, Any]:
    maker = identities.makers[file]
    return asdict(
        Input(
            file=file,
            notes=notes(identities, maker),
            config_hash=config_hash,
            sums=sums.path(maker.outputs[0]),
            # an evaluation's record is read with the answers beside it
            checked=maker.outputs if maker.rule == "evaluate" else (file,),
            again=again(identities, maker),
            command=command(identities),
        )
    )


def again(identities: Identities, job: Node) -> tuple[str, ...]:
    """What is made again where something that a job made is damaged: its output, and what it only
    links."""
    linked = job.inputs if job.rule == "fetch_model" else ()
    return (*(file for file in linked if file in identities.makers), job.outputs[0])


def command(identities: Identities) -> str:
    """The study's call of Snakemake, for people to copy, without targets."""
    return (identities.given.command or "snakemake --cores all --").removesuffix(" --")


def making(command: str, files: Iterable[str]) -> str:
    """The command that makes files again."""
    forced = shlex.join(dict.fromkeys(files))
    return f"{command} --forcerun {forced} -- {forced}"


def taking(command: str) -> str:
    """The command that takes all results without checksums as they are."""
    return f"{command} -- sums"


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
    """Refuse inputs that are damaged or stale. read: the arguments of each `Input`. Models with
    large files are hashed while they are loaded, and refused at the end of mofe.checksums.settled.

    Raises what `_refuse` does.
    """
    given = [Input(**one) for one in read]
    large = {one.file: files for one in given if (files := _large(one))}
    checksums.ahead(dict.fromkeys(file for files in large.values() for file in files))
    _refuse([_without(one, large.get(one.file, ())) for one in given])
    if large:
        checksums.later(lambda: _refuse([one for one in given if one.file in large]))


def _large(one: Input) -> list[str]:
    """The weights among what is checked of an input that are worth hashing beside other work."""
    files = sums.files_of(one.checked) if one.sums else ()
    weights = [file for file in files if file.endswith(".safetensors") and os.path.isfile(file)]
    return [file for file in weights if os.path.getsize(file) >= checksums.LARGE]


def _without(one: Input, files: Sequence[str]) -> Input:
    """An input of which these files are not checked."""
    if not files:
        return one
    return replace(one, checked=tuple(f for f in sums.files_of(one.checked) if f not in files))


def _refuse(given: Sequence[Input]) -> None:
    """Refuse inputs that are damaged or stale. On a cluster this waits for files that a shared disk
    does not show yet.

    Raises DamagedInput and MadeOtherwise, each with one sentence that names the files and what
    makes them again.
    """
    given = [one for one in given if not one.if_there or os.path.exists(one.file)]
    found = _looked_at([one for one in given if one.sums], _latency())
    if damaged := [one for one in found if one.why]:
        told = units.first([why for one in damaged for why in one.why])
        again = making(damaged[0].input.command, [f for one in damaged for f in one.input.again])
        raise DamagedInput(
            f"{told}: damaged, and not used; make it again, and what is made from it follows by "
            f"itself: {again}"
        )
    if stale := [one for one in given if one.is_stale]:
        again = making(stale[0].command, [f for one in stale for f in one.again])
        raise MadeOtherwise(
            f"{units.first([one.file for one in stale])}: made with other settings than the "
            "configuration has now; make it again, and what is made from it follows by itself: "
            f"{again}"
        )
    if bare := [one.input for one in found if one.no_sums]:
        again = making(bare[0].command, [f for one in bare for f in one.again])
        raise DamagedInput(
            f"{units.first([one.file for one in bare])}: there is no file of checksums "
            f"({bare[0].sums}), so an earlier version made it or it is not whole; make it again: "
            f"{again}; or take all results without checksums as they are: "
            f"{taking(bare[0].command)}"
        )


@dataclass(frozen=True)
class _LookedAt:
    """An input that was compared with its checksums. why: the words that tell what is damaged;
    absent: which waiting may help. no_sums: it has no checksums."""

    input: Input
    why: tuple[str, ...] = ()
    absent: bool = False
    no_sums: bool = False


def _looked_at(given: Sequence[Input], wait: float) -> list[_LookedAt]:
    """Inputs, compared. wait: seconds that a shared disk may take to show a file."""
    until = time.monotonic() + wait
    while True:
        found = [_look_at(one) for one in given]
        if time.monotonic() >= until or not any(one.absent or one.no_sums for one in found):
            return found
        time.sleep(1)


def _look_at(one: Input) -> _LookedAt:
    try:
        found = one.faults()
    except FileNotFoundError:
        return _LookedAt(one, no_sums=True)
    except sums.Damaged as error:
        return _LookedAt(one, (f"{error}, by which {one.file} is checked",))
    except OSError as error:
        return _LookedAt(one, (f"{one.sums} cannot be read ({error.strerror})",))
    return _LookedAt(
        one, tuple(map(str, found)), bool(found) and all(fault.absent for fault in found)
    )


def _latency() -> float:
    """Seconds to wait for a file: on a cluster's node those of the profile, else none."""
    return float(os.environ.get(LATENCY, "0")) if ending.SLURM_JOB in os.environ else 0.0


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
