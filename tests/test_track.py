"""A training that is watched: TensorBoard's files hold every step once, and nothing else differs.

tensorboard is not in the lock. Without it these tests are skipped, or fail with
MOFE_REQUIRE_TENSORBOARD=1.
"""

import importlib.util
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from conftest import TRAINING, cannot
from test_models import SETTINGS

from mofe.jobs.job import watched
from mofe.stages import train
from mofe.training.checkpoint import Checkpoint

if importlib.util.find_spec("tensorboard") is None:
    cannot("tensorboard is not installed: pip install tensorboard", "MOFE_REQUIRE_TENSORBOARD")

RUN = "variants/moe2a/mofe/s0"
EPOCHS = 4  # enough steps to be cut off between two


def trained(tiny, data, root: Path, by: str | None) -> Path:
    """Train, below `root` as below a study's results, and return the training's folder."""
    out = root / RUN
    out.mkdir(parents=True, exist_ok=True)
    given = SimpleNamespace(config={"track": by, "study": "tiny"})
    train.train_variant(
        merge=str(tiny / "moe2a"),
        data=[data],
        parents=[],
        chain=[],
        params={
            "recipe": "mofe",
            **SETTINGS["mofe"],
            "training": {**TRAINING, "epochs": EPOCHS},
        },
        names={"moe": "moe2a", "stages": "mofe"},
        seed=0,
        trained=out / "trained.safetensors",
        record=out / "train.json",
        log=out / "log.jsonl",
        checkpoint=out / "checkpoint",
        watched=watched(given, out, RUN),
    )
    return out


def losses(out: Path) -> list[dict]:
    """The loss log of a training, without what its clock measured."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "seconds"} for line in lines]


def scalars(root: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard shows of the run: (step, value) by metric."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(root / "track" / RUN))
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def assert_shown(found: list[tuple[int, float]], lines: list[dict], name: str) -> None:
    """TensorBoard, which keeps 32 bits of a number, shows each step of a log once."""
    assert [step for step, _ in found] == [line["step"] for line in lines]
    values = [line[name] for line in lines]
    assert [value for _, value in found] == pytest.approx(values, rel=1e-6)


def test_a_training_that_is_watched_is_the_same_bit_for_bit(tiny, data, tmp_path):
    plain = trained(tiny, data, tmp_path / "plain", None)
    seen = trained(tiny, data, tmp_path / "seen", "tensorboard")
    assert losses(plain) == losses(seen)
    files = [(out / "trained.safetensors").read_bytes() for out in (plain, seen)]
    assert files[0] == files[1]
    assert not (tmp_path / "plain" / "track").exists()
    found = scalars(tmp_path / "seen")
    assert set(found) == {"loss", "learning_rate", "gradient_norm", "tokens_per_second"}
    for tag in ("loss", "learning_rate"):
        assert_shown(found[tag], losses(seen), tag)
    assert all(value > 0 for _, value in found["gradient_norm"] + found["tokens_per_second"])


def test_a_training_that_was_cut_off_goes_on_in_its_run(tiny, data, tmp_path, monkeypatch):
    whole = trained(tiny, data, tmp_path / "whole", None)
    steps = len(losses(whole))
    assert steps > 4
    saved, cut = steps - 3, steps - 1  # a step is computed again

    def reached(self, progress, real=Checkpoint.reached):
        if progress.step == cut:
            raise RuntimeError("the machine is gone")
        real(self, progress)

    monkeypatch.setattr(Checkpoint, "due", lambda self: self.last_line.step == saved)
    with monkeypatch.context() as fails:
        fails.setattr(Checkpoint, "reached", reached)
        with pytest.raises(RuntimeError, match="is gone"):
            trained(tiny, data, tmp_path / "seen", "tensorboard")
    assert [step for step, _ in scalars(tmp_path / "seen")["loss"]] == list(range(1, cut))
    out = trained(tiny, data, tmp_path / "seen", "tensorboard")
    assert json.loads((out / "train.json").read_text())["resumed"] == 1
    assert losses(out) == losses(whole)
    assert_shown(scalars(tmp_path / "seen")["loss"], losses(out), "loss")
