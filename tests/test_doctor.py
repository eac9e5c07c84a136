"""The doctor's verdicts, from facts; and that the facts are those of this machine."""

import json
import os
import pickle
import socket
import subprocess
import sys

import pytest
import torch
from conftest import MINI, REDUCED, ROOT, snakemake

from mofe import records
from mofe.jobs import gpus
from mofe.jobs.doctor import here, judge, node
from mofe.jobs.doctor.here import Fetched, Held, Slurm
from mofe.jobs.job import Job
from mofe.records import GpuFact, NodeFacts
from mofe.study.hardware import GPUS
from mofe.units import GIB

A100 = GPUS["a100-80gb"]
WHOLE = {
    "host": "n1",
    "python": "3.12.1",
    "lock": "requirements.lock",
    "other_versions": {},
    "torch": "2.15.0",
    "torch_cuda": "13.2",
    "driver": "580.1",
    "gpus": (GpuFact(name=A100.cuda_name, memory=79 * GIB + 1),),
    "gpus_why": "no more are there",
    "compiler": "/usr/bin/gcc",
    "triton": "",
    "nf4": "",
    "fp8": "",
    "memory": 1 << 38,
}


def of_node(cuda: bool = True, **changed) -> dict[str, records.Finding]:
    facts = NodeFacts(**{**WHOLE, **changed})
    return {found.subject: found for found in judge.node(facts, cuda, A100)}


def test_a_machine_that_has_everything():
    assert {found.verdict for found in of_node().values()} == {"ok"}
    assert set(of_node()) == {
        "Python",
        "packages",
        "GPUs",
        "Triton",
        "4-bit weights",
        "8-bit weights",
    }


SMALL = (GpuFact(name="NVIDIA A100-SXM4-40GB", memory=39 * GIB),)
OTHER = (GpuFact(name="NVIDIA H100 80GB HBM3", memory=79 * GIB),)


@pytest.mark.parametrize(
    "changed, subject, verdict, told",
    [
        ({"python": "3.10.2"}, "Python", "fault", "3.10.2"),
        ({"other_versions": {"peft": "is 1.0, 2.0 is wanted"}}, "packages", "warning", "peft is 1"),
        ({"other_versions": {"peft": "is not installed, x"}}, "packages", "fault", "peft is not"),
        (
            {"gpus": (), "driver": None, "gpus_why": "Found no NVIDIA driver"},
            "GPUs",
            "fault",
            "no NVIDIA driver; torch 2.15.0 is built for CUDA 13.2; Found no NVIDIA driver",
        ),
        ({"gpus": (), "gpus_why": "busy"}, "GPUs", "fault", "driver 580.1; torch"),
        (
            {"gpus": (), "gpus_why": "too old", "driver": "535.104.05"},
            "GPUs",
            "fault",
            "driver of n1 is 535.104.05, and torch 2.15.0, which is built for CUDA 13.2, needs 580",
        ),
        ({"gpus": SMALL}, "GPUs", "fault", "39.0 GiB"),
        ({"gpus": OTHER}, "GPUs", "warning", "H100"),
        ({"triton": "no compiler", "compiler": None}, "Triton", "fault", "no compiler"),
        ({"nf4": "RuntimeError: x"}, "4-bit weights", "fault", "RuntimeError: x"),
        ({"fp8": "RuntimeError: x"}, "8-bit weights", "fault", "RuntimeError: x"),
    ],
)
def test_what_is_wrong_is_told_with_a_remedy(changed, subject, verdict, told):
    found = of_node(**changed)[subject]
    assert found.verdict == verdict and told in found.told and found.remedy


@pytest.mark.parametrize(
    "driver, cuda, needed, remedy",
    [
        ("580.65.06", "13.2", None, None),
        ("579.99", "13.2", "580", "make CUDA=12 setup"),
        ("525.60.13", "13.0", "580", "make CUDA=12 setup"),
        ("470.57.02", "13.0", "580", "a machine with a newer driver"),
        ("525.60.13", "12.8", None, None),
        ("515.43.04", "12.8", "525", "a machine with a newer driver"),
        ("610.1", "12.8", None, None),
        (None, "13.2", None, None),
        ("unknown", "13.2", None, None),
        ("535.1", None, None, None),  # a torch without CUDA
        ("535.1", "14.0", None, None),  # of which nobody here knows
    ],
)
def test_the_driver_that_a_cuda_needs(driver, cuda, needed, remedy):
    found = gpus.too_old("n1", driver, "2.15.0", cuda)
    assert (found is None) == (needed is None)
    if found:
        assert f"needs {needed} or newer" in found.told and remedy in found.remedy


def test_a_driver_that_torch_can_use_all_the_same_is_no_fault():
    """NVIDIA's packages for compatibility forwards let an old driver run a newer CUDA."""
    assert of_node(driver="535.104.05")["GPUs"].verdict == "ok"


@pytest.fixture
def old_driver(tmp_path, monkeypatch) -> str:
    """A machine whose nvidia-smi tells an old driver. Returns the version that needs another one."""
    if torch.version.cuda is None or torch.cuda.is_available():
        pytest.skip("this machine has a GPU, or this torch no CUDA")
    version = {"13": "535.104.05", "12": "470.57.02"}[torch.version.cuda.split(".")[0]]
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin/nvidia-smi"
    command.write_text(f"#!/bin/sh\necho {version}\necho {version}\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    return version


def test_a_study_under_an_old_driver_ends_with_one_sentence(old_driver, tmp_path):
    """Before it runs, in a job of it, and in the check."""
    told = f"the NVIDIA driver of {socket.gethostname()} is {old_driver}, and torch {torch.__version__}"
    study = ["--configfile", "config.yaml", str(MINI), str(REDUCED), "--config", "device=cuda"]
    study = ["--cores", "2", "--quiet", "rules", *study, "hardware={gpu: a100-80gb}"]
    study += [f"results={tmp_path / 'results'}", "--"]
    done = snakemake(*study, f"{tmp_path}/results/table7.csv", check=False)
    assert done.returncode == 1 and done.stderr.count(told) == 1, done.stderr
    remedy = "make CUDA=12 setup" if old_driver > "525" else "a machine with a newer driver"
    assert "Traceback" not in done.stderr and remedy in done.stderr
    job = Job("builtins:print", {}, "train x", log=str(tmp_path / "x.log"), gpus=1)
    call = [sys.executable, "-c", "import pickle, sys; from mofe.jobs.job import execute; "]
    call[-1] += "sys.exit(execute(pickle.loads(sys.stdin.buffer.read())))"
    ran = subprocess.run(call, input=pickle.dumps(job), cwd=ROOT, capture_output=True, check=False)
    (line,) = ran.stderr.decode().splitlines()
    assert ran.returncode == 1 and line.startswith(f"train x: OldDriver: {told}")
    done = snakemake(*study, "check", check=False)
    assert done.returncode == 1 and f"FAULT   node  GPUs: {told}" in done.stderr, done.stderr


def test_quantised_weights_are_tried_where_the_study_has_them():
    found = node.facts(["requirements.lock"], {"fp8"})
    assert found.fp8 == "" and found.nf4 is None


def test_a_study_for_the_cpu_needs_no_gpu():
    found = of_node(cuda=False, gpus=(), driver=None, triton=None, nf4=None, fp8=None)
    assert {one.verdict for one in found.values()} == {"ok"}
    assert set(found) == {"Python", "packages", "GPUs"}


@pytest.mark.parametrize("free, verdict", [(111e9, "ok"), (109e9, "fault")])
def test_the_disk_must_hold_what_is_left_and_a_checkpoint(free, verdict):
    assert judge.disk(100e9, 10e9, free, "results").verdict == verdict


LACKING = [Fetched("a/b", "main"), Fetched("c/d", "1", "there is no folder")]


@pytest.mark.parametrize(
    "fetched, failure, mirror, verdict, told",
    [
        ([], None, None, "ok", "generates"),
        (LACKING[:1], None, None, "ok", "1 repositories"),
        (LACKING, "", None, "warning", "c/d (revision 1: there is no folder)"),
        (LACKING, "timed out", None, "fault", "cannot be reached: timed out"),
        (LACKING, None, "/shared", "fault", "1 of 2"),
    ],
)
def test_data_that_is_not_here(fetched, failure, mirror, verdict, told):
    (found,) = judge.data(fetched, failure, mirror)
    assert (found.verdict, bool(found.remedy)) == (verdict, verdict != "ok") and told in found.told


def test_locks_name_their_owners():
    held = [
        Held("a/lock.json", "process 7 on n1", standing, "kill 7")
        for standing in ("live", "stale", "unknown")
    ]
    live, stale, unknown = judge.checkpoints(held)
    assert (live.verdict, stale.verdict, unknown.verdict) == ("warning", "ok", "warning")
    assert all("process 7 on n1" in found.told for found in (live, stale, unknown))
    assert "kill 7" in live.remedy and "kill 7" in unknown.remedy
    assert judge.runs(["x.lock"]).verdict == "fault" and judge.runs([]).verdict == "ok"


KNOWN = Slurm(partitions={"gpu": "gpu:a100:4"}, accounts=(("ours", ""), ("theirs", "cpu")))
ASKED = {"slurm_partition": "gpu", "slurm_account": "ours"}


@pytest.mark.parametrize(
    "slurm, asked, faults",
    [
        (KNOWN, ASKED, []),
        (KNOWN, {**ASKED, "slurm_partition": "gup"}, ["there is no partition 'gup'"]),
        (KNOWN, {**ASKED, "slurm_account": "theirs"}, ["'theirs' is no account of yours for"]),
        (Slurm(partitions={"gpu": ""}), ASKED, []),
        (Slurm(missing=("sbatch", "sinfo")), ASKED, ["there is no sbatch and sinfo here"]),
        (Slurm(why="Unable to contact"), ASKED, ["it does not answer: Unable to contact"]),
    ],
)
def test_slurms_account_and_partition(slurm, asked, faults):
    found = [one for one in judge.cluster(slurm, asked) if one.verdict == "fault"]
    assert [one.told[: len(told)] for one, told in zip(found, faults, strict=True)] == faults


def test_another_runs_lock_is_told_from_ours(tmp_path):
    (tmp_path / "0.output.lock").write_text("results/check/here.json\n")
    (tmp_path / "1.output.lock").write_text("results/table1.tex\n")
    (tmp_path / "2.output.lock").write_text("results/mini/table1.tex\nresults/mini/table2.tex\n")
    (tmp_path / "3.output.lock").write_text("elsewhere/table1.tex\n")
    ours = ["results/check/here.json"]
    found = [f"{tmp_path}/1.output.lock", f"{tmp_path}/2.output.lock"]
    assert here.other_runs(tmp_path, ours, "results") == found
    assert here.other_runs(tmp_path, ours, "results/mini") == found[1:]
    assert here.other_runs(tmp_path / "none", [], "results") == []


def test_versions_are_compared_with_the_lock():
    lock = 'torch==0.1 \\\n    --hash=x\nnone-such==1.0\nold==1 ; python_version < "3.0"\n'
    told = {"torch": f"is {torch.__version__.split('+')[0]}", "none-such": "is not installed"}
    found = node.other_versions(lock)
    assert set(found) == set(told) and all(found[n].startswith(told[n]) for n in told)


def test_the_check_of_a_study_is_one_screen_and_json(tmp_path):
    study = ["--configfile", "config.yaml", str(MINI), str(REDUCED), "--config"]
    done = snakemake(
        "--cores", "2", "--quiet", "rules", *study, f"results={tmp_path}", "--", "check"
    )
    found = records.read(tmp_path / "check.json", records.CheckRecord)
    assert {one.host for one in found.nodes} == {socket.gethostname()}
    assert {one.verdict for one in found.findings} <= {"ok", "warning"}
    for one in found.findings:
        assert f"{one.subject}: {one.told}" in done.stderr
    assert json.loads((tmp_path / "check.json").read_text())["study"] == "reduced"
