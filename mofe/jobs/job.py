"""Running a job: one call of a function of this package, with its log and its errors.

Every script in scripts/ calls `run`. Only light modules are imported, so that handing a job to a
warm parent (mofe/jobs/warm.py) costs no more than starting Python.
"""

import contextlib
import gc
import importlib
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mofe import checksums, platforms, processes, stops, sums
from mofe.jobs import ending, gpus, launch, made, outcome, warm
from mofe.jobs.scratch import discard
from mofe.study import hardware

# Jobs read folders, never the hub: a node without internet would wait for time-outs, and a branch
# that has moved would change results. huggingface_hub, datasets and transformers read these on
# import.
OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")


@dataclass(frozen=True)
class Job:
    """A call: `function` is "module:name", `arguments` are its keyword arguments (plain data).

    asked: when the process that asks for the job was started, in seconds since the epoch.
    config_hash: of all that the job's results are made from; its log notes it. read: its inputs,
    with the hashes that they should have (mofe.jobs.made.Input). outputs: the files and folders
    that it makes, whose checksums are written when it is done (mofe.sums). scratch: a folder that
    the call keeps its unfinished work in, which is removed once all that the job makes is on disk.
    gpus: how many it needs on its machine. loads: the call begins with mofe.models.load, which ends
    the hashing of large inputs; for other calls they are hashed before.
    """

    function: str
    arguments: dict[str, Any]
    label: str
    log: str | None = None
    threads: int = 1
    config_hash: str | None = None
    read: Sequence[Mapping[str, Any]] = ()
    outputs: Sequence[str] = ()
    scratch: str | None = None
    gpus: int = 0
    loads: bool = False
    asked: float = field(default_factory=lambda: time.time() - processes.age())
    environment: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    folder: str = field(default_factory=os.getcwd)


def prepare_environment(root: str, device: str) -> None:
    """Set what jobs inherit from Snakemake: the package in the folder `root`, and for a CPU study
    settings of glibc's memory allocation. Jobs of a workflow that uses this one as a module are
    none the worse for them."""
    paths = [root, os.environ.get("PYTHONPATH")]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(p for p in paths if p))
    # Without compiled bytecode, importing torch and transformers takes four times as long.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    if device == "cpu" and platforms.has_glibc():
        for variable, value in warm.KEEP_MEMORY.items():  # glibc reads them when a process starts
            os.environ.setdefault(variable, value)


def settings(device: str) -> dict[str, str]:
    """What else the environment of a job has before it imports anything: no hub, and for a CPU
    study no GPU."""
    found = dict.fromkeys(OFFLINE, "1")
    if device == "cuda":
        # micro-batches differ in shape, which would leave gaps between blocks of fixed size
        alloc = "PYTORCH_ALLOC_CONF"
        found[alloc] = os.environ.get(alloc, "expandable_segments:True")
    if device == "cpu":
        found["CUDA_VISIBLE_DEVICES"] = ""
    return found


def online() -> dict[str, str]:
    """The environment of a process that may reach the hub: without OFFLINE, and without the warm
    parent, which has imported huggingface_hub as offline."""
    return {k: v for k, v in os.environ.items() if k not in (*OFFLINE, warm.VARIABLE)}


def _go_online() -> None:
    """Let this process reach the hub, also where its user has switched that off: before
    huggingface_hub is imported."""
    for variable in os.environ.keys() - online().keys():
        del os.environ[variable]


def run(
    function: str,
    snakemake,
    several: bool = False,
    light: bool = False,
    scratch: str | os.PathLike | None = None,
    needs_gpus: bool = True,
    loads: bool = False,
    needs_hub: bool = False,
    **arguments: Any,
) -> None:
    """Make the call for a Snakemake job, here or in the warm parent, and exit with its code.

    several: make the call in one process per GPU that the job was given (resource `gpu` is their
    total number, on `nodes` machines). light: the call imports little, so it is made here, without
    waiting for a warm parent that may still be importing. scratch, loads: as in Job. needs_gpus:
    the call cannot do without the GPUs that the job was given. needs_hub: it reaches the hub, which
    is off for others.
    """
    os.environ.update(settings(snakemake.config["device"]))
    if needs_hub:
        _go_online()
    names = "/".join(snakemake.wildcards)
    job = Job(
        function=function,
        arguments=arguments,
        label=f"{snakemake.rule} {names}".strip(),
        log=str(snakemake.log[0]) if snakemake.log else None,
        threads=snakemake.threads,
        config_hash=snakemake.params.get("config_hash"),
        read=snakemake.params.get("read", ()),
        outputs=tuple(map(str, snakemake.output)),
        scratch=str(scratch) if scratch else None,
        loads=loads,
    )
    given = snakemake.resources.get
    if needs_gpus and snakemake.config["device"] == "cuda":
        job = replace(job, gpus=given("gpu", 0) // given("nodes", 1))
    if made.is_whole(job.outputs):
        # Snakemake removes outputs before a job, but for those of an attempt that was killed after
        # its last act (mofe/jobs/unnoticed.py)
        sys.exit(outcome.reported(job.label, job.log, lambda: _was_done(job)))
    processes, nodes = (given("gpu", 1), given("nodes", 1)) if several else (1, 1)
    if processes > 1:
        # checked here, so that no process reads what is damaged while the first one still looks
        checked = replace(job, loads=False)
        if code := outcome.reported(job.label, job.log, lambda: begin(checked)):
            sys.exit(code)
        sys.exit(launch.start(replace(job, read=()), processes, nodes))
    if (parent := os.environ.get(warm.VARIABLE)) and not light:
        code = warm.call(parent, job)
        if code is not None:
            sys.exit(code)
    sys.exit(execute(job))


def _was_done(job: Job) -> None:
    noted = {"config_hash": job.config_hash} if job.config_hash else {}
    print(ending.finished(job.label, **noted), flush=True)
    if job.scratch and os.path.exists(job.scratch):
        discard(job.scratch)
    outcome.say(f"{job.label}: an earlier attempt has made it")


def sharding(snakemake) -> str:
    """How this job's processes share the model: what the plan declared (resource `sharding`),
    adapted to the number of GPUs that the job was given (resource `gpu`)."""
    given = snakemake.resources.get
    return hardware.sharding(given("sharding", "none"), given("gpu", 1))


def watched(snakemake, made: str | os.PathLike, run: str) -> dict[str, str] | None:
    """Where a training's numbers go while it runs (the values of a mofe.training.track.Watched), if
    the study says so (`track`). It comes by the configuration, not by `params`: those that change
    have a job run again. made: the folder that the training makes. run: its address below the
    results."""
    by, root = snakemake.config.get("track"), str(made).removesuffix(f"/{run}")
    project = snakemake.config["study"]
    return {"by": by, "folder": f"{root}/track", "project": project, "run": run} if by else None


def begin(job: Job) -> None:
    """What precedes a job's call. Raises what mofe.jobs.made.refuse does where an input is damaged
    or was made with other settings."""
    if job.outputs and _is_first():
        # what is made now has none until it is whole
        with contextlib.suppress(FileNotFoundError):
            os.remove(sums.path(job.outputs[0]))
    with contextlib.nullcontext() if job.loads else checksums.settled():
        made.refuse(job.read)


def execute(job: Job) -> int:
    """Make the call in this process. Returns 0, or 1 after an error.

    What the call prints goes to the job's log. The line that it returns, or an error's sentence,
    goes to the terminal. The log ends with an error's traceback, or with a JSON line: the seconds
    that it took to start (processes and imports) and to compute (benchmarks/study.py adds them up),
    and the hash of what it was made from (mofe/jobs/made.py). Refused are a machine without the
    GPUs that the job needs, and an input that is damaged or was made with other settings. Last of
    all the checksums of what was made are written.
    """
    line = None

    def call() -> None:
        nonlocal line
        if job.gpus:
            gpus.refuse(job.gpus)
        begin(job)
        line = _call(job)

    code = outcome.reported(job.label, job.log, call)
    if not code:
        outcome.say(f"{job.label}: {line or 'written'}")
    return code


def _call(job: Job) -> str | None:
    """The call itself, with the last line of its log and its checksums. Returns its line."""
    module, name = job.function.split(":")
    call = getattr(importlib.import_module(module), name)
    if torch := sys.modules.get("torch"):  # tables and figures do not import it
        # The same seed gives the same bits only for the same number of threads.
        torch.set_num_threads(job.threads)
    started = time.time()
    with _imports_aside(), checksums.settled():
        line = call(**job.arguments)
    # The call is not undone by a signal that comes now: what is left takes a moment.
    with stops.passed_over():
        if job.outputs and _is_first():
            sums.write(job.outputs)
        seconds = {"starting": started - job.asked, "computing": time.time() - started}
        noted = {"config_hash": job.config_hash} if job.config_hash else {}
        print(ending.finished(job.label, **noted, seconds=seconds), flush=True)
        if job.scratch and _is_first():
            discard(job.scratch)
    return line


@contextlib.contextmanager
def _imports_aside() -> Iterator[None]:
    """Objects that imports made are not searched for garbage meanwhile: that took a fifth of an
    evaluation, and in a fork it copies their pages. Afterwards they are, or the interpreter ends
    without freeing them, and libraries complain of it (Triton's nanobind)."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _is_first() -> bool:
    """Whether this is the first of a job's processes, or the only one."""
    return os.environ.get("RANK", "0") == "0"
