"""Run a campaign: every fault in a process of a pool, and a report of what became of them."""

import multiprocessing
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.faults import artefacts, jobs, process, training
from tests.faults.fault import Fault, Outcome
from tests.faults.study import Study

FAMILIES = {"training": training, "checkpoints": training, "artefacts": artefacts, "jobs": jobs}


def drawn(seed: int, study: Study) -> list[Fault]:
    """All faults of a seed."""
    modules = dict.fromkeys(FAMILIES.values())
    return [fault for module in modules for fault in module.faults(seed, study)]


_study: Study | None = None
_at: Path | None = None


def _begin(folder: Path) -> None:
    global _at
    _at = folder / f"worker{multiprocessing.current_process()._identity[0]}"


def _try(fault: Fault) -> Outcome | tuple[Fault, str]:
    try:
        return FAMILIES[fault.family].try_fault(fault, _study, _at / "room")
    except Exception:  # noqa: BLE001 - a mistake of the campaign, told with its fault
        import traceback

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
