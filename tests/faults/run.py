"""Run a campaign: every fault in a process of a pool."""

import itertools
import multiprocessing
import os
import traceback
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.faults import artefacts, jobs, process, training, workflow
from tests.faults.fault import Fault, Outcome
from tests.faults.study import Study

FAMILIES = {
    "training": training,
    "checkpoints": training,
    "artefacts": artefacts,
    "jobs": jobs,
    "workflow": workflow,
}


def drawn(seed: int, study: Study) -> list[Fault]:
    """All faults of a seed. Small disks are mounted, which only root may do: others leave them
    out."""
    modules = dict.fromkeys(FAMILIES.values())
    found = [fault for module in modules for fault in module.faults(seed, study)]
    return [fault for fault in found if os.geteuid() == 0 or fault.kind != "small disk"]


def part(faults: Iterable[Fault], number: int) -> list[Fault]:
    """The first so many faults of each promise, each of another kind as far as there are; of whole
    runs, which take longer, one."""
    chosen = []
    for _, promised in itertools.groupby(
        sorted(faults, key=lambda f: f.promise), lambda f: f.promise
    ):
        kinds: dict[str, list[Fault]] = {}
        for fault in promised:
            kinds.setdefault(fault.kind, []).append(fault)
        in_turn = (f for row in itertools.zip_longest(*kinds.values()) for f in row if f)
        first = next(in_turn)
        few = first.family == "workflow" or "command that is told" in first.promise
        chosen += [first, *itertools.islice(in_turn, 0 if few else number - 1)]
    return chosen


_study: Study | None = None
_at: Path | None = None


def _begin(folder: Path) -> None:
    global _at
    _at = folder / f"worker{multiprocessing.current_process()._identity[0]}"


def _try(fault: Fault) -> Outcome | tuple[Fault, str]:
    try:
        return FAMILIES[fault.family].try_fault(fault, _study, _at / "room")
    except Exception:  # noqa: BLE001 - a mistake of the campaign, told with its fault
        return fault, traceback.format_exc()


def tried(
    faults: Iterable[Fault], study: Study, folder: Path, workers: int
) -> Iterator[Outcome | tuple[Fault, str]]:
    """What becomes of each fault; with a text where the campaign itself failed."""
    global _study
    process.warm()
    _study = study
    _ = study.jobs, study.on_demand, study.for_gpus
    with multiprocessing.get_context("fork").Pool(workers, _begin, (folder,)) as pool:
        yield from pool.imap_unordered(_try, faults)
