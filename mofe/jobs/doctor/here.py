"""Facts of where the workflow is called: disk, the hub and what was fetched, locks, Slurm."""

import os
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mofe.data import mirror
from mofe.study.plan import Plan
from mofe.training import lock

TIMEOUT = 10.0  # seconds that the hub, or one of Slurm's commands, may take


@dataclass(frozen=True)
class Fetched:
    """A repository that the study reads. why: why it cannot be read; empty where it can."""

    repo: str
    revision: str
    why: str = ""


@dataclass(frozen=True)
class Held:
    """A lock on a checkpoint. stop: the command that ends its owner; empty where it is not
    known."""

    file: str
    owner: str
    standing: lock.Standing
    stop: str = ""


@dataclass(frozen=True)
class Slurm:
    """A cluster, as its commands tell it. missing: its commands that are not there. partitions: by
    name, their generic resources. accounts: those of the user, with their partitions ("" for all);
    None without accounting. why: what a command failed by."""

    missing: tuple[str, ...] = ()
    partitions: dict[str, str] | None = None
    accounts: tuple[tuple[str, str], ...] | None = None
    why: str = ""


def fetched(plan: Plan) -> list[Fetched]:
    """Every repository that the study reads from the hub's folder or a mirror."""
    found = []
    for one in plan.of_all.repositories.values():
        try:
            folder = mirror.repository(plan.paths.model_mirror, one.repo, one.revision)
            mirror.files(folder)
            if not plan.study.mirror and mirror.manifest(folder) is None:
                raise FileNotFoundError("it was not fetched to its end")
        except (OSError, ValueError) as error:
            found.append(Fetched(one.repo, one.revision, str(error)))
        else:
            found.append(Fetched(one.repo, one.revision))
    return found


def hub_failure(endpoint: str) -> str:
    """Why the hub cannot be reached from here; empty where it can."""
    try:
        urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=TIMEOUT)
    except urllib.error.HTTPError:
        return ""  # it answers
    except OSError as error:
        return str(getattr(error, "reason", error))
    return ""


def locks(root: str) -> list[Held]:
    """The locks on the checkpoints of unfinished trainings."""
    folders = sorted(p for p in Path(root).glob("**/*checkpoint") if p.is_dir())
    held = [found for folder in folders if (found := lock.read(folder))]
    return [
        Held(str(h.file), str(h.owner or "unknown"), h.standing, h.owner.stop if h.owner else "")
        for h in held
    ]


def other_runs(folder: Path, ours: Iterable[str], root: str) -> list[str]:
    """Snakemake's locks in `folder` of other runs that make files below `root`; runs of other
    studies do not matter. ours: the files that this run locks."""
    mine, found = set(ours), []
    for file in sorted(folder.glob("*.output.lock")):
        try:
            locked = file.read_text().splitlines()
        except FileNotFoundError:  # that run has ended meanwhile
            continue
        if not mine.intersection(locked) and any(f.startswith(f"{root}/") for f in locked):
            found.append(str(file))
    return found


def slurm() -> Slurm:
    """What Slurm's commands tell."""
    commands = ("sbatch", "squeue", "scancel", "sinfo", "scontrol")
    if missing := tuple(c for c in commands if not shutil.which(c)):
        return Slurm(missing=missing)
    try:
        lines = _said("sinfo", "--noheader", "-o", "%R|%G").splitlines()
        partitions = dict(line.strip().split("|", 1) for line in lines)
        return Slurm(partitions=partitions, accounts=_accounts())
    except (subprocess.SubprocessError, OSError) as error:
        told = getattr(error, "stderr", None) or str(error)
        return Slurm(why=" ".join(told.split()))


def _accounts() -> tuple[tuple[str, str], ...] | None:
    if "accounting_storage/slurmdbd" not in _said("scontrol", "show", "config"):
        return None
    user = _said("id", "-un").strip()
    asked = ("sacctmgr", "-nP", "show", "assoc", f"user={user}", "format=account,partition")
    return tuple(tuple(line.split("|")) for line in _said(*asked).splitlines())


def _said(*command: str) -> str:
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=TIMEOUT, env=dict(os.environ)
    ).stdout
