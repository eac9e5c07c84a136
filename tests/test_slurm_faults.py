"""What a run on a real Slurm survives: a controller and a database that are away, lost and preempted
nodes, signals, and a Snakemake that died. Its jobs only wait (tests/cluster); that trainings go on
from their checkpoints is in tests/test_slurm.py."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import slurm
from conftest import ROOT

from test_slurm import FOR_EVER, memory_mb, minutes, no_slurm, site  # isort: skip

pytestmark = pytest.mark.slurm
# Longer than all that gave up in the plugin: its questions (60 s), and what it took for an end of
# the controller (75 s). `make faults` has the ten minutes.
AWAY = int(os.environ.get("MOFE_SLURM_AWAY", "80"))


def started(name: str, **settings) -> Iterator[slurm.Slurm]:
    no_slurm(settings.get("accounting", False))
    running = slurm.Slurm(Path(f"/tmp/mofe-slurm-{name}-{os.getpid()}"), **settings)
    running.start()
    yield running
    running.stop()
    shutil.rmtree(running.folder)


@pytest.fixture(scope="module")
def cluster() -> Iterator[slurm.Slurm]:
    """A Slurm without accounting."""
    yield from started("alone")


@pytest.fixture(scope="module")
def accounting() -> Iterator[slurm.Slurm]:
    """A Slurm with accounting, whose controller forgets jobs as soon as they have ended."""
    yield from started("accounting", accounting=True, min_job_age=2)


class Run:
    """Calls of Snakemake for tests/cluster, with a results folder of their own."""

    def __init__(self, cluster: slurm.Slurm, root: Path):
        self.cluster, self.root, self.results = cluster, root, root / "results"
        self.results.mkdir(parents=True)

    def start(self, *arguments: str, **keys: object) -> None:
        """Call Snakemake. keys: of the site's file, besides those of the tests' Slurm."""
        self.told = self.root / f"told-{len(list(self.root.glob('told-*')))}"
        self.child = subprocess.Popen(
            ["timeout", "-k", "10", FOR_EVER, *self.command(*arguments)],
            cwd=ROOT,
            env=self.environment(**keys),
            stdout=self.told.open("w"),
            stderr=subprocess.STDOUT,
        )

    def command(self, *arguments: str) -> list[str]:
        return [
            *[sys.executable, "-m", "snakemake", "--profile", "profiles/slurm"],
            *["--snakefile", str(ROOT / "tests/cluster/Snakefile"), "--directory", str(self.root)],
            *["--config", f"results={self.results}"],
            # its jobs write no checksums, by which mofe/jobs/unnoticed.py keeps what is whole
            "--keep-incomplete",
            *["--slurm-init-seconds-before-status-checks", "3", *arguments],
        ]

    def environment(self, **keys: object) -> dict[str, str]:
        return {**self.cluster.environment, **site(self.root, **keys), "PYTHONPATH": str(ROOT)}

    def jobs(self, *targets: str) -> None:
        """Start a run that makes these."""
        self.start("--", *(str(self.results / target) for target in targets))

    def how(self, name: str, what: str) -> None:
        (self.results / f"{name}.how").write_text(what)

    def go(self, *names: str) -> None:
        for name in names:
            (self.results / f"{name}.go").touch()

    def runs(self, name: str) -> list[tuple[str, str]]:
        """What the attempts of a job noted: started, ended or stopped, and Slurm's number."""
        file = self.results / f"{name}.runs"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(line.split()[0], line.split()[1]) for line in lines]

    def wait(self, condition: Callable[[], object]) -> None:
        while not condition():
            assert self.child.poll() is None, self.output()
            time.sleep(0.3)

    def started(self, *names: str, times: int = 1) -> None:
        self.wait(lambda: all(self._starts(name) >= times for name in names))

    def _starts(self, name: str) -> int:
        return sum(what == "started" for what, _ in self.runs(name))

    def ends(self, code: int = 0) -> str:
        assert self.child.wait() == code, self.output()
        return self.output()

    def output(self) -> str:
        return self.told.read_text()

    def pid(self) -> int:
        """Snakemake's process, below `timeout`."""
        return int(Path(f"/proc/{self.child.pid}/task/{self.child.pid}/children").read_text())

    def records(self, number: str) -> dict[str, str]:
        return next(job for job in self.cluster.jobs() if job["JobId"] == number)


@pytest.fixture
def run(cluster, tmp_path) -> Run:
    return Run(cluster, tmp_path)


def test_a_controller_that_is_away_is_waited_for(cluster, accounting, tmp_path):
    """At the status of jobs and at a submission. A job ends meanwhile, and with accounting the
    database is away as well."""
    runs = [Run(each, tmp_path / each.folder.name) for each in (cluster, accounting)]
    for run in runs:
        run.jobs("cpu/a", "cpu/b", "after/c")
    for run in runs:
        run.started("a", "b")
        run.cluster.stop_controller()
    accounting.stop_database()
    for run in runs:
        run.go("a", "c")  # c on this machine, so that a submission falls into the silence
    time.sleep(AWAY)
    for run in runs:
        assert run.child.poll() is None, run.output()
    accounting.start_database()
    for run in runs:
        run.cluster.start_controller()
        run.go("b", "after-c")
    for run in runs:
        told = run.ends()
        assert "Slurm does not answer" in told and "Slurm answers again" in told
        for name in ("a", "b", "after-c"):
            assert [what for what, _ in run.runs(name)] == ["started", "ended"], name


def test_a_submission_whose_answer_was_lost_is_not_repeated(cluster, run, tmp_path):
    """sbatch says that Slurm does not answer, after Slurm has taken the job."""
    real = shutil.which("sbatch", path=cluster.environment["PATH"])
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "sbatch").write_text(
        f'#!/bin/sh\n[ -e {folder}/once ] && exec {real} "$@"\ntouch {folder}/once\n'
        f'{real} "$@" >/dev/null && echo "sbatch: error: Socket timed out on send/recv operation" >&2\n'
        "exit 1\n"
    )
    (folder / "sbatch").chmod(0o755)
    path = os.environ["PATH"]
    run.cluster = _WithPath(cluster, folder)
    run.go("a")
    run.jobs("cpu/a")
    told = run.ends()
    assert "Slurm has taken the job as" in told
    assert [what for what, _ in run.runs("a")] == ["started", "ended"]
    assert os.environ["PATH"] == path


class _WithPath:
    """A cluster whose commands are looked for in one more folder first."""

    def __init__(self, cluster: slurm.Slurm, folder: Path):
        found = cluster.environment
        self.environment = {**found, "PATH": f"{folder}:{found['PATH']}"}


def test_what_follows_an_end_depends_on_its_cause(cluster, run):
    """Out of memory, cancelled, a lost node, a preempted job, a refusal, and a job that is stopped
    after all its work, in one run. One of Slurm's jobs is for three, and ends with one of them."""
    run.how("memory", "memory")
    run.how("large", "memory")
    run.go("large", "one", "two")
    run.how("lingers", "linger")
    run.go("lingers")
    run.how("refuses", "refuse")
    targets = ("cpu/memory", "cpu/cancelled", "cpu/refuses", "cpu/lingers")
    three = ("one", "two", "large")
    run.jobs(*targets, "train/lost", "train/preempted", *(f"evaluate/v/s0/{n}" for n in three))
    run.started("cancelled", "lost", "preempted", "memory", "lingers")
    names = ("cancelled", "lost", "preempted")
    first = {name: run.runs(name)[0][1] for name in names}
    cluster.run("scancel", first["cancelled"])
    run.wait(lambda: len(run.runs("lingers")) == 2)
    cluster.run("scancel", run.runs("lingers")[0][1])
    # Slurm puts a job that is preempted back under its number: here the three have to end by memory
    run.wait(lambda: "ended" in (what for what, _ in run.runs("large")))
    urgent = ["sbatch", "--parsable", "--account=lab", "--partition=urgent", "--output=/dev/null"]
    every_gpu = ["--nodes=2", "--gpus-per-node=3", "--wrap=sleep 3600"]
    taker = cluster.run(*urgent, *every_gpu).strip()
    run.started("cancelled", "memory", times=2)
    back = {first["lost"], first["preempted"]}
    run.wait(lambda: back <= set(cluster.run("squeue", "-h", "-t", "PENDING", "-o", "%i").split()))
    cluster.run("scancel", taker)
    run.started("lost", "preempted", times=2)
    node = run.records(first["lost"])["NodeList"]
    cluster.kill_node(node)
    run.started("lost", times=3)
    cluster.start_node(node)
    run.go("memory", *names)
    told = run.ends(1)
    assert len(run.runs("refuses")) == 1
    assert "Another attempt would end the same" in told
    assert not (run.results / "cpu/refuses").exists()
    assert [what for what, _ in run.runs("lingers")] == ["started", "ended"]
    for name in ("memory", *names):
        assert run.runs(name)[-1][0] == "ended"
    numbers = {number for name in three for _, number in run.runs(name)}
    assert len(numbers) == 2, "one job for the three, and it again"
    largest = run.records(max(numbers, key=int))
    assert (memory_mb(largest), minutes(largest)) == (1200, 180)
    assert all(run.runs(name)[-1][0] == "ended" for name in three)
    asked = {}
    for name in ("memory", *names):
        record = run.records(run.runs(name)[-1][1])
        asked[name] = (memory_mb(record), minutes(record))
    assert asked == {"memory": (1200, 60), **dict.fromkeys(names, (600, 60))}


@pytest.mark.parametrize(
    "key, value, told",
    [
        ("cpu_partition", "nowhere", "Invalid partition name specified; correct partition"),
        ("account", "nobody", "Invalid account or account/partition combination"),
    ],
)
def test_a_mistake_in_the_sites_file_is_submitted_once(accounting, tmp_path, key, value, told):
    run = Run(accounting, tmp_path)
    run.start("--", str(run.results / "cpu/a"), **{key: value})
    output = run.ends(1)
    assert output.count(told) == 1 and "Another attempt would end the same" in output
    assert not run.runs("a")


def test_a_stopped_run_leaves_no_job_and_the_next_one_goes_on(cluster, run):
    """Ctrl-C, SIGTERM, and a Snakemake that died, after which its jobs run on."""
    targets = ("cpu/a", "cpu/b", "train/c")
    for times, number in enumerate((signal.SIGINT, signal.SIGTERM), start=1):
        run.jobs(*targets)
        run.started("a", "b", "c", times=times)
        os.kill(run.pid(), number)
        run.ends(1)
        assert not in_queue(cluster), "it waited for the end of its jobs"
        for name in "abc":
            assert [what for what, _ in run.runs(name)] == ["started", "stopped"] * times
    run.jobs(*targets)
    run.started("a", "b", "c", times=3)
    os.kill(run.pid(), signal.SIGKILL)
    run.child.wait()
    run.start("--unlock", "--", str(run.results / "cpu/a"))
    run.ends()
    run.jobs(*targets)
    told = run.ends(1)
    assert "Jobs of an earlier run still wait or run" in told and "scancel --name=mofe" in told
    running = {run.runs(name)[-1][1] for name in "abc"}
    assert running <= set(re.findall(r"\d+", told))
    run.go("a", "b", "c")
    while in_queue(cluster):
        time.sleep(0.3)
    run.jobs(*targets)
    run.ends()
    for name in "abc":
        what = [what for what, _ in run.runs(name)][4:]
        assert what in (["started", "ended"], ["started", "ended"] * 2), "never two at once"


def in_queue(cluster: slurm.Slurm) -> str:
    return cluster.run("squeue", "-h", "-o", "%i %T").strip()


# ------------------------------------------------------------------------------ sites' own ways


def test_snakemake_as_a_job_on_a_site_with_gres_modules_and_mail(cluster, run):
    """Nothing runs on the login node but sbatch; GPUs are asked for by --gres, a module is loaded before
    each job, and mail comes at their ends."""
    modules = run.root / "modules.sh"
    modules.write_text(f'module() {{ echo "$* for ${{SLURM_JOB_ID}}" >> {run.root}/loaded; }}\n')
    site = {
        "gpu_option": "gres",
        "before": f". {modules} && module load gcc",
        "sbatch": "--mail-type=END --mail-user=me@home",
        "profile": {"jobs": 2},
    }
    run.go("a", "b")
    targets = [str(run.results / target) for target in ("cpu/a", "train/b")]
    wrapped = shlex.join(run.command("--", *targets))
    submit = ["sbatch", "--parsable", "--wait", "-p", "cpu", "-o", str(run.root / "told-0")]
    submit += ["--mail-type=END", "--mail-user=me@home", "--mem=2000", "--wrap", wrapped]
    environment = run.environment(**site)
    done = subprocess.run(
        submit, cwd=ROOT, env=environment, check=False, capture_output=True, text=True
    )
    told = (run.root / "told-0").read_text()
    assert done.returncode == 0, told + done.stderr
    (_, a), *_ = run.runs("a")
    (_, b), *_ = run.runs("b")
    assert len({done.stdout.strip(), a, b}) == 3
    record = run.records(b)
    assert record["TresPerNode"] == "gres:gpu:a100:1" and "TresPerJob" not in record
    assert record["Partition"] == "gpu" and run.records(a)["Partition"] == "cpu"
    loaded = (run.root / "loaded").read_text().splitlines()
    assert sorted(loaded) == sorted(f"load gcc for {number}" for number in (a, b))
    jobs, until = (done.stdout.strip(), a, b), time.monotonic() + 600
    while not all(f"Job_id={number} " in cluster.mail() for number in jobs):
        assert time.monotonic() < until, cluster.mail()
        time.sleep(0.2)
