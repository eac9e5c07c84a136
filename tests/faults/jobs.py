"""Faults of all kinds of jobs: stopped, killed, without room, and on a machine without GPUs."""

import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults import damage, judge
from tests.faults.fault import Ending, Fault, NotReached, Outcome
from tests.faults.process import Ended, run
from tests.faults.study import Job, Study, forget
from tests.faults.watch import ACTS, Event, Watch

STOPPED = "A stopped job leaves nothing half-written, and its command makes it"
FULL = "A full disk is called so, in every job"
NO_GPU = "A job of a study for GPUs refuses a machine without"
FAILING = "A disk that fails is told in the system's words"
PROMISES = {
    **dict.fromkeys(("ENOSPC", "EDQUOT", "small disk"), FULL),
    **dict.fromkeys(("EIO", "EACCES"), FAILING),
}
SIGNALS = ("SIGTERM", "SIGUSR1", "SIGINT")
RULES = (
    *("world", "prepare_data", "preflight", "merge", "merge_per_seed", "questions", "evaluate"),
    *("search", "table", "figure", "claim", "claims", "report"),
)
FOR_GPUS = ("pretrain", "train_expert", "train", "evaluate")
TIMES = 2  # how often each kind of fault is tried on each rule


def faults(seed: int, study: Study) -> list[Fault]:
    """The faults of jobs that a seed draws."""
    rng = random.Random(f"jobs {seed}")
    found = []

    def draw(promise: str, kind: str, target: str) -> None:
        found.append(Fault("jobs", promise, kind, target, "", rng.random(), rng.getrandbits(30)))

    for rule in RULES:
        jobs = sorted(job.name for job in study.named(rule))
        for kind in (*ACTS, "small disk"):
            for _ in range(TIMES):
                draw(PROMISES.get(kind, STOPPED), kind, rng.choice(jobs))
    for rule in FOR_GPUS:
        for name in rng.sample(
            jobs := sorted(job.name for job in study.named(rule)), min(2, len(jobs))
        ):
            draw(NO_GPU, "no GPU", name)
    return found


def try_fault(fault: Fault, study: Study, at: Path) -> Outcome:
    """Make a fault, run the same command again, and judge."""
    with _room(at):
        if fault.kind == "no GPU":
            return _without_gpu(fault, study, at)
        if fault.kind == "small disk":
            return _small_disk(fault, study, at)
        return _stopped(fault, study, at)


@contextmanager
def _room(at: Path) -> Iterator[None]:
    shutil.rmtree(at, ignore_errors=True)
    at.mkdir(parents=True)
    try:
        yield
    finally:
        if os.path.ismount(at / "copy"):
            subprocess.run(["umount", str(at / "copy")], check=True)
        shutil.rmtree(at)


def _below(folder: Path, job: Job) -> list[Path]:
    """What a job writes: its outputs and their checksums."""
    return [folder / name for name in (*job.outputs, f"{job.outputs[0]}.sums")]


def _watch(folder: Path, job: Job, report: Path, **more) -> Watch:
    return Watch(tuple(os.path.abspath(path) for path in _below(folder, job)), report, **more)


_traces: dict[str, tuple[Event, ...]] = {}


def _trace(study: Study, at: Path, job: Job) -> tuple[Event, ...]:
    """What a job does that nothing stops; it must make what the study has."""
    if job.name not in _traces:
        folder = study.copy(at / "trace", without=job)
        ended = run(job, folder, _watch(folder, job, at / "report"))
        if ended.code != 0 or not ended.events:
            raise NotReached(f"{job.name}: fails without a fault: {ended.end}")
        if wrong := judge.differs(study, folder, job):
            raise NotReached(f"{job.name}: twice is not the same: {wrong}")
        _traces[job.name] = ended.events
        shutil.rmtree(folder)
    return _traces[job.name]


def _stopped(fault: Fault, study: Study, at: Path) -> Outcome:
    job = study.jobs[fault.target]
    events = _trace(study, at, job)
    event = events[int(fault.moment * len(events))]
    folder = study.copy(at / "copy", without=job)
    started, act = time.time_ns(), ACTS[fault.kind]
    (at / "replaced").mkdir()
    watch = _watch(folder, job, at / "report", at=event.number, act=act, shadows=at / "replaced")
    first = run(job, folder, watch)
    if not first.reached:
        raise NotReached(f"{fault.name}: event {event} was not reached: {first.end}")
    lost = ""
    if fault.kind == "power cut":
        below = _below(folder, job)
        lost = "; ".join(damage.cut_power(below, first.seen, started, fault.seed))
    return _judged(fault, study, folder, job, first, f"{event}; {lost}")


def _judged(fault: Fault, study: Study, folder: Path, job: Job, first: Ended, told: str) -> Outcome:
    """Whether the fault was told, nothing is half-written, and the same command makes it all."""

    def outcome(ending: Ending, why: str) -> Outcome:
        return Outcome(fault, ending, f"{why}\nfirst ({first.code}): {first.end}\n{told}")

    if judge.has_traceback(first):
        return outcome(Ending.TRACEBACK, "a traceback")
    if first.code is None:
        return outcome(Ending.DEAD_END, "it hung")
    called = re.search("disk is full|quota is used up", first.text)
    if fault.promise == FULL and first.code > 0 and not called:
        return outcome(Ending.UNNAMED, "a full disk is not called so")
    said = re.search("Input/output error|Permission denied", first.text)
    if fault.promise == FAILING and first.code > 0 and not said:
        return outcome(Ending.UNNAMED, "what the system said is not told")
    if fault.kind in SIGNALS and (first.code < 0 or not first.text.strip()):
        return outcome(Ending.UNNAMED, "it died of the signal without a word")
    # checksums beside a file say that it is whole, whatever came after
    note = folder / f"{job.outputs[0]}.sums"
    if note.exists() and first.code != 0:
        torn = _torn(note)
        if (torn and fault.kind != "power cut") or (not torn and judge.differs(study, folder, job)):
            return outcome(Ending.SILENT, f"{note} vouches for what is not whole")
    if first.code != 0:
        forget(folder, job)
        again = run(job, folder, Watch((), folder.parent / "again"))
        if judge.has_traceback(again) or again.code != 0:
            return outcome(Ending.DEAD_END, f"again ({again.code}): {again.end}")
    if wrong := judge.differs(study, folder, job):
        return outcome(Ending.SILENT, wrong)
    hidden = [f for o in job.outputs for f in Path(folder, o).parent.glob(f".{Path(o).name}.*")]
    if hidden and fault.kind not in ("SIGKILL", "power cut"):
        return outcome(Ending.SILENT, f"left behind: {hidden}")
    return outcome(Ending.KEPT, "")


def _torn(note: Path) -> bool:
    """Whether a file of checksums is not whole, so that it vouches for nothing."""
    from mofe import sums

    try:
        sums.read(str(note))
    except sums.Damaged:
        return True
    return False


def _small_disk(fault: Fault, study: Study, at: Path) -> Outcome:
    """The whole study, its logs too, on a file system with too little room; then room is made."""
    job, folder = study.jobs[fault.target], at / "copy"
    needed = sum((study.folder / f).stat().st_size for f in study.made(job))
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m", "tmpfs", str(folder)], check=True)
    study.copy(folder, without=job, copy=shutil.copy2)
    pages = int(fault.moment * needed) >> 12
    while True:
        status = os.statvfs(folder)
        used = status.f_blocks - status.f_bfree
        _resize(folder, (used * status.f_frsize >> 12) + pages)
        first = run(job, folder, _watch(folder, job, at / "report"))
        if first.code != 0:
            break
        if not pages:
            raise NotReached(f"{fault.name}: it needs no room")
        pages //= 2
        forget(folder, job)
    _resize(folder, (256 << 20) >> 12)
    return _judged(fault, study, folder, job, first, f"{pages} pages")


def _resize(folder: Path, pages: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={pages * 4}k", str(folder)], check=True)


def _without_gpu(fault: Fault, study: Study, at: Path) -> Outcome:
    job = study.for_gpus[fault.target]
    folder = study.copy(at / "copy", without=job)
    first = run(job, folder, Watch((), at / "report"))
    told = f"({first.code}): {first.end}"
    if judge.has_traceback(first):
        return Outcome(fault, Ending.TRACEBACK, told)
    if first.code == 0:
        return Outcome(fault, Ending.SILENT, told)
    if not re.search("GPU|CUDA", first.text):
        return Outcome(fault, Ending.UNNAMED, told)
    return Outcome(fault, Ending.KEPT, told)
