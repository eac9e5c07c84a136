"""Faults of trainings: stopped at any moment by anything, and run again."""

import contextlib
import json
import os
import random
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mofe.jobs import made, scratch
from tests.faults import damage, judge
from tests.faults.fault import Ending, Fault, NotReached, Outcome
from tests.faults.process import LIMIT, Ended, Running, run
from tests.faults.study import RESULTS, Job, Study, forget
from tests.faults.watch import ACTS, Event, Watch

OF_METHOD = "variants/tinyllama_4tinyllama/medmcqa_{}/s0/trained.safetensors"
TARGETS = {
    "Full": OF_METHOD.format("full"),
    "MoFE": OF_METHOD.format("mofe"),
    "freeze-2": OF_METHOD.format("freeze2"),
    "LoRA": OF_METHOD.format("lora"),
    "QLoRA": OF_METHOD.format("qlora"),
    "DoRA": OF_METHOD.format("dora"),
    "expert": "experts/medical/s0",
}
STEPS = 4
PHASES = (
    "computed",
    "hashed",
    "stored",
    "checkpoint opened",
    "checkpoint made",
    "checkpoint renamed",
    "checkpoint removed",
    "checkpoint synced",
    "result opened",
    "result renamed",
    "result synced",
)
SIGNALS = ("SIGTERM", "SIGUSR1", "SIGINT")
FULL = ("ENOSPC", "EDQUOT")
FAILING = ("EIO", "EACCES")
PROMISE = {
    "SIGKILL": "A killed training goes on",
    "power cut": "A training survives a power cut",
    **dict.fromkeys(SIGNALS, "A stopped training loses no step"),
    **dict.fromkeys(FULL, "A full disk stops a training, its state kept"),
    **dict.fromkeys(FAILING, "A disk that fails stops a training, its state kept"),
    "small disk": "A full disk stops a training, its state kept",
    "out of memory": "Out of memory goes on with half the rows",
    "damage": "A damaged checkpoint is told and not used",
    "stray": "A checkpoint folder may hold what is not ours",
    "together": "Two trainings never share a checkpoint",
}
OUT_OF_MEMORY = ("forward", "backward", "before the optimiser", "after the optimiser", "always")
STRAYS = (
    "step-5.bak",
    "step-9 that is empty",
    "step-9 that is a file",
    "partial-9",
    "half-removed step",
    "unknown field",
    "foreign checkpoint",
    "lock of nonsense",
    "lock that is empty",
    "no lock",
    "live log cut",
    "steps gone",
)


def faults(seed: int, study: Study) -> list[Fault]:
    """The faults of trainings that a seed draws."""
    rng = random.Random(f"training {seed}")

    def drawn(family, promise, kind, target, phase="") -> Fault:
        return Fault(
            family, PROMISE[promise], kind, target, phase, rng.random(), rng.getrandbits(30)
        )

    found = [
        drawn("training", kind, kind, target, phase)
        for target in TARGETS
        for kind in ACTS
        for phase in PHASES
    ]
    for target in TARGETS:
        found += [drawn("training", "small disk", "small disk", target) for _ in range(5)]
        found += [
            drawn("training", "out of memory", f"out of memory: {where}", target)
            for where in OUT_OF_MEMORY
        ]
        for kind in (*damage.CONTENT, "deleted"):
            found += [drawn("checkpoints", "damage", kind, target) for _ in range(2)]
        found += [drawn("checkpoints", "stray", kind, target) for kind in STRAYS]
        found.append(drawn("checkpoints", "together", "a second process", target))
        found.append(drawn("checkpoints", "together", "two at once", target))
    return found


@dataclass
class Room:
    """Where one fault is made: a copy of the study without what the job made."""

    study: Study
    at: Path
    job: Job
    number: int = 0
    mounted: list[Path] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.at / "copy"

    @property
    def record(self) -> Path:
        return self.home / "train.json"

    @property
    def log(self) -> Path:
        return self.home / "log.jsonl"

    @property
    def home(self) -> Path:
        """The folder of the training's results."""
        first = self.folder / self.job.outputs[0]
        return first if self.job.rule != "train" else first.parent

    @property
    def checkpoint(self) -> Path:
        if self.job.rule == "train":
            return self.home / "checkpoint"
        return self.home.with_name(f".{self.home.name}.checkpoint")

    @property
    def below(self) -> list[Path]:
        """The folders and files that the training writes."""
        return [self.home, self.checkpoint, self.folder / f"{self.job.outputs[0]}.sums"]

    def watch(
        self,
        at: int = 0,
        act: Callable[[Watch, Event], None] | None = None,
        shadows: Path | None = None,
    ) -> Watch:
        self.number += 1
        if shadows:
            shadows.mkdir()
        report = self.at / f"report{self.number}"
        below = tuple(os.path.abspath(path) for path in self.below)
        return Watch(below, report, at, act, shadows=shadows)

    def is_whole(self) -> bool:
        """Whether all that the training makes is there, by its checksums."""
        return made.is_whole([str(self.folder / output) for output in self.job.outputs])

    def again(self) -> Ended:
        """The same command again, as Snakemake runs it: a failed job's outputs are removed."""
        forget(self.folder, self.job)
        return run(self.job, self.folder, self.watch())

    def close(self) -> None:
        for mounted in reversed(self.mounted):
            subprocess.run(["umount", str(mounted)], check=True)
        shutil.rmtree(self.at, ignore_errors=True)


@contextlib.contextmanager
def room(study: Study, at: Path, target: str) -> Iterator[Room]:
    """A room for faults of a target, removed afterwards."""
    job = study.making(f"{RESULTS}/{TARGETS[target]}")
    shutil.rmtree(at, ignore_errors=True)
    at.mkdir(parents=True)
    made = Room(study, at, job)
    study.copy(made.folder, without=job)
    try:
        yield made
    finally:
        made.close()


def often(watch: Watch) -> None:
    """Save after each step, in this process."""
    from mofe.training import checkpoint

    assert hasattr(checkpoint, "SECONDS_BETWEEN") and hasattr(checkpoint, "SHARE_OF_TIME")
    checkpoint.SECONDS_BETWEEN, checkpoint.SHARE_OF_TIME = 0.0, float("inf")


_traces: dict[tuple[str, bool], tuple[Event, ...]] = {}


def trace(study: Study, at: Path, target: str, saving: bool) -> tuple[Event, ...]:
    """The events of a training that nothing stops, once for each. saving: after each step."""
    if (target, saving) not in _traces:
        with room(study, at, target) as here:
            ended = run(here.job, here.folder, here.watch(), often if saving else lambda _: None)
        if ended.code != 0:
            raise NotReached(f"{target}: fails without a fault: {ended.end}")
        _traces[target, saving] = ended.events
    return _traces[target, saving]


def try_fault(fault: Fault, study: Study, at: Path) -> Outcome:
    """Make a fault, run the same command again, and judge."""
    if fault.kind in ACTS:
        return _interrupted(fault, study, at)
    if fault.kind == "small disk":
        return _small_disk(fault, study, at)
    if fault.kind.startswith("out of memory"):
        return _out_of_memory(fault, study, at)
    if fault.kind in ("a second process", "two at once"):
        return _together(fault, study, at)
    return _damaged(fault, study, at)


# ---------------------------------------------------------------------------------- interruptions


def _interrupted(fault: Fault, study: Study, at: Path) -> Outcome:
    # a signal must save by itself
    saving = fault.kind not in SIGNALS or fault.phase in (
        "checkpoint renamed",
        "checkpoint removed",
    )
    events = [e for e in trace(study, at, fault.target, saving) if e.phase == fault.phase]
    if not events:
        raise NotReached(f"{fault.name}: there is no such moment")
    event = events[int(fault.moment * len(events))]
    with room(study, at, fault.target) as here:
        started = time.time_ns()
        shadows = at / "replaced" if fault.kind == "power cut" else None
        watch = here.watch(event.number, ACTS[fault.kind], shadows)
        first = run(here.job, here.folder, watch, often if saving else lambda _: None)
        if not first.reached:
            raise NotReached(f"{fault.name}: event {event} was not reached: {first.end}")
        lost = ""
        if fault.kind == "power cut":
            lost = "; ".join(damage.cut_power(here.below, first.seen, started, fault.seed))
        done = event.number > _finished(trace(study, at, fault.target, saving))
        return _judged(fault, here, first, _due(fault.kind, event, done), lost)


def _finished(events: tuple[Event, ...]) -> int:
    """The number of the event by which all results and their checksums are on disk. What follows is
    the removal of the checkpoint."""
    return max(e.number for e in events if e.phase.startswith("result "))


def _due(kind: str, event: Event, done: bool) -> int:
    """How many steps must not be computed again. done: whether all results are on disk."""
    if kind in SIGNALS:
        return event.steps
    if done:
        return STEPS
    if event.steps == STEPS and not event.phase.startswith(("checkpoint", "computed")):
        return event.steps
    return max(0, event.steps - 1)  # the state of the last step may not be whole yet


def _judged(fault: Fault, here: Room, first: Ended, due: int, lost: str = "") -> Outcome:
    """Run again after a first run that the fault ended."""

    def outcome(ending: Ending, told: str) -> Outcome:
        return Outcome(fault, ending, f"{told}\nfirst ({first.code}): {first.end}\n{lost}".strip())

    if judge.has_traceback(first):
        return outcome(Ending.TRACEBACK, "a traceback")
    if first.code is None:
        return outcome(Ending.DEAD_END, "the first run hung")
    if first.code < 0 and fault.kind in SIGNALS:
        return outcome(Ending.UNNAMED, "it died of the signal without a word")
    full = fault.kind in (*FULL, "small disk")
    if first.code > 0 and full and not re.search("disk is full|quota is used up", first.text):
        return outcome(Ending.UNNAMED, "a full disk is not called so")
    failing = fault.kind in FAILING
    if first.code > 0 and failing and not re.search("Input/output|Permission", first.text):
        return outcome(Ending.UNNAMED, "what the system said is not told")
    # Snakemake takes the results of a job that was killed after its last act (jobs/unnoticed.py)
    taken = first.code != 0 and here.is_whole()
    if taken:
        scratch.discard(here.checkpoint)
    elif first.code != 0:
        again = here.again()
        told = f"again ({again.code}, {again.steps} steps): {again.end}"
        if judge.has_traceback(again):
            return outcome(Ending.TRACEBACK, told)
        if again.code != 0:
            return outcome(Ending.DEAD_END, told)
        if STEPS - again.steps < due:
            return outcome(Ending.LOST, f"{STEPS - again.steps} of {due} steps were kept; {told}")
    wrong = judge.differs(here.study, here.folder, here.job)
    if wrong := wrong or judge.inconsistent(here.record, here.log):
        return outcome(Ending.SILENT, wrong)
    if here.checkpoint.exists():
        return outcome(Ending.SILENT, f"{here.checkpoint} is left")
    return outcome(Ending.KEPT, "")


def _small_disk(fault: Fault, study: Study, at: Path) -> Outcome:
    """On a file system of its own, too small for the training; then room is made."""
    with room(study, at, fault.target) as here:
        folder = here.home if here.job.rule == "train" else here.home.parent
        folder.mkdir(parents=True, exist_ok=True)
        needed = sum((study.folder / f).stat().st_size for f in study.made(here.job))
        pages = max(2, int(fault.moment * 4 * needed) >> 12)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={pages * 4}k", "tmpfs", str(folder)], check=True
        )
        here.mounted.append(folder)
        first = run(here.job, here.folder, here.watch(), often)
        while first.code == 0:  # large enough
            pages //= 2
            forget(here.folder, here.job)
            _resize(folder, pages)
            first = run(here.job, here.folder, here.watch(), often)
        _resize(folder, (64 << 20) >> 12)
        saved = max((e.steps for e in first.events if e.phase == "checkpoint renamed"), default=0)
        return _judged(fault, here, first, max(0, saved - 1), f"{pages * 4} KiB")


def _resize(folder: Path, pages: int) -> None:
    size = f"remount,size={pages * 4}k"
    subprocess.run(["mount", "-o", size, str(folder)], check=True)


# ---------------------------------------------------------------------------------- out of memory


def _out_of_memory(fault: Fault, study: Study, at: Path) -> Outcome:
    where, number = fault.kind.split(": ")[1], 1 + int(fault.moment * STEPS)
    on_gpu = fault.seed % 2 == 0

    def exhaust(watch: Watch) -> None:
        import torch

        from mofe.training import loop

        calls = {"number": 0}

        def fails() -> None:
            calls["number"] += 1
            if calls["number"] == number or where == "always":
                watch.reached = True
                if on_gpu:
                    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
                raise RuntimeError(
                    "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't "
                    "allocate memory: you tried to allocate 2147483648 bytes. Error code 12 "
                    "(Cannot allocate memory)"
                )

        if where in ("forward", "always"):
            watch._before(loop.AnswerLoss, "forward", lambda *_, **__: fails())
        elif where == "backward":
            watch._before(torch.Tensor, "backward", lambda *_, **__: fails())
        elif where == "before the optimiser":
            watch._before(torch.optim.AdamW, "step", lambda *_, **__: fails())
        else:
            watch._after(torch.optim.AdamW, "step", fails)

    with room(study, at, fault.target) as here:
        first = run(here.job, here.folder, here.watch(), exhaust)
        if not first.reached and first.code == 0:
            raise NotReached(fault.name)
        # fewer rows need no less memory in the optimiser
        halves = where in ("forward", "backward")
        if halves and first.code != 0:
            return Outcome(fault, Ending.LOST, f"it did not go on with half the rows: {first.end}")
        if where == "always" and (first.code != 1 or "lower it" not in first.text):
            return Outcome(fault, Ending.UNNAMED, f"no remedy is told ({first.code}): {first.end}")
        judged = _judged(fault, here, first, 0)
        if judged.ending is Ending.KEPT and halves:
            rows = {s["micro_batch"] for s in json.loads(here.record.read_text())["segments"]}
            if len(rows) < 2 and number > 1:
                return Outcome(fault, Ending.SILENT, f"the record tells no other rows: {rows}")
        return judged


# ------------------------------------------------------------------------------ damaged checkpoints


def _states(here: Room) -> dict[int, Path]:
    """The states that a checkpoint has, by step."""
    found = (p for p in here.checkpoint.glob("step-*") if p.name[5:].isdigit())
    return {int(path.name[5:]): path for path in found}


def _stopped(here: Room, study: Study, at: Path, target: str, steps: int) -> None:
    """Kill the training after so many steps, with a state saved after each."""
    events = trace(study, at.with_name(f"{at.name}-trace"), target, True)
    event = next(e for e in events if e.does == "computed" and e.steps == steps)
    first = run(here.job, here.folder, here.watch(event.number, ACTS["SIGKILL"]), often)
    if not first.reached or not _states(here):
        raise NotReached(f"{target}: no state after {steps} steps: {first.end}")


def _damaged(fault: Fault, study: Study, at: Path) -> Outcome:
    rng = random.Random(fault.seed)
    with room(study, at, fault.target) as here:
        _stopped(here, study, at, fault.target, 3 if fault.moment < 0.5 else STEPS)
        states = _states(here)
        if fault.kind in (*damage.CONTENT, "deleted"):
            files = sorted(
                f for f in here.checkpoint.rglob("*") if f.is_file() and f.stat().st_size
            )
            file = rng.choice(files)
            hit = next((n for n, path in states.items() if path in file.parents), None)
            if fault.kind == "deleted":
                file.unlink()
            elif not damage.change(file, fault.kind, fault.seed, keep_time=rng.random() < 0.5):
                raise NotReached(f"{fault.name}: {file} did not change")
            told = f"{file.relative_to(here.checkpoint)}"
        else:
            hit, told = _stray(fault.kind, here, states, rng), fault.kind
        whole = [n for n in states if n != hit and hit is not Ellipsis]
        due = max(whole, default=0)
        again = here.again()
        seen = f"{told}; again ({again.code}, {again.steps} steps): {again.end}"
        if judge.has_traceback(again):
            return Outcome(fault, Ending.TRACEBACK, seen)
        if again.code != 0:
            return Outcome(fault, Ending.DEAD_END, seen)
        if wrong := judge.differs(study, here.folder, here.job):
            return Outcome(fault, Ending.SILENT, f"{wrong}: {seen}")
        if wrong := judge.inconsistent(here.record, here.log):
            return Outcome(fault, Ending.SILENT, f"{wrong}: {seen}")
        if STEPS - again.steps < due:
            return Outcome(fault, Ending.LOST, f"{due} steps were whole: {seen}")
        shown = again.text + (here.folder / here.job.log).read_text()
        unused = STEPS - again.steps < max(states)
        if hit == max(states) and unused and f"step-{hit}" not in shown:
            return Outcome(fault, Ending.UNNAMED, f"step-{hit} is not named: {seen}")
        return Outcome(fault, Ending.KEPT, seen)


def _stray(kind: str, here: Room, states: dict[int, Path], rng: random.Random):
    """Put something into the checkpoint's folder. Returns the step whose state it damages, None
    where it damages none, `...` where it takes all of them."""
    folder, newest = here.checkpoint, max(states)
    match kind:
        case "step-5.bak":
            shutil.copytree(states[newest], folder / "step-5.bak")
        case "step-9 that is empty":
            (folder / "step-9").mkdir()
        case "step-9 that is a file":
            (folder / "step-9").write_text("a note")
        case "partial-9":
            shutil.copytree(states[newest], folder / "partial-9")
        case "half-removed step":
            for file in [f for f in states[newest].rglob("*") if f.is_file()]:
                if rng.random() < 0.5 or file.suffix == ".distcp":
                    file.unlink()
            return newest
        case "unknown field":
            file = states[newest] / "progress.json"
            file.write_text('{"unknown": 1, ' + file.read_text().lstrip()[1:])
            return newest
        case "foreign checkpoint":
            other = next(
                t for t in TARGETS if not here.job.outputs[0].startswith(f"{RESULTS}/{TARGETS[t]}")
            )
            with room(here.study, here.at / "other", other) as there:
                _stopped(there, here.study, here.at / "trace", other, 3)
                shutil.rmtree(folder)
                shutil.copytree(there.checkpoint, folder)
            return ...
        case "lock of nonsense":
            (folder / "lock.json").write_text('{"host": 3, "pid": "many"}')
        case "lock that is empty":
            (folder / "lock.json").write_text("")
        case "no lock":
            (folder / "lock.json").unlink(missing_ok=True)
        case "live log cut":
            log = folder / "log.jsonl"
            log.write_bytes(log.read_bytes()[: log.stat().st_size // 2] if log.exists() else b"")
        case "steps gone":
            for path in states.values():
                shutil.rmtree(path)
            return ...
    return None


# --------------------------------------------------------------------------------- two at once


def _together(fault: Fault, study: Study, at: Path) -> Outcome:
    """A second process on the checkpoint of a live one, or two that are started at once."""
    gate = at / "gate"

    def hold(watch: Watch, event: Event) -> None:
        (at / "held").touch()
        while not gate.exists():
            time.sleep(0.01)

    with room(study, at, fault.target) as here:
        at_once = fault.kind == "two at once"
        event = next(
            e
            for e in trace(study, at.with_name(f"{at.name}-trace"), fault.target, True)
            if e.does == "computed" and e.steps == 1 + int(fault.moment * STEPS)
        )
        watches = here.watch(0 if at_once else event.number, hold), here.watch()
        one = Running(here.job, here.folder, watches[0], often)
        if at_once:
            time.sleep(fault.moment * 0.3)
        else:
            _await(at / "held")
        two = Running(here.job, here.folder, watches[1], often)
        refused = two.wait()
        gate.touch()
        ended = one.wait()
        told = f"one ({ended.code}): {ended.end}\ntwo ({refused.code}): {refused.end}"
        if judge.has_traceback(ended, refused):
            return Outcome(fault, Ending.TRACEBACK, told)
        if not at_once and refused.code == 0:
            return Outcome(fault, Ending.SILENT, f"both trained: {told}")
        if ended.code != 0 and refused.code != 0:
            return Outcome(fault, Ending.LOST, told)
        if any(e.code and str(p.pid) not in e.text for e, p in ((refused, one), (ended, two))):
            return Outcome(fault, Ending.UNNAMED, f"the other process is not named: {told}")
        if wrong := judge.differs(study, here.folder, here.job):
            return Outcome(fault, Ending.SILENT, f"{wrong}: {told}")
        return Outcome(fault, Ending.KEPT, told)


def _await(file: Path) -> None:
    until = time.monotonic() + LIMIT
    while not file.exists():
        if time.monotonic() > until:
            raise NotReached(f"{file} does not come")
        time.sleep(0.01)
