"""The study that faults are injected into: made once by Snakemake, and copied for every fault."""

import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mofe import checksums

ROOT = Path(__file__).parents[2]
CONFIGS = ("config.yaml", "profiles/mini/study.yaml", "tests/faults/study.yaml")
RESULTS = "results/faults"
# What a checkout has that a run reads; a copy of the study links them.
LINKED = (
    "Snakefile",
    "config.yaml",
    "docs",
    "envs",
    "mofe",
    "profiles",
    "rules",
    "scripts",
    "tests",
)
LINKED += ("requirements.lock",)


@dataclass(frozen=True)
class Job:
    """A job as Snakemake would call it: the script, and the object `snakemake` that it gets."""

    script: Path
    snakemake: Any

    @property
    def rule(self) -> str:
        return self.snakemake.rule

    @property
    def name(self) -> str:
        """Its first output, or its rule where it has none."""
        return str(self.outputs[0]) if self.outputs else self.rule

    @property
    def inputs(self) -> list[str]:
        return [str(file) for file in self.snakemake.input]

    @property
    def outputs(self) -> list[str]:
        return [str(file) for file in self.snakemake.output]

    @property
    def log(self) -> str:
        return str(self.snakemake.log[0])


class Study:
    """The finished study in `folder`, which no fault touches."""

    def __init__(self, folder: Path):
        self.folder = folder

    @classmethod
    def make(cls, folder: Path, cores: int = 2) -> "Study":
        """Run it with Snakemake."""
        lay_out(folder)
        study = cls(folder)
        done = study.snakemake(folder, "--cores", str(cores))
        if done.returncode:
            raise RuntimeError(done.stdout[-3000:] + done.stderr[-3000:])
        return study

    @cached_property
    def jobs(self) -> dict[str, Job]:
        """Its jobs by their first output."""
        return {job.name: job for job in listed(self.folder) if job.outputs}

    @cached_property
    def on_demand(self) -> list[Job]:
        """The jobs that `all` does not need."""
        return listed(self.folder, targets=("verify",))

    @cached_property
    def for_gpus(self) -> dict[str, Job]:
        """The jobs of the same study for GPUs."""
        return {job.name: job for job in listed(self.folder, "device=cuda") if job.outputs}

    def making(self, file: str) -> Job:
        """The job that has this output."""
        return next(job for job in self.jobs.values() if file in job.outputs)

    def named(self, *rules: str) -> list[Job]:
        """The jobs of these rules."""
        return [job for job in self.jobs.values() if job.rule in rules]

    def made(self, job: Job) -> list[Path]:
        """The files that a job made, relative to the study's folder."""
        return [f.relative_to(self.folder) for o in job.outputs for f in files(self.folder / o)]

    def copy(self, folder: Path, without: Job | None = None, copy=os.link) -> Path:
        """A copy of the study, `without` what a job made. Files are linked, except logs, which are
        written in place: whoever damages a file must `own` it first."""
        lay_out(folder)
        shutil.copytree(
            self.folder / RESULTS,
            folder / RESULTS,
            copy_function=copy,
            ignore=lambda at, names: {"logs"} if Path(at) == self.folder / RESULTS else set(),
        )
        shutil.copytree(self.folder / RESULTS / "logs", folder / RESULTS / "logs")
        if without:
            forget(folder, without)
        return folder

    def snakemake(self, folder: Path, *arguments: str, **more: Any) -> subprocess.CompletedProcess:
        """Run Snakemake in a copy, as a user does."""
        return subprocess.run(
            command(*arguments), cwd=folder, capture_output=True, text=True, check=False, **more
        )


def command(*arguments: str) -> list[str]:
    """Snakemake's command of the study."""
    return [
        *(sys.executable, "-m", "snakemake", "--profile", "profiles/mini"),
        *("--configfile", *CONFIGS, *arguments),
    ]


def lay_out(folder: Path) -> None:
    """A folder to run the workflow in, with links to this checkout's code."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in LINKED:
        (folder / name).symlink_to(ROOT / name)


def forget(folder: Path, job: Job) -> None:
    """Remove what a job made, as Snakemake does before it runs a job again."""
    for output in job.outputs:
        path = folder / output
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    Path(folder, job.outputs[0] + ".sums").unlink(missing_ok=True)


def files(path: Path) -> list[Path]:
    """A file, or all files of a folder, in order, without Snakemake's own."""
    found = path.rglob("*") if path.is_dir() else [path]
    return sorted(f for f in found if not f.is_dir() and f.name != ".snakemake_timestamp")


def own(file: Path) -> None:
    """Give a copy's file an inode of its own, with the same times."""
    twin = file.with_name(f"{file.name}.twin")
    shutil.copy2(file, twin)
    os.replace(twin, file)


def sums(folder: Path) -> dict[str, str]:
    """The checksum of every file of a study's results but its logs."""
    results = folder / RESULTS
    return {
        str(f.relative_to(folder)): checksums.of(f)
        for f in files(results)
        if not f.is_relative_to(results / "logs")
    }


def listed(folder: Path, *config: str, targets: tuple[str, ...] = ()) -> list[Job]:
    """The jobs that Snakemake plans for the study in `folder`. config: KEY=VALUE as for
    --config."""
    code = [sys.executable, __file__, *config, "--", *targets]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(code, cwd=folder, capture_output=True, check=False, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr.decode()[-3000:])
    scripts = ROOT / "scripts"
    return [Job(scripts / script, given) for script, given in pickle.loads(done.stdout)]


def _list(config: dict[str, Any], targets: list[str]) -> None:
    """Write the jobs of the study in this folder to stdout, pickled. It has a process of its own,
    because Snakemake changes the environment and the loggers."""
    from snakemake import api
    from snakemake.script import Snakemake
    from snakemake.settings import types as settings

    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Snakemake prints
    with api.SnakemakeApi(settings.OutputSettings(dryrun=True)) as snakemake:
        api_workflow = snakemake.workflow(
            resource_settings=settings.ResourceSettings(cores=2),
            config_settings=settings.ConfigSettings(
                configfiles=[Path(file) for file in CONFIGS], config=config
            ),
            snakefile=Path("Snakefile"),
        )
        dag = api_workflow.dag(settings.DAGSettings(forceall=True, targets=frozenset(targets)))
        dag.execute_workflow(executor="dryrun")
        workflow = api_workflow._workflow
        jobs = [
            (
                Path(job.rule.script).name,
                Snakemake(
                    *(job.input, job.output, job.params, job.wildcards, job.threads, job.resources),
                    *(job.log, workflow.config, job.rule.name, None, None),
                ),
            )
            for job in workflow.dag.jobs
            if job.rule.script
        ]
    out.write(pickle.dumps(jobs))
    out.close()


if __name__ == "__main__":
    import yaml

    border = sys.argv.index("--")
    pairs = (argument.split("=", 1) for argument in sys.argv[1:border])
    _list({key: yaml.safe_load(value) for key, value in pairs}, sys.argv[border + 1 :])
