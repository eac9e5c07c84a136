"""The workflow on a real Slurm: which jobs ran where, with what, and what survives a time limit or a
cancellation. Everything is read from Slurm's own records."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import slurm
import yaml
from conftest import CONFIG, HOLD, MINI, REDUCED, ROOT, cannot, hold, logged

from mofe.estimate.cost import Costs
from mofe.study.load import read_study
from mofe.study.plan import Plan

pytestmark = pytest.mark.slurm
PROFILE = ROOT / "profiles" / "slurm"
EACH = "slurm_extra: \"'--gpus-per-node=a100:1'\""
TWO_NODES = f"gpu: 2, nodes: 2, mpi: srun, tasks_per_node: 2, {EACH}"  # as docs/slurm.md has it
LIMITED, CANCELLED = "medmcqa_freeze2", "medmcqa_freeze1"
# Both are held after two of their four steps until they are stopped, on machines of any speed.
EPOCHS, HELD = 2, 2
STOPPED = {"recipes": {r: {"training": {"epochs": EPOCHS}} for r in ("freeze2", "freeze1")}}
FOR_EVER = "3600"  # seconds; no test waits for it


def no_slurm(accounting: bool = False) -> None:
    """Skip, or fail with MOFE_REQUIRE_SLURM, where no Slurm can be started."""
    lacking = slurm.missing(accounting)
    why = f"{', '.join(lacking)} not found" if lacking else None
    if os.geteuid() != 0:
        why = "its daemons are started by root"
    if why:
        cannot(f"no Slurm can be started: {why} (docs/slurm.md)", "MOFE_REQUIRE_SLURM")


SITE = {
    "account": slurm.ACCOUNT,
    "partition": "gpu",
    "constraint": "a100_80g",
    "cpu_partition": "cpu",
}


def site(folder: Path, **more: object) -> dict[str, str]:
    """The variable that names a site's file in this folder: SITE, and more keys."""
    file = folder / "site.yaml"
    file.write_text(yaml.safe_dump({**SITE, **more}))
    return {"MOFE_SITE": str(file)}


def profile(folder: Path, edit: Callable[[str], str] = str) -> str:
    """profiles/slurm, with changes to its text, as a copy in this folder."""
    copy = folder / "profile"
    shutil.copytree(PROFILE, copy, dirs_exist_ok=True)
    (copy / "config.yaml").write_text(edit((PROFILE / "config.yaml").read_text()))
    return str(copy)


@pytest.fixture(scope="module")
def cluster() -> Iterator[slurm.Slurm]:
    no_slurm()
    running = slurm.Slurm(Path(f"/tmp/mofe-slurm-test-{os.getpid()}"))
    running.start()
    yield running
    running.stop()
    shutil.rmtree(running.folder)


class Study:
    """The reduced mini study through profiles/slurm."""

    def __init__(self, cluster: slurm.Slurm, root: Path):
        self.cluster, self.results, self.root = cluster, root / "results", root
        self.overlay = root / "overlay.yaml"
        self.overlay.write_text(yaml.safe_dump({"results": str(self.results), **STOPPED}))
        self.files = [CONFIG, MINI, REDUCED, self.overlay]
        self.plan = Plan(read_study(*self.files))
        self.before = self.asked()

    def asked(self) -> dict[str, set[tuple[int, int]]]:
        """Minutes and memory that the plan asks for now, by rule. Models that were made and runs that
        finished make its estimates better."""
        costs, plan = Costs(self.plan), self.plan
        estimates = {
            "pretrain": [costs.train_expert("tinyllama")],
            "train": [costs.train(v) for v in plan.trained.values()],
        }
        once = {
            rule: {(estimate.needs.runtime, estimate.needs.mem_mb) for estimate in found}
            for rule, found in estimates.items()
        }
        together = set()  # all tasks of a model
        for key, tasks in plan.tasks.items():
            needs = [costs.evaluate(plan.variants[key], task).needs for task in tasks]
            together.add((sum(n.runtime for n in needs), max(n.mem_mb for n in needs)))
        return {**once, "evaluate": together}

    def start(self, *arguments: str, edit: Callable[[str], str] = str):
        return subprocess.Popen(
            [
                *["timeout", "-k", "10", FOR_EVER, sys.executable, "-m", "snakemake"],
                *["--profile", profile(self.root, edit), "--configfile", *map(str, self.files)],
                # a cluster need not be asked as soon
                *["--slurm-init-seconds-before-status-checks", "3", *arguments],
            ],
            cwd=ROOT,
            env={**self.cluster.environment, **site(self.root), "PYTHONPATH": str(HOLD)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, **keywords) -> str:
        child = self.start(*arguments, **keywords)
        told, _ = child.communicate()
        assert child.returncode == 0, told[-6000:]
        return told

    def jobs(self, rule: str) -> list[dict[str, str]]:
        """Slurm's records of a rule's jobs, oldest first, also of those that are for several."""
        marked = re.compile(rf"rule_{rule}(_wildcards|\s|$)|rule_\S+_{rule}(\s|$)")
        found = [job for job in self.cluster.jobs() if marked.match(job["Comment"])]
        return sorted(found, key=lambda job: int(job["JobId"]))

    def trainings(self, recipe: str) -> list[dict[str, str]]:
        return [job for job in self.jobs("train") if f"_{recipe}_" in job["Comment"]]

    def checkpoint(self, stages: str) -> Path:
        variant = self.plan.variants[f"tinyllama_4tinyllama/{stages}"]
        return Path(self.plan.paths.variant_dir(variant, 0), "checkpoint")


@pytest.fixture(scope="module")
def study(cluster, tmp_path_factory) -> Study:
    """Tables 1 and 7. Meanwhile one training gets a time limit that it exceeds, another is
    cancelled."""
    study = Study(cluster, tmp_path_factory.mktemp("slurm"))
    for stages in (LIMITED, CANCELLED):
        hold(study.checkpoint(stages), HELD)
    child = study.start("--", *(f"{study.results}/table{n}.tex" for n in (1, 7)))
    told: list[str] = []
    reader = threading.Thread(target=lambda: told.extend(child.stdout))
    reader.start()

    def when(condition: Callable[[], object], then: Callable[[], object]) -> None:
        while not condition():
            assert child.poll() is None, "".join(told)[-6000:]
            time.sleep(0.5)
        then()

    def waits(stages: str) -> bool:
        return logged(study.checkpoint(stages)) == HELD

    def job(recipe: str) -> str:
        return study.trainings(recipe)[0]["JobId"]

    when(lambda: waits(LIMITED), lambda: cluster.run(*limit(job(LIMITED))))
    when(lambda: waits(CANCELLED), lambda: cluster.run("scancel", job(CANCELLED)))
    child.wait()
    reader.join()
    assert child.returncode == 0, "".join(told)[-6000:]
    return study


def limit(job: str) -> list[str]:
    return ["scontrol", "update", f"JobId={job}", "TimeLimit=1"]


def test_the_tables_are_made(study):
    for number in (1, 7):
        assert (study.results / f"table{number}.tex").stat().st_size > 100


def test_trainings_and_evaluations_ran_on_a100_nodes_with_what_the_plan_asks(study):
    after = study.asked()
    for rule, before in study.before.items():
        jobs = [job for job in study.jobs(rule) if job["TimeLimit"] != "00:01:00"]
        assert jobs
        for job in jobs:
            assert job["Partition"] == "gpu" and job["NodeList"].startswith("gpu")
            assert job["Features"] == "a100_80g" and job["NumNodes"] == "1"
            assert gpus(job) == "gres:gpu:a100:1"
        first = {(minutes(job), memory_mb(job)) for job in jobs if not again(study, rule, job)}
        assert first <= before | after[rule], rule
    assert len(study.jobs("train")) == 11 + 2
    assert len(list(study.results.glob("evals/*/*/s0/*.json"))) == 18 + 5
    assert len(study.jobs("evaluate")) == 9 + 5, "one for all tasks of a model"


def again(study: Study, rule: str, job: dict[str, str]) -> bool:
    """Whether it is another attempt at what an earlier job was to make."""
    before = study.jobs(rule)[: study.jobs(rule).index(job)]
    return job["Comment"] in {entry["Comment"] for entry in before}


def gpus(job: dict[str, str]) -> str:
    return job["TresPerJob"].strip()


def minutes(job: dict[str, str]) -> int:
    hours, mins, _ = map(int, re.fullmatch(r"(\d+):(\d+):(\d+)", job["TimeLimit"]).groups())
    return 60 * hours + mins


def memory_mb(job: dict[str, str]) -> int:
    amount, unit = re.search(r"mem=([\d.]+)([MG])", job["TRES"]).groups()
    return round(float(amount) * (1024 if unit == "G" else 1))


def test_other_jobs_ran_on_cpu_nodes_without_gpus(study):
    for rule in ("world", "prepare_data", "questions", "merge", "table"):
        assert study.jobs(rule)
        for job in study.jobs(rule):
            assert job["Partition"] == "cpu" and job["NodeList"].startswith("cpu"), rule
            assert "TresPerJob" not in job and "gpu" not in job["TRES"]


@pytest.mark.parametrize("stages, state", [(LIMITED, "TIMEOUT"), (CANCELLED, "CANCELLED")])
def test_a_stopped_training_is_submitted_again_and_goes_on(study, stages, state):
    first, *_, last = study.trainings(stages)
    assert (first["JobState"], last["JobState"]) == (state, "COMPLETED")
    variant = study.plan.variants[f"tinyllama_4tinyllama/{stages}"]
    once = study.before["train"] | study.asked()["train"]
    longer = 2 if stages == LIMITED else 1
    assert (minutes(last) / longer, memory_mb(last)) in once, "time grows after a time limit only"
    record = json.loads(Path(study.plan.paths.train_json(variant, 0)).read_text())
    assert record["resumed"] == 1
    log = Path(study.plan.paths.loss_log(variant, 0)).read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == list(range(1, record["steps"] + 1))


def test_a_second_call_submits_nothing(study):
    before = len(study.cluster.jobs())
    told = study.run("--", *(f"{study.results}/table{n}.tex" for n in (1, 7)))
    assert "Nothing to be done" in told
    assert len(study.cluster.jobs()) == before


def records(study: Study, variant: str) -> dict[str, object]:
    """What an evaluation found on each task, without its time, and the bytes of its answers."""
    found = {}
    for file in Path(study.results, "evals", variant, "s0").glob("*"):
        if file.suffix == ".json":
            found[file.name] = {**json.loads(file.read_text()), "seconds": None}
        elif file.suffix == ".gz":
            found[file.name] = file.read_bytes()
    return found


def test_what_failed_of_a_models_tasks_is_asked_again_alone_and_gives_the_same(study):
    """A task whose questions are damaged fails, and the others are made. One asked in a job of its own
    gives what it gave beside others."""
    variant = "tinyllama_2tinyllama/none"
    before, count = records(study, variant), len(study.jobs("evaluate"))
    assert len(before) == 4
    for name in before:
        Path(study.results, "evals", variant, "s0", name).unlink()
    questions = study.results / "questions" / "tinyllama" / "mmlu.parquet"
    whole, times = questions.read_bytes(), questions.stat()
    questions.write_bytes(whole[:-1] + b"?")
    os.utime(questions, ns=(times.st_atime_ns, times.st_mtime_ns))
    targets = [
        str(study.results / "evals" / variant / "s0" / f"{t}.json") for t in ("mmlu", "medmcqa")
    ]
    child = study.start("--", *targets)
    told, _ = child.communicate()
    assert child.returncode and "Another attempt would end the same" in told, told[-6000:]
    assert len(study.jobs("evaluate")) == count + 1 and len(records(study, variant)) == 2
    made = os.stat(targets[1]).st_mtime_ns
    questions.write_bytes(whole)
    os.utime(questions, ns=(times.st_atime_ns, times.st_mtime_ns))
    study.run("--", *targets)
    assert len(study.jobs("evaluate")) == count + 2
    assert minutes(study.jobs("evaluate")[-1]) < minutes(study.jobs("evaluate")[-2]), "one task"
    assert os.stat(targets[1]).st_mtime_ns == made
    assert records(study, variant) == before


def test_a_training_on_two_nodes(study):
    """Two GPUs, one on each of two nodes: two processes, started there by the job."""
    variant = study.plan.variants["tinyllama_4tinyllama/medmcqa_mofe"]
    target = study.plan.paths.train_json(variant, 0)
    before = json.loads(Path(target).read_text())
    made = Path(target).stat().st_mtime_ns

    def two(text: str) -> str:
        return text.replace("  train: *gpu", f"  train: {{<<: *gpu, {TWO_NODES}}}")

    study.run("--forcerun", "train", "--", target, edit=two)
    job = study.trainings("medmcqa_mofe")[-1]
    assert (job["NumNodes"], gpus(job)) == ("2", "gres:gpu:a100:2")
    record = json.loads(Path(target).read_text())
    assert (record["processes"], record["sharding"]) == (2, "ddp")
    assert record["final_loss"] == pytest.approx(before["final_loss"], rel=1e-3)
    assert Path(target).stat().st_mtime_ns > made, "it was trained anew"


def test_a_training_that_outlives_its_snakemake_counts_as_done(study):
    """As after a reboot of the login node."""
    variant = study.plan.variants["tinyllama_4tinyllama/medmcqa_full"]
    target = study.plan.paths.train_json(variant, 0)
    before = len(study.trainings("medmcqa_full"))
    child = study.start("--forcerun", target, "--", target)
    while len(study.trainings("medmcqa_full")) == before:
        assert child.poll() is None, child.stdout.read()[-6000:]
        time.sleep(0.2)
    subprocess.run(["pkill", "-KILL", "--parent", str(child.pid)], check=True)
    child.communicate()
    while (state := study.trainings("medmcqa_full")[-1]["JobState"]) in ("PENDING", "RUNNING"):
        time.sleep(0.5)
    assert state in ("COMPLETING", "COMPLETED")
    made = Path(target).stat().st_mtime_ns
    study.run("--unlock", "--", target)
    told = study.run("--", target)
    assert "Nothing to be done" in told  # the job on the node has taken Snakemake's marks away
    assert len(study.trainings("medmcqa_full")) == before + 1
    assert Path(target).stat().st_mtime_ns == made


def test_an_unknown_site_is_refused_before_anything_is_submitted(cluster, tmp_path):
    before, results = len(cluster.jobs()), tmp_path / "results"
    environment = {k: v for k, v in cluster.environment.items() if k != "MOFE_SITE"}
    done = subprocess.run(
        [
            *["timeout", "-k", "10", FOR_EVER, sys.executable, "-m", "snakemake"],
            *["--profile", profile(tmp_path)],  # with no site's file beside it
            *["--configfile", *map(str, [CONFIG, MINI, REDUCED])],
            *["--config", f"results={results}", "--", f"{results}/table7.tex"],
        ],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode not in (0, -signal.SIGKILL, 124)
    where = os.path.relpath(tmp_path / "site.yaml", ROOT)
    told = f"{where}: nothing is submitted without account, constraint, partition"
    assert told in done.stderr
    assert len(cluster.jobs()) == before and not results.exists()
