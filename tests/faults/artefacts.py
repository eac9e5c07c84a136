"""Faults of artefacts: a file of a finished study is damaged, and each job that reads it is run."""

import os
import random
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from tests.faults import damage, judge
from tests.faults.fault import Ending, Fault, NotReached, Outcome
from tests.faults.process import run
from tests.faults.study import RESULTS, Job, Study, files
from tests.faults.watch import Watch

READ = "A damaged artefact is named by whoever reads it"
REMADE = "The command that is told makes a damaged artefact again"
VERIFIED = "`verify` finds each damaged file"
SWAPPED = "another's content"
KINDS = (*damage.CONTENT, "deleted", SWAPPED)
BETWEEN = " read by "  # a target: the file, and the reader's first output
PER_READER, PER_FILE = 3, 2  # kinds of damage


def faults(seed: int, study: Study) -> list[Fault]:
    """The faults of artefacts that a seed draws: some kinds of damage of each kind of file by each
    kind of reader, some of each kind of file for `verify`, and for each maker a command."""
    rng = random.Random(f"artefacts {seed}")
    found, remade, kinds = [], [], defaultdict(list)
    for (maker, suffix, _), pairs in _pairs(study).items():
        kinds[maker, suffix] += [file for file, _ in pairs]
        for kind in rng.sample(KINDS, PER_READER):
            file, reader = rng.choice(pairs)
            target = f"{file}{BETWEEN}{reader}"
            found.append(_fault(rng, READ, kind, target))
    for files_of_kind in kinds.values():
        for kind in rng.sample(KINDS, PER_FILE):
            found.append(_fault(rng, VERIFIED, kind, rng.choice(files_of_kind)))
    makers = {maker for maker, _ in kinds}
    for maker in sorted(makers):
        pairs = [p for (m, s, _), ps in _pairs(study).items() if m == maker for p in ps]
        file, reader = rng.choice(sorted(pairs))
        remade.append(_fault(rng, REMADE, rng.choice(KINDS), f"{file}{BETWEEN}{reader}"))
    return found + remade


def _fault(rng: random.Random, promise: str, kind: str, target: str) -> Fault:
    return Fault("artefacts", promise, kind, target, "", rng.random(), rng.getrandbits(30))


def _pairs(study: Study) -> dict[tuple[str, str, str], list[tuple[str, str]]]:
    """Files that a job made with the jobs that read them, by the rule that made them, their suffix,
    and the reader's rule. The files of checksums are among them."""
    makers = {output: job for job in study.jobs.values() for output in job.outputs}
    found = defaultdict(list)
    for reader in study.jobs.values():
        for address in dict.fromkeys(reader.inputs):
            if not (maker := makers.get(address)):
                continue
            made = [f.relative_to(study.folder) for f in files(study.folder / address)]
            made.append(Path(f"{maker.outputs[0]}.sums"))
            for file in made:
                if (study.folder / file).exists():
                    pair = (str(file), reader.name)
                    found[maker.rule, _suffix(file), reader.rule].append(pair)
    return {key: sorted(set(pairs)) for key, pairs in sorted(found.items())}


def _suffix(file: Path) -> str:
    return "".join(file.suffixes[-2:]) if file.suffix in (".gz", ".sums") else file.suffix


def try_fault(fault: Fault, study: Study, at: Path) -> Outcome:
    """Damage a file, have it read, and judge."""
    shutil.rmtree(at, ignore_errors=True)
    at.mkdir(parents=True)
    try:
        return {READ: _read, REMADE: _remade, VERIFIED: _verified}[fault.promise](fault, study, at)
    finally:
        shutil.rmtree(at)


def _harm(fault: Fault, study: Study, folder: Path, file: Path) -> None:
    """Damage a copy's file."""
    keep_time = fault.moment < 0.5
    if fault.kind == "deleted":
        (folder / file).unlink()
    elif fault.kind == SWAPPED:
        rng, known = random.Random(fault.seed), (study.folder / file).read_bytes()
        others = [
            f.relative_to(study.folder)
            for f in files(study.folder / RESULTS)
            if f.suffix == file.suffix and "logs" not in f.parts and f.read_bytes() != known
        ]
        if not others:  # the only one of its kind
            damage.change(folder / file, "a flipped bit", fault.seed, keep_time)
            return
        stat = (folder / file).stat()
        (folder / file).unlink()
        shutil.copyfile(study.folder / rng.choice(others), folder / file)
        if keep_time:
            os.utime(folder / file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    elif not damage.change(folder / file, fault.kind, fault.seed, keep_time):
        damage.change(folder / file, "bytes added", fault.seed, keep_time)
        if not (folder / file).stat().st_size:  # it is empty by nature
            (folder / file).write_bytes(b"\0")


def _read(fault: Fault, study: Study, at: Path) -> Outcome:
    file, reader = fault.target.split(BETWEEN)
    job = study.jobs[reader]
    folder = study.copy(at / "copy", without=job)
    _harm(fault, study, folder, Path(file))
    ended = run(job, folder, Watch((), at / "report"), _beside if fault.seed % 2 else _before)
    told = f"({ended.code}): {ended.end}"
    if judge.has_traceback(ended):
        return Outcome(fault, Ending.TRACEBACK, told)
    if ended.code is None:
        return Outcome(fault, Ending.DEAD_END, told)
    if ended.code == 0:
        wrong = judge.differs(study, folder, job)
        return Outcome(fault, Ending.SILENT, f"used; {wrong or 'the same results'}; {told}")
    if file not in ended.text:
        return Outcome(fault, Ending.UNNAMED, f"the file is not named {told}")
    if not _command(ended.text):
        return Outcome(fault, Ending.UNNAMED, f"no command is told {told}")
    if any((folder / output).exists() for output in job.outputs):
        return Outcome(fault, Ending.SILENT, f"outputs are there {told}")
    return Outcome(fault, Ending.KEPT, told)


def _command(text: str) -> str | None:
    """The command that a message tells to make files again."""
    found = re.search(r"snakemake [^\n]*--forcerun [^\n;]*?(?=$|[;,] | \(see )", text, re.MULTILINE)
    return found.group().rstrip(".") if found else None


def _remade(fault: Fault, study: Study, at: Path) -> Outcome:
    """A reader is run by Snakemake, and then the command that its message tells."""
    file, reader = fault.target.split(BETWEEN)
    folder = study.copy(at / "copy", without=study.jobs[reader])
    shutil.copytree(study.folder / ".snakemake" / "metadata", folder / ".snakemake" / "metadata")
    _harm(fault, study, folder, Path(file))
    first = study.snakemake(folder, "--", reader)
    text = first.stdout + first.stderr
    if first.returncode == 0:
        # Snakemake makes a deleted output again by itself
        return _same(fault, study, folder, text)
    if file not in text:
        return Outcome(fault, Ending.UNNAMED, text[-1500:])
    if not (command := _command(text)):
        return Outcome(fault, Ending.UNNAMED, f"no command: {text[-1500:]}")
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    again = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": path},
    )
    text = f"{command}\n{again.stdout[-800:]}{again.stderr[-1500:]}"
    if again.returncode:
        return Outcome(fault, Ending.DEAD_END, text)
    after = study.snakemake(folder, "--", reader)
    if after.returncode:
        return Outcome(fault, Ending.DEAD_END, f"{text}{after.stdout[-800:]}{after.stderr[-1500:]}")
    return _same(fault, study, folder, text)


def _same(fault: Fault, study: Study, folder: Path, text: str) -> Outcome:
    """Whether the damaged file's maker and its reader made what they had made."""
    file, reader = fault.target.split(BETWEEN)
    for job in (_maker(study, file), study.jobs[reader]):
        if job.rule not in ("figure", "report") and (wrong := judge.differs(study, folder, job)):
            return Outcome(fault, Ending.SILENT, f"{wrong}: {text[-1500:]}")
    return Outcome(fault, Ending.KEPT, text[-300:])


def _maker(study: Study, file: str) -> Job:
    """The job that made a file."""
    for job in study.jobs.values():
        if file == f"{job.outputs[0]}.sums" or any(
            file == output or Path(output) in Path(file).parents for output in job.outputs
        ):
            return job
    raise NotReached(f"{file}: nothing makes it")


def _before(watch: Watch) -> None:
    """Weights are hashed before the call, as small files are."""


def _beside(watch: Watch) -> None:
    """Weights are hashed while they are loaded, as large files are."""
    from mofe import checksums

    checksums.LARGE = 0


def _verified(fault: Fault, study: Study, at: Path) -> Outcome:
    """`verify` by Snakemake, which must fail and name the file."""
    folder = study.copy(at / "copy")
    _harm(fault, study, folder, Path(fault.target))
    verify = next(job for job in study.on_demand if job.rule == "verify")
    ended = run(verify, folder, Watch((), at / "report"))
    told = f"({ended.code}): {ended.end}"
    if judge.has_traceback(ended):
        return Outcome(fault, Ending.TRACEBACK, told)
    summed = fault.target.removesuffix(".sums")
    if fault.kind == "deleted" and summed != fault.target:
        # it is told as of an earlier version
        named = "1 without checksums" in ended.text and summed in ended.text
        found = Ending.KEPT if named else Ending.UNNAMED
        return Outcome(fault, found if ended.code else Ending.SILENT, told)
    if ended.code == 0:
        return Outcome(fault, Ending.SILENT, told)
    shown = ended.text + (folder / verify.log).read_text()
    if fault.target not in shown or not _command(ended.text):
        return Outcome(fault, Ending.UNNAMED, told)
    return Outcome(fault, Ending.KEPT, told)
