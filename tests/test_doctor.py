"""The doctor's verdicts, from facts; and that the facts are those of this machine."""

import json
import socket

import pytest
import torch
from conftest import MINI, REDUCED, snakemake

from mofe import records
from mofe.jobs.doctor import here, judge, node
from mofe.jobs.doctor.here import Fetched, Held, Slurm
from mofe.records import GpuFact, NodeFacts
from mofe.study.hardware import GPUS
from mofe.units import GIB

A100 = GPUS["a100-80gb"]
WHOLE = {
    "host": "n1",
    "python": "3.12.1",
    "other_versions": {},
    "torch": "2.15.0",
    "torch_cuda": "13.2",
    "driver": "580.1",
    "gpus": (GpuFact(name=A100.cuda_name, memory=79 * GIB + 1),),
    "gpus_why": "no more are there",
    "compiler": "/usr/bin/gcc",
    "triton": "",
    "nf4": "",
    "memory": 1 << 38,
}


def of_node(cuda: bool = True, **changed) -> dict[str, records.Finding]:
    facts = NodeFacts(**{**WHOLE, **changed})
    return {found.subject: found for found in judge.node(facts, cuda, A100)}


def test_a_machine_that_has_everything():
    assert {found.verdict for found in of_node().values()} == {"ok"}
    assert set(of_node()) == {"Python", "packages", "GPUs", "Triton", "4-bit weights"}


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
        ({"gpus": (), "gpus_why": "too old"}, "GPUs", "fault", "driver 580.1; torch"),
        ({"gpus": SMALL}, "GPUs", "fault", "39.0 GiB"),
        ({"gpus": OTHER}, "GPUs", "warning", "H100"),
        ({"triton": "no compiler", "compiler": None}, "Triton", "fault", "no compiler"),
        ({"nf4": "RuntimeError: x"}, "4-bit weights", "fault", "RuntimeError: x"),
    ],
)
def test_what_is_wrong_is_told_with_a_remedy(changed, subject, verdict, told):
    found = of_node(**changed)[subject]
    assert found.verdict == verdict and told in found.told and found.remedy


def test_a_study_for_the_cpu_needs_no_gpu():
    found = of_node(cuda=False, gpus=(), driver=None, triton=None, nf4=None)
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
