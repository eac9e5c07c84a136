"""What speaks for and against running a study on a machine: pure functions of what was found there.

Each returns findings: what was looked at, a verdict, a sentence, and a remedy where it is not "ok".
"""

from collections.abc import Iterable, Mapping
from typing import Any

from mofe import platforms, units
from mofe.jobs.doctor.here import Fetched, Held, Slurm
from mofe.jobs.gpus import too_old
from mofe.jobs.slurm.answers import SITE
from mofe.records import Finding, NodeFacts
from mofe.study.hardware import Gpu


def node(facts: NodeFacts, cuda: bool, wanted: Gpu) -> list[Finding]:
    """What the machine that jobs run on has. cuda: whether the study needs GPUs; wanted: the kind
    that it is planned for."""
    found = [_python(facts), _packages(facts)]
    found += _gpus(facts, wanted) if cuda else [_no_gpu_needed(facts)]
    if facts.nf4 is not None:
        found.append(_probe("4-bit weights", facts.nf4, "bitsandbytes works", "bitsandbytes"))
    if facts.fp8 is not None:
        found.append(_probe("8-bit weights", facts.fp8, "torch multiplies them", "torch"))
    return found


def _node(subject: str, verdict: str, told: str, remedy: str = "") -> Finding:
    return Finding(of="node", subject=subject, verdict=verdict, told=told, remedy=remedy)


def _here(subject: str, verdict: str, told: str, remedy: str = "") -> Finding:
    return Finding(of="here", subject=subject, verdict=verdict, told=told, remedy=remedy)


def _python(facts: NodeFacts) -> Finding:
    told = f"{facts.python} on {facts.host}"
    oldest = ".".join(map(str, platforms.OLDEST))
    if tuple(map(int, facts.python.split(".")[:2])) >= platforms.OLDEST:
        return _node("Python", "ok", told)
    return _node("Python", "fault", told, f"make PYTHON=... setup, with {oldest} or newer")


def _packages(facts: NodeFacts) -> Finding:
    if not facts.other_versions:
        return _node("packages", "ok", f"all as {facts.lock} pins them")
    told = units.first([f"{name} {what}" for name, what in facts.other_versions.items()])
    missing = any("not installed" in what for what in facts.other_versions.values())
    how = "make CUDA=12 setup" if facts.lock.startswith("cuda12") else "make setup"
    return _node("packages", "fault" if missing else "warning", told, how)


def _no_gpu_needed(facts: NodeFacts) -> Finding:
    return _node("GPUs", "ok", f"the study needs none; torch {facts.torch} computes on the CPU")


def _gpus(facts: NodeFacts, wanted: Gpu) -> list[Finding]:
    built = f"torch {facts.torch} is built for CUDA {facts.torch_cuda}"
    driver = f"driver {facts.driver}" if facts.driver else "no NVIDIA driver"
    old = too_old(facts.host, facts.driver, facts.torch, facts.torch_cuda)
    if not facts.gpus and old:
        return [_node("GPUs", "fault", old.told, old.remedy)]
    if not facts.gpus:
        how = "a newer driver, or a torch for this driver" if facts.driver else "a machine with one"
        told = f"{driver}; {built}; {facts.gpus_why}"
        return [
            _node("GPUs", "fault", f"torch can use none on {facts.host}: {told}", f"take {how}")
        ]
    names = units.listed(sorted({gpu.name for gpu in facts.gpus}))
    least = min(gpu.memory for gpu in facts.gpus)
    told = f"{len(facts.gpus)} of {units.gib(least)} ({names}), {driver}; {built}"
    if least // units.GIB < wanted.memory_gib:
        how = f"set hardware.gpu to the kind that is there; the plan is for {wanted.name}"
        found = [_node("GPUs", "fault", told, how)]
    elif all(gpu.name == wanted.cuda_name for gpu in facts.gpus):
        found = [_node("GPUs", "ok", told)]
    else:
        how = f"hours of the plan are for {wanted.name}; set hardware.gpu if there is that kind"
        found = [_node("GPUs", "warning", told, how)]
    how = "a C compiler on the node (gcc), or CC" if not facts.compiler else "Triton's cache"
    return [*found, _probe("Triton", facts.triton or "", "compiles and runs a kernel", how)]


def _probe(subject: str, failure: str, works: str, how: str) -> Finding:
    if failure:
        return _node(subject, "fault", failure, f"look at {how}; the jobs would fail by the same")
    return _node(subject, "ok", works)


def disk(needed: float, scratch: float, free: float, folder: str) -> Finding:
    """needed: bytes of what is not made yet; scratch: of the largest checkpoint meanwhile."""
    told = (
        f"{units.rough_size(needed)} are still to be written to {folder}, and up to "
        f"{units.rough_size(scratch)} meanwhile; {units.rough_size(free)} are free"
    )
    if needed + scratch <= free:
        return _here("disk", "ok", told)
    return _here("disk", "fault", told, "make room, or set 'results' to a folder on a larger disk")


def data(fetched: Iterable[Fetched], failure: str | None, mirror: str | None) -> list[Finding]:
    """failure: why the hub cannot be reached (empty where it can); None where nobody asked."""
    fetched = list(fetched)
    lacking = [one for one in fetched if one.why]
    if not fetched:
        return [_here("data", "ok", "the study generates its own")]
    if not lacking:
        return [_here("data", "ok", f"{len(fetched)} repositories are here, at their revisions")]
    told = f"{len(lacking)} of {len(fetched)} are not here: " + units.first(
        [f"{one.repo} (revision {one.revision}: {one.why})" for one in lacking]
    )
    if mirror:
        return [_here("data", "fault", told, f"add them to the mirror {mirror}")]
    if failure:
        how = "call prefetch where there is internet, or set 'mirror' to a copy"
        return [_here("data", "fault", f"{told}; the hub cannot be reached: {failure}", how)]
    return [_here("data", "warning", told, "snakemake --profile ... prefetch (the hub answers)")]


def checkpoints(held: Iterable[Held]) -> list[Finding]:
    """The locks on unfinished trainings."""
    return [_lock(one) for one in held] or [_here("checkpoints", "ok", "none is locked")]


def _lock(held: Held) -> Finding:
    told = f"{held.file}: of {held.owner}"
    match held.standing:
        case "stale":
            return _here("checkpoints", "ok", f"{told}, which is gone; the next run takes it over")
        case "live":
            how = f"wait for it, or stop it ({held.stop})"
            return _here("checkpoints", "warning", f"{told}, which is alive", how)
    how = f"the next run watches it for a minute; if it is alive, wait or stop it ({held.stop})"
    return _here("checkpoints", "warning", f"{told}; only watching tells if it is alive", how)


def runs(others: Iterable[str]) -> Finding:
    """Snakemake's own locks of other runs that make files of this study."""
    if not (others := list(others)):
        return _here("other runs", "ok", "none makes files of this study")
    how = "wait for that run; if there is none, call snakemake --unlock"
    return _here("other runs", "fault", f"locked: {units.first(others)}", how)


def cluster(slurm: Slurm, asked: Mapping[str, Any]) -> list[Finding]:
    """asked: the resources that the profile gives jobs."""
    if slurm.missing:
        how = "call the workflow on a login node, or load Slurm's module"
        return [_here("Slurm", "fault", f"there is no {units.listed(slurm.missing)} here", how)]
    if slurm.why:
        return [_here("Slurm", "fault", f"it does not answer: {slurm.why}", "try again later")]
    return [_partition(slurm, asked), _account(slurm, asked)]


def _partition(slurm: Slurm, asked: Mapping[str, Any]) -> Finding:
    partition, known = str(asked.get("slurm_partition", "")), slurm.partitions or {}
    if partition in known:
        return _here("Slurm's partition", "ok", f"{partition}, with {known[partition]}")
    told = f"there is no partition {partition!r}; there are {units.listed(sorted(known))}"
    return _here("Slurm's partition", "fault", told, f"correct it in {SITE}")


def _account(slurm: Slurm, asked: Mapping[str, Any]) -> Finding:
    account, partition = (str(asked.get(f"slurm_{key}", "")) for key in ("account", "partition"))
    if slurm.accounts is None:
        return _here("Slurm's account", "ok", "this Slurm keeps no accounts")
    if any(name == account and of in ("", partition) for name, of in slurm.accounts):
        return _here("Slurm's account", "ok", account)
    yours = units.listed(sorted({name for name, _ in slurm.accounts})) or "none"
    told = f"{account!r} is no account of yours for partition {partition!r}; you have {yours}"
    return _here("Slurm's account", "fault", told, f"correct it in {SITE}")
