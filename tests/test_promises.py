"""What is refused before a run is refused by the jobs too, because only the submitting process looks
before a run: not a job on a cluster's node, and none that is called by hand."""

import os
import subprocess
import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from conftest import CONFIG, MINI, ROOT, train_moe2a
from test_models import SETTINGS

from mofe.data import mirror
from mofe.estimate.cost import Costs
from mofe.jobs import checks, gpus
from mofe.models import load, methods
from mofe.report import document
from mofe.study.load import read_study
from mofe.study.methods import parse
from mofe.study.plan import Plan
from mofe.tasks import training
from mofe.training import track


def too_long_rows(tiny, data, tmp_path) -> None:
    train_moe2a(tiny, data, tmp_path, SETTINGS["mofe"], max_length=4096)


def tied_heads(tiny, data, tmp_path) -> None:
    model = load.checkpoint(tiny / "a")
    model.config.tie_word_embeddings = True
    methods.apply(model, parse({**SETTINGS["lora"], "targets": ["q_proj", "lm_head"]}))


def incomplete_mirror(tiny, data, tmp_path) -> None:
    mirror.repository(str(tmp_path), "cais/mmlu", "main")


def too_few_held_out(tiny, data, tmp_path) -> None:
    study = {"data": {"mmlu": {"rows": 64}}, "mirror": None}
    study["tasks"] = {"held": {"held_out": "mmlu", "questions": 10**6}}
    columns = {"Score": "held"}
    study["tables"] = {1: {"beside": columns}}
    plan = Plan(read_study(CONFIG, MINI, results=str(tiny), **study))
    training.held_out({**plan.params.task("held")})


def no_latex(tiny, data, tmp_path) -> None:
    path, os.environ["PATH"] = os.environ["PATH"], str(tmp_path)
    try:
        document.write([], [], SimpleNamespace(), tmp_path / "x.pdf")
    finally:
        os.environ["PATH"] = path


def no_gpu(tiny, data, tmp_path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU: nothing to refuse")
    gpus.refuse(1)


def no_tracker(tiny, data, tmp_path) -> None:
    sys.modules["wandb"] = None  # not there, whether it is installed or not
    try:
        track.arguments(track.Watched("wandb", str(tmp_path), "study", "variants/x/s0"))
    finally:
        del sys.modules["wandb"]


# by the check's name: what a job does, and the words with which it refuses
REFUSED: dict[str, tuple[Callable, str]] = {
    "too_long_rows": (too_long_rows, "4096 is more than the 2048 positions"),
    "tied_heads": (tied_heads, "ties to its embeddings"),
    "incomplete_mirror": (incomplete_mirror, "has no folder 'cais/mmlu'"),
    "no_gpu": (no_gpu, "needs 1 GPU"),
    "too_few_held_out": (too_few_held_out, "are to be asked, but training on"),
    "no_latex": (no_latex, "there is no program pdflatex"),
    "no_tracker": (no_tracker, r"track: wandb is not installed here; .*pip install wandb"),
}
# what no job can get past, or what it is not about
OTHERWISE = {
    "unknown_site": "without these keys there is no job to submit",
    "misfits": "a GPU that is too small says so (out of memory), and fewer rows are then tried",
}


def test_every_check_before_a_run_is_shown_here():
    plan = Plan(read_study(CONFIG, MINI))
    machine = checks.Machine(os.path.isdir, bool, str, str, str)
    known = checks.by_check(Costs(plan), [], machine)
    assert set(known) == {*REFUSED, *OTHERWISE}


@pytest.mark.parametrize("check", REFUSED)
def test_a_job_refuses_what_is_refused_before_a_run(check, tiny, data, tmp_path):
    refuse, told = REFUSED[check]
    with pytest.raises((ValueError, OSError, RuntimeError, ImportError), match=told):
        refuse(tiny, data, tmp_path)


# what Snakemake gives a script, for a job of a study with this device and so many GPUs
SCRIPT = """
from types import SimpleNamespace
from mofe.jobs.job import run
given = SimpleNamespace(wildcards=["x"], rule="train", log=[{log!r}], threads=1, params={{}},
    output=[], resources={{"gpu": {gpu}}}, config={{"device": {device!r}}})
run("calls:touch", given, several=True, file={made!r})
"""


@pytest.mark.parametrize("device, gpu", [("cuda", 1), ("cuda", 0), ("cpu", 1)])
def test_a_job_of_a_study_for_gpus_refuses_a_machine_without(device, gpu, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU: nothing to refuse")
    (tmp_path / "calls.py").write_text("def touch(file):\n    open(file, 'w').close()\n")
    made, log = tmp_path / "made", tmp_path / "x.log"
    script = SCRIPT.format(device=device, gpu=gpu, log=str(log), made=str(made))
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}"},
        capture_output=True,
        text=True,
        check=False,
    )
    refused = device == "cuda" and gpu > 0
    assert (done.returncode, made.exists()) == (int(refused), not refused)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    line = done.stderr
    if refused:
        assert line.startswith("train x: NoGpu: this job needs 1 GPU(s), and torch can use 0 on ")
        assert "Found no NVIDIA driver" in line or "CUDA" in line
