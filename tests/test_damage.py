"""Damaged artefacts: every reader names the file and what makes it again, and uses nothing of it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import ROOT
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from mofe import checksums, sums
from mofe.estimate.cost import Costs
from mofe.jobs import job, made
from mofe.models import finite, load, store
from mofe.report import figures
from mofe.stages import verify
from mofe.study.given import Given
from mofe.study.graph import ALL, Graph, Node
from mofe.study.identity import Identities
from mofe.study.load import read_study
from mofe.study.plan import Plan
from mofe.training import saved

DAMAGES = {
    "a flipped byte": lambda content, at, other: (
        content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]
    ),
    "zeros in the second half": lambda content, at, other: (
        content[: len(content) // 2] + bytes(len(content) - len(content) // 2)
    ),
    "cut off": lambda content, at, other: content[:at],
    "empty": lambda content, at, other: b"",
    "gone": lambda content, at, other: None,
    "another file's content": lambda content, at, other: other,
}
CALLED = "called"


class Results:
    """Results of the study of one row, and the jobs that read them."""

    def __init__(self, folder: Path, files: list[Path]):
        self.folder = folder
        plan = Plan(read_study(*files, results=str(folder)))
        given_ = Given(plan, figures.given(plan), command="snakemake --cores all --")
        self.identities = Identities(Graph(plan, figures.inputs(plan)), given_)
        self.jobs = [j for j in self.identities.graph.jobs if j.rule != ALL and self._made(j)]
        # what other jobs read
        self.read = [j for j in self.jobs if self.readers(j)]

    @staticmethod
    def _made(made_: Node) -> bool:
        return all(map(os.path.exists, made_.outputs))

    def readers(self, maker: Node) -> list[Node]:
        return [j for j in self.jobs if set(maker.outputs) & set(j.inputs)]

    def execute(self, reader: Node) -> int:
        """Run a job whose call only says that it was made: what it refuses, it refuses before."""
        read = made.inputs(self.identities, reader.rule, reader.wildcards)
        log = str(self.folder / "logs" / "tried.log")
        return job.execute(job.Job("test_damage:call", {}, reader.rule, log=log, read=read))


def call() -> str:
    return CALLED


@pytest.fixture(scope="module")
def results(copies) -> Results:
    return Results(copies.copy("damaged"), copies.files)


def test_every_job_leaves_the_checksums_of_all_that_it_made(results):
    assert len(results.jobs) == 8
    for node in results.jobs:
        assert set(sums.read(sums.path(node.outputs[0]))) == set(sums.files_of(node.outputs))
    assert sorted({n.rule for n in results.read}) == [
        *("evaluate", "merge", "prepare_data", "pretrain", "questions", "train", "world")
    ]


@given(data=st.data(), kind=st.sampled_from(sorted(DAMAGES)), keeps_time=st.booleans())
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
def test_damage_of_any_kind_is_named_before_it_is_used(results, capfd, data, kind, keeps_time):
    maker = data.draw(st.sampled_from(results.read))
    reader = data.draw(st.sampled_from(results.readers(maker)))
    read = {f for f in reader.inputs if f in maker.outputs}
    files = [f for output in read for f in sums.files_of([output])]
    files += [sums.path(maker.outputs[0])]
    file = Path(data.draw(st.sampled_from(files)))
    other = Path(data.draw(st.sampled_from(files))).read_bytes()
    content, state = file.read_bytes(), file.stat()
    assume(content)
    damaged = DAMAGES[kind](content, data.draw(st.integers(0, len(content) - 1)), other)
    assume(damaged != content)
    file.unlink()
    try:
        if damaged is not None:
            file.write_bytes(damaged)
            if keeps_time:
                os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
        capfd.readouterr()
        assert results.execute(reader) == 1
        told = capfd.readouterr().err
        assert str(file) in told and CALLED not in told and len(told.splitlines()) == 1
        assert f"--forcerun {maker.outputs[0]} -- {maker.outputs[0]}" in told
    finally:
        file.write_bytes(content)
        os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert results.execute(reader) == 0, "it is whole again"


def test_a_file_beside_the_others_is_of_no_concern(results):
    (maker,) = (n for n in results.jobs if n.rule == "pretrain")
    note = Path(maker.outputs[0], "notes.txt")
    note.write_text("mine")
    assert {results.execute(reader) for reader in results.readers(maker)} == {0}
    note.unlink()


def test_answers_are_read_with_their_record(results, capfd):
    (maker,) = (n for n in results.jobs if n.rule == "evaluate")
    answers = Path(maker.outputs[1])
    content = answers.read_bytes()
    answers.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    (table,) = results.readers(maker)
    assert results.execute(table) == 1 and str(answers) in capfd.readouterr().err
    answers.write_bytes(content)


def test_estimates_go_without_a_damaged_record_and_say_so(results):
    plan = results.identities.graph.plan
    assert Costs(plan).left_out() == []
    for rule, output in (("train", 0), ("prepare_data", 1)):
        (maker,) = (n for n in results.jobs if n.rule == rule)
        file = Path(maker.outputs[output])
        content = file.read_text()
        name, value = ("tokens", "1") if rule == "train" else ("sampled", "2")
        changed = re.sub(rf'"{name}": \d+', f'"{name}": {value}', content, count=1)
        assert changed != content
        file.write_text(changed)
        (told,) = Costs(plan).left_out()
        assert told.startswith(f"{file} has another content") and "verify" in told
        file.write_text(content)


def test_a_file_that_a_shared_disk_shows_late_is_waited_for(results, monkeypatch, capfd):
    (maker,) = (n for n in results.jobs if n.rule == "merge")
    target = Path(sums.path(maker.outputs[0]))
    content = target.read_text()
    target.unlink()
    reader = results.readers(maker)[0]
    assert results.execute(reader) == 1
    told = capfd.readouterr().err
    assert f"{maker.outputs[0]}: there is no file of checksums" in told and told.count("\n") == 1
    assert f"--forcerun {maker.outputs[0]} -- " in told and "-- sums" in told
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv(made.LATENCY, "600")
    monkeypatch.setattr(made.time, "sleep", lambda _: target.write_text(content))
    assert results.execute(reader) == 0


def test_the_commands_that_are_told_make_results_whole_again(copies):
    """A damaged expert and its merge: what is made from it follows by itself."""
    copy = copies.copy("again")
    expert = copy / "experts/tinyllama/model.safetensors"
    content = bytearray(expert.read_bytes())
    content[-5] ^= 1
    expert.write_bytes(content)
    answers = copy / "evals/tinyllama_2tinyllama/medmcqa_lora/s0/medmcqa.json"
    told = copies.call(copy, "--forcerun", str(answers), code=1)
    assert f"{expert} has another content" in told and "Traceback" not in told
    told = copies.call(copy, target="verify", code=1)
    assert " whole, 1 damaged, 0 with files missing, 0 without checksums" in told
    assert f"{expert} has another content than it was made with" in told
    (command,) = (line for line in told.splitlines() if line.startswith("snakemake "))
    command = command.partition(" (see ")[0]
    path = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    pasted = subprocess.run(
        command, shell=True, cwd=ROOT, env=path, capture_output=True, text=True, check=False
    )
    assert pasted.returncode == 0, pasted.stderr[-3000:]
    copies.call(copy)
    assert "8 whole, 0 damaged" in copies.call(copy, target="verify")
    assert _score(copy / "tableown.csv") == _score(copies.folder / "results/tableown.csv")


def _score(table: Path) -> list[str]:
    return [row for row in table.read_text().splitlines() if "ime" not in row]


def test_results_of_an_earlier_version_are_taken_as_they_are_when_asked_for(copies):
    copy = copies.copy("earlier")
    for file in copy.rglob("*.sums"):
        file.unlink()
    assert "8 without checksums" in copies.call(copy, target="verify", code=1)
    assert "checksums of 8 results were written" in copies.call(copy, target="sums")
    assert "8 whole, 0 damaged" in copies.call(copy, target="verify")


def _equal_parts(folder: Path, file: Path) -> str | bytes:
    """What two runs have in common of a file: all but times, what memory they happened to take, and
    where they lie."""
    if file.suffix not in (".json", ".jsonl", ".csv", ".md", ".tex"):
        return (folder / file).read_bytes()
    text = (folder / file).read_text().replace(str(folder), "")
    text = re.sub(r'("(?:\w*seconds|peak_memory_bytes)": )[\d.e-]+', r"\1_", text)
    # the table of this study shows times, as numbers with a unit
    return re.sub(r"[\d.]+", "_", text) if file.stem == "tableown" else text


def test_the_same_study_twice_gives_equal_files(copies):
    first, second = copies.folder / "results", copies.folder / "twice"
    copies.call(second)
    kept = {
        f.relative_to(first)
        for f in first.rglob("*")
        if f.is_file() and f.suffix not in (".log", ".sums") and f.name != "config.yaml"
    }
    assert len(kept) > 25
    different = [str(f) for f in kept if _equal_parts(first, f) != _equal_parts(second, f)]
    assert different == []


def test_weights_that_are_not_finite_are_not_stored(tiny, tmp_path):
    weights = load_file(tiny / "a" / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    for value in (float("nan"), float("inf"), float("-inf")):
        for dtype in (torch.float32, torch.bfloat16):
            changed = {n: t.to(dtype).clone() for n, t in weights.items()}
            changed[name][2, 3] = value
            told = (
                f"^{tmp_path}/x.safetensors: not written, because 1 of the 8192 numbers in {name}"
            )
            with pytest.raises(finite.NotFinite, match=told):
                store.save(changed, tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())
    model = load.checkpoint(tiny / "a")
    model.lm_head.weight.data[0, 0] = float("nan")
    with pytest.raises(finite.NotFinite, match=r"1 of the \d+ numbers in lm_head\.weight are NaN"):
        store.checkpoint(model, tmp_path / "folder")
    assert not (tmp_path / "folder" / "model.safetensors").exists()
    assert (
        finite.fault({"empty": torch.zeros(0), "whole": torch.ones(1, dtype=torch.int8)}.items())
        is None
    )


def test_a_damaged_checkpoint_is_told_and_its_training_goes_on_without(results):
    checkpoint = results.folder / "variants/x/s0/checkpoint"
    partial = checkpoint / "partial-1"
    partial.mkdir(parents=True)
    (partial / "__0_0.distcp").write_bytes(b"tensors")
    files = {"__0_0.distcp": checksums.of(partial / "__0_0.distcp")}
    state = saved.State(
        key="k", progress=saved.Progress(step=1), last=False, segments=(), files=files
    )
    folder = saved.seal(partial, state, ['{"step": 1}\n'])
    for damage, told in ((None, []), (b"tensor!", ["__0_0.distcp was changed"])):
        if damage:
            (folder / "__0_0.distcp").write_bytes(damage)
        found = verify.Found()
        assert verify._checkpoints(results.identities.graph.plan, found) == 1
        assert [t.removeprefix(f"{folder}: ").partition(";")[0] for t in found.told] == told
    assert found.again == []
    shutil.rmtree(checkpoint.parents[1])


def test_of_several_processes_none_starts_on_damaged_inputs(results, tmp_path, monkeypatch, capfd):
    """They would read it while the first one still compares."""
    (reader,) = (n for n in results.jobs if n.rule == "train")
    read = made.inputs(results.identities, reader.rule, reader.wildcards)
    file = Path(next(one["file"] for one in read if one["file"].endswith(".parquet")))
    content = file.read_bytes()
    file.write_bytes(content[:100])
    asked = SimpleNamespace(
        wildcards=["x"],
        rule="train",
        log=[str(tmp_path / "train.log")],
        threads=1,
        params={"read": read},
        output=[str(tmp_path / "train.json")],
        resources={"gpu": 2},
        config={"device": "cpu"},
    )
    monkeypatch.setattr(job.launch, "start", lambda *_: pytest.fail("processes were started"))
    with pytest.raises(SystemExit) as stopped:
        job.run("test_damage:call", asked, several=True)
    assert stopped.value.code == 1 and f"{file} has another content" in capfd.readouterr().err
    file.write_bytes(content)


def test_verify_names_what_is_missing_and_what_is_nonsense(results, capfd):
    (maker,) = (n for n in results.jobs if n.rule == "evaluate")
    (data,) = (n for n in results.jobs if n.rule == "prepare_data")
    answers, target = Path(maker.outputs[1]), Path(sums.path(data.outputs[0]))
    kept = answers.read_bytes(), target.read_bytes()
    answers.unlink()
    target.write_bytes(b"\xff\x00nonsense\n")
    found = verify.Found()
    for node in results.jobs:
        verify._check(results.identities, node, found)
    assert (found.missing, found.damaged) == ([maker.outputs[0]], [data.outputs[0]])
    assert [t.split()[0].rstrip(":") for t in found.told] == [str(target), str(answers)]
    assert set(found.again) == {maker.outputs[0], data.outputs[0]}
    answers.write_bytes(kept[0])
    target.write_bytes(kept[1])
