"""A training that is stopped at any moment, in any way, and called again is the one that was not: bit
for bit, with no state lost that was saved, and nothing damaged used."""

import errno
import itertools
import json
import math
import os
import random
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TRAINING
from safetensors.torch import load_file, save_file
from test_models import SETTINGS
from torch.distributed.checkpoint import FileSystemReader

from mofe import checksums, provenance, records
from mofe.jobs.job import Job, execute
from mofe.models import store
from mofe.stages import train
from mofe.training import checkpoint, lock, loop, saved
from mofe.training.checkpoint import Checkpoint

METHODS = ("full", "mofe", "freeze2", "lora", "qlora", "dora")
FREEZE2 = {"method": "freeze", "frozen": 2}
STEPS = 6
KILLED, SIGNALLED, FULL, CUT = "killed", "signalled", "disk full", "power cut"
# What a training does, one moment each: anything between two of these is like one of them.
DONE = (
    (loop.AnswerLoss, "forward"),
    (checkpoint.dcp, "save"),
    (checkpoint.dcp, "load"),
    (checksums, "of"),
    (provenance, "hash_tensors"),
    (store, "save_file"),
    (os, "fsync"),
    (os, "rename"),
    (os, "replace"),
    (os, "unlink"),
    (os, "rmdir"),
    (shutil, "rmtree"),
    (records, "write"),
)
WRITES = ("save", "save_file", "fsync", "replace", "rename", "write")  # that a full disk fails


def job(tiny: Path, data: str, out: Path, method: str, **training) -> Job:
    """A training as its script asks for it."""
    settings = FREEZE2 if method == "freeze2" else SETTINGS[method]
    dropout = {"dropout": 0.2} if "lora" in method else {}
    return Job(
        "mofe.stages.train:train_variant",
        {
            "merge": str(tiny / "moe2a2b"),
            "data": [data],
            "parents": [],
            "chain": [],
            "params": {
                "recipe": method,
                **settings,
                **dropout,
                "training": {**TRAINING, "micro_batch": 8, **training},
            },
            "names": {"moe": "moe2a2b", "stages": method},
            "seed": 0,
            "trained": out / "trained.safetensors",
            "record": out / "train.json",
            "log": out / "log.jsonl",
            "checkpoint": out / "checkpoint",
        },
        "train it",
        log=str(out / "log"),
        scratch=str(out / "checkpoint"),
    )


def in_a_fork(call: Callable[[], int]) -> int:
    """Make the call in a fork. Returns its exit code, or minus the signal that ended it."""
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        code = 99
        try:
            code = call()
        finally:
            os._exit(code)
    status = os.waitpid(child, 0)[1]
    return os.waitstatus_to_exitcode(status)


def watched(asked: Job, moment: int, act: Callable[[str], None], report: Path) -> int:
    """Run the job, saving a state after each step, and act at its moment of this number. The report
    gets the number of moments, and the sizes up to which files were flushed, by inode."""
    counted, synced = itertools.count(), {}

    def told() -> None:
        report.write_text(json.dumps([next(counted), synced]))

    def passing(name: str, real: Callable) -> Callable:
        def passed(*args, **kwargs):
            if next(counted) == moment:
                told()
                act(name)
            if name == "fsync":
                status = os.fstat(args[0])
                synced[status.st_ino] = status.st_size
            return real(*args, **kwargs)

        return passed

    Checkpoint.due = lambda self: True
    for place, name in DONE:
        setattr(place, name, passing(name, getattr(place, name)))
    code = execute(asked)
    told()
    return code


def fault(kind: str, number: signal.Signals) -> Callable[[str], None]:
    """What happens at a moment."""

    def act(name: str) -> None:
        if kind in (KILLED, CUT):
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == SIGNALLED:
            signal.raise_signal(number)
        if kind == FULL and name in WRITES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return act


def lose_unsynced(folder: Path, report: Path, rng: random.Random) -> None:
    """What a power cut may do: what was not flushed to disk is gone, or zeros."""
    synced = {int(inode): size for inode, size in json.loads(report.read_text())[1].items()}
    for file in [f for f in folder.rglob("*") if f.is_file()]:
        flushed, size = synced.get(file.stat().st_ino, 0), file.stat().st_size
        if flushed < size:
            os.truncate(file, flushed)
            if rng.random() < 0.5:
                os.truncate(file, size)


@pytest.fixture(scope="module")
def whole(tiny, data, tmp_path_factory) -> dict[str, tuple[Path, int]]:
    """Each method's training that nothing stopped, and how many moments it has."""
    found = {}
    for method in METHODS:
        out = tmp_path_factory.mktemp(method)
        asked = job(tiny, data, out, method)
        assert in_a_fork(lambda a=asked, o=out: watched(a, -1, print, o / "report")) == 0
        assert not (out / "checkpoint").exists(), "what is done keeps no checkpoint"
        found[method] = out, json.loads((out / "report").read_text())[0]
    return found


def same(out: Path, expected: Path) -> None:
    """The training is the one that nothing stopped, but for times."""
    assert (out / "trained.safetensors").read_bytes() == (
        expected / "trained.safetensors"
    ).read_bytes()
    logs = [(folder / "log.jsonl").read_text().splitlines() for folder in (out, expected)]
    one, two = ([{**json.loads(line), "seconds": 0} for line in log] for log in logs)
    assert one == two
    record = json.loads((out / "train.json").read_text())
    parts = record["segments"]
    assert record["steps"] == STEPS == len(one)
    assert sum(p["device_seconds"] for p in parts) == pytest.approx(record["device_seconds"])
    ends = [(p["first_step"], p["last_step"]) for p in parts]
    assert [first for first, _ in ends] == [1, *(last + 1 for _, last in ends[:-1])]
    assert ends[-1][1] == STEPS


# `make faults` tries all of them; here are some of each kind, others in each method.
TRIED = int(os.environ.get("MOFE_FAULTS", "1"))


@pytest.mark.parametrize("kind", [KILLED, SIGNALLED, FULL, CUT])
@pytest.mark.parametrize("method", METHODS)
def test_a_training_stopped_at_any_moment_goes_on(tiny, data, tmp_path, whole, method, kind):
    expected, moments = whole[method]
    rng = random.Random(f"{method} {kind}")
    for moment in rng.sample(range(moments), min(TRIED, moments)):
        number = rng.choice([signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
        out = tmp_path / str(moment)
        asked = job(tiny, data, out, method)
        act = fault(kind, number)
        out.mkdir()
        code = in_a_fork(lambda: watched(asked, moment, act, out / "report"))  # noqa: B023
        told = f"moment {moment}, {number.name}, code {code}: {(out / 'log').read_text()[-3000:]}"
        assert code == -signal.SIGKILL if kind in (KILLED, CUT) else code in (0, 1), told
        # once the record is there, what was saved is being removed
        done = (out / "train.json").exists()
        steps = [int(f.name[5:]) for f in (out / "checkpoint").glob("step-*")]
        if code == 0:
            assert kind in (SIGNALLED, FULL)
        else:
            assert not (kind == FULL and list((out / "checkpoint").glob("partial-*"))), told
            if kind == CUT:
                lose_unsynced(out, out / "report", rng)
            assert in_a_fork(lambda: execute(asked)) == 0, told  # noqa: B023
            record = json.loads((out / "train.json").read_text())
            if steps and kind != CUT and not done:
                text = (out / "log").read_text()
                assert f"going on after step {max(steps)}\n" in text, told + text
                assert record["resumed"] == 1
        same(out, expected)
        assert not (out / "checkpoint").exists()
        shutil.rmtree(out)


# ------------------------------------------------------------------------ what was saved is damaged


@pytest.fixture(scope="module")
def cut(tiny, data, tmp_path_factory) -> Path:
    """A training that was killed in its fifth step, with the states after steps 3 and 4."""
    out = tmp_path_factory.mktemp("cut") / "run"
    out.mkdir()
    asked = job(tiny, data, out, "mofe")

    def killed() -> int:
        Checkpoint.due = lambda self: True
        reached = Checkpoint.reached

        def kill(self, progress):
            if progress.step == 5:
                os.kill(os.getpid(), signal.SIGKILL)
            reached(self, progress)

        Checkpoint.reached = kill
        return execute(asked)

    assert in_a_fork(killed) == -signal.SIGKILL
    assert {f.name for f in saved.newest_first(out / "checkpoint")} == {"step-3", "step-4"}
    return out


def going_on(tiny, data, out: Path, expected: Path) -> str:
    """Run a training again, and return its log."""
    assert in_a_fork(lambda: execute(job(tiny, data, out, "mofe"))) == 0, (out / "log").read_text()
    same(out, expected)
    return (out / "log").read_text()


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def zero_half(file: Path) -> None:
    size = file.stat().st_size
    os.truncate(file, size // 2)
    os.truncate(file, size)


def other_key(file: Path) -> None:
    """A field that no version knows, or nonsense at the end."""
    text = file.read_bytes().rstrip()
    file.write_bytes(text[:-1] + b', "more": 1}' if text.endswith(b"}") else text + b"\0\0")


DAMAGES = (flip, zero_half, other_key, Path.unlink, lambda file: os.truncate(file, 0))


@pytest.mark.parametrize("name", [".metadata", "__0_0.distcp", "log.jsonl", "progress.json"])
def test_a_damaged_state_is_named_and_the_one_before_it_is_taken(
    tiny, data, tmp_path, cut, whole, name
):
    for number, damage in enumerate(DAMAGES):
        out = tmp_path / str(number)
        shutil.copytree(cut, out)
        damage(out / "checkpoint/step-4" / name)
        told = going_on(tiny, data, out, whole["mofe"][0])
        assert f"step-4: is damaged ({name}" in told and "step-3 is taken instead" in told, told
        assert "going on after step 3\n" in told


def test_without_a_whole_state_a_training_starts_from_the_beginning(
    tiny, data, tmp_path, cut, whole
):
    out = shutil.copytree(cut, tmp_path / "run")
    for step in (3, 4):
        shutil.rmtree(out / f"checkpoint/step-{step}")
        (out / f"checkpoint/step-{step}").mkdir()
    told = going_on(tiny, data, out, whole["mofe"][0])
    assert told.count("is damaged (progress.json is missing)") == 2
    assert told.count("starts from the beginning") == 1 and "going on after" not in told


def test_what_is_no_state_of_a_training_is_left_alone(tiny, data, tmp_path, cut, whole):
    out = shutil.copytree(cut, tmp_path / "run")
    folder = out / "checkpoint"
    for mine in ("step-5.bak", "step-x", "notes"):
        shutil.copytree(folder / "step-4", folder / mine)
    (folder / "removed-0").mkdir()  # of a removal that was cut off
    asked = job(tiny, data, out, "mofe")
    train.train_variant(**asked.arguments)
    assert "notes" in os.listdir(folder) and "removed-0" not in os.listdir(folder)
    assert (folder / "step-5.bak" / "progress.json").exists() and (folder / "step-x").exists()
    same(out, whole["mofe"][0])


def test_a_state_of_another_step_under_this_name_is_damaged(tiny, data, tmp_path, cut, whole):
    out = shutil.copytree(cut, tmp_path / "run")
    (out / "checkpoint/step-4").rename(out / "checkpoint/step-5")
    assert "step-5: is damaged" in going_on(tiny, data, out, whole["mofe"][0])


def as_file(state: Path) -> None:
    state.write_text("no state")


def as_link_to_nothing(state: Path) -> None:
    state.symlink_to("gone")


def with_a_folder_for_its_progress(state: Path) -> None:
    (state / "progress.json").mkdir(parents=True)


@pytest.mark.parametrize("make", [as_file, as_link_to_nothing, with_a_folder_for_its_progress])
def test_what_only_has_the_name_of_a_state_is_removed(tiny, data, tmp_path, cut, whole, make):
    out = shutil.copytree(cut, tmp_path / "run")
    make(out / "checkpoint/step-5")
    (out / "checkpoint/partial-6").write_text("no folder")
    told = going_on(tiny, data, out, whole["mofe"][0])
    assert "step-5: is damaged (progress.json is missing); it is removed, and step-4 is" in told


def test_a_signal_while_a_state_is_read_is_no_fault_of_the_state(tiny, data, tmp_path, cut, whole):
    out = shutil.copytree(cut, tmp_path / "run")

    def signalled() -> int:
        read = FileSystemReader.read_data

        def signal_and_read(self, *args):
            signal.raise_signal(signal.SIGTERM)
            return read(self, *args)

        FileSystemReader.read_data = signal_and_read
        return execute(job(tiny, data, out, "mofe"))

    assert in_a_fork(signalled) == 1
    told = (out / "log").read_text()
    assert "stopped by SIGTERM after step 4 of 6; it goes on from there" in told, told
    assert "cannot be read" not in told and "Traceback" not in told
    assert "going on after step 4\n" in going_on(tiny, data, out, whole["mofe"][0])


# ---------------------------------------------------------------------- removing what is not needed


def test_a_training_goes_on_in_a_folder_that_a_link_leads_to(tiny, data, tmp_path, cut, whole):
    """As where the checkpoints are on a faster disk."""
    out = shutil.copytree(cut, tmp_path / "run")
    (out / "checkpoint").rename(tmp_path / "fast")
    (out / "checkpoint").symlink_to(tmp_path / "fast")
    assert "going on after step 4\n" in going_on(tiny, data, out, whole["mofe"][0])
    assert not os.path.lexists(out / "checkpoint") and os.listdir(tmp_path) == ["run"]


def test_a_training_is_done_where_its_states_cannot_be_removed(
    tiny, data, tmp_path, cut, whole, capfd
):
    """As on NFS, where a file that is open leaves another one in its folder."""
    out = shutil.copytree(cut, tmp_path / "run")

    def left_over() -> int:
        remove = os.rmdir

        def leave(path, **at):
            if str(path).endswith("checkpoint.removed"):
                Path(path, ".nfs0001").touch()
            return remove(path, **at)

        os.rmdir = leave
        return execute(job(tiny, data, out, "mofe"))

    assert in_a_fork(left_over) == 0
    assert "checkpoint.removed: cannot be removed (Directory not empty)" in capfd.readouterr().err
    same(out, whole["mofe"][0])


def test_a_training_never_goes_on_with_another_learning_rate(tiny, data, tmp_path, cut):
    """One that a search found is in no hash of the configuration."""
    out = shutil.copytree(cut, tmp_path / "run")
    asked = job(tiny, data, out, "mofe", learning_rate=2 * TRAINING["learning_rate"])
    first = job(tiny, data, out, "mofe").arguments
    same_hash = provenance.hash_config(
        {**first["params"], "seed": 0, "chain": [], "names": first["names"]}
    )
    asked.arguments["config_hash"] = same_hash
    assert in_a_fork(lambda: execute(asked)) == 0
    told = (out / "log").read_text()
    assert (
        "is of a training with other inputs or parameters" in told and "going on after" not in told
    )


# ------------------------------------------------------------------------------- a full disk


def test_a_full_disk_is_called_so_and_what_was_saved_is_kept(tiny, data, tmp_path, cut, whole):
    """On a disk that really is full."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() or os.system(f"mount -t tmpfs -o size=24m tmpfs {disk} 2>/dev/null"):
        pytest.skip("only root can mount a small disk")
    try:
        out = shutil.copytree(cut, disk / "run")
        shutil.rmtree(out / "checkpoint/step-3")
        left = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        state = sum(f.stat().st_size for f in (out / "checkpoint/step-4").iterdir())
        filler = disk / "filler"
        # of the state's 12 bytes per parameter, the 4 that a run keeps of it, and too few for the rest
        filler.write_bytes(bytes(left - state // 2))
        asked = job(tiny, data, out, "mofe")
        assert in_a_fork(lambda: execute(asked)) == 1
        told = (out / "log").read_text()
        assert f"the disk is full: {out}/checkpoint: the state after step 6 needs" in told, told
        assert "the state after step 4 is kept; make room" in told
        assert not list((out / "checkpoint").glob("partial-*"))
        filler.unlink()
        assert "going on after step 4\n" in going_on(tiny, data, out, whole["mofe"][0])
    finally:
        os.system(f"umount -l {disk}")


# -------------------------------------------------------------------------- two on one folder


def test_a_training_that_was_taken_over_stops_without_writing(tiny, data, tmp_path, monkeypatch):
    asked = job(tiny, data, tmp_path, "mofe")
    forward = loop.AnswerLoss.forward

    def taken(self, *args, **kwargs):
        (tmp_path / "checkpoint/lock.2.json").write_text("{}")
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(loop.AnswerLoss, "forward", taken)
    monkeypatch.setattr(lock, "BEAT", 0.01)
    with pytest.raises(checkpoint.TakenOver, match="another process took this training over"):
        train.train_variant(**asked.arguments)
    assert (
        not list((tmp_path / "checkpoint").glob("step-*"))
        and not (tmp_path / "train.json").exists()
    )


# --------------------------------------------------------------------------- memory, and NaN


def lacking(rows: int, monkeypatch) -> None:
    """Have memory suffice for fewer rows of 64 tokens than this at once."""
    forward = loop.AnswerLoss.forward

    def failing(self, input_ids, *args, **kwargs):
        if input_ids.numel() > (rows - 1) * 64:
            torch.empty(1 << 50)  # torch's own error
        return forward(self, input_ids, *args, **kwargs)

    monkeypatch.setattr(loop.AnswerLoss, "forward", failing)


def test_out_of_memory_goes_on_with_half_the_rows(tiny, data, tmp_path, monkeypatch, capsys):
    wanted = {"max_length": 32, "learning_rate": 1e-3, "global_batch": 20, "epochs": 3}
    asked = job(tiny, data, tmp_path, "mofe", **wanted)
    plain = job(tiny, data, tmp_path / "plain", "mofe", **wanted)
    train.train_variant(**plain.arguments)
    lacking(4, monkeypatch)
    train.train_variant(**asked.arguments)
    told = capsys.readouterr().out
    assert "memory does not suffice for 8 rows at once" in told and "can't allocate memory" in told
    record = json.loads((tmp_path / "train.json").read_text())
    assert record["micro_batch"] == 4 and record["resumed"] == 0
    assert [part["micro_batch"] for part in record["segments"]] == [4]
    losses = [
        [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]
        for out in (tmp_path, tmp_path / "plain")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3), "the global batch is unchanged"


def test_out_of_memory_in_the_middle_is_a_segment_and_is_remembered(
    tiny, data, tmp_path, monkeypatch
):
    asked = job(tiny, data, tmp_path, "mofe")
    reached = Checkpoint.reached

    def shrink(self, progress):
        reached(self, progress)
        if progress.step == 3:
            lacking(2, monkeypatch)

    monkeypatch.setattr(Checkpoint, "reached", shrink)
    train.train_variant(**asked.arguments)
    record = json.loads((tmp_path / "train.json").read_text())
    parts = [(p["first_step"], p["last_step"], p["micro_batch"]) for p in record["segments"]]
    assert parts == [(1, 3, 8), (4, 6, 1)] and record["steps"] == 6
    train.train_variant(**asked.arguments)  # goes on after the last step, as after a stop
    again = json.loads((tmp_path / "train.json").read_text())
    assert (again["micro_batch"], again["segments"]) == (1, record["segments"])


def test_where_one_row_is_too_much_the_remedy_is_told(tiny, data, tmp_path, monkeypatch):
    lacking(0, monkeypatch)
    with pytest.raises(loop.OutOfMemory, match=r"one row at once .*give the job more memory"):
        train.train_variant(**job(tiny, data, tmp_path, "mofe").arguments)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_with_nan_is_named_not_the_learning_rate(tiny, data, tmp_path, value):
    folder = shutil.copytree(tiny / "a", tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 3] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        loop.DamagedModel, match=r"broken: model\.layers\.1\.mlp\.up_proj\.weight has"
    ):
        train.train_dense(
            origin=str(folder),
            data=[data],
            params={"recipe": "full", "method": "full", "training": TRAINING},
            name="x",
            seed=0,
            out=tmp_path / "x",
            checkpoint=tmp_path / ".x",
        )
