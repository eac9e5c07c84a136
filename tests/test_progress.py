"""How far a piece of work is: a bar at a terminal, lines in a log, and what trainings and evaluations
say."""

import io
import os
import pty
import re
from contextlib import suppress

import pytest
from conftest import merge_params, train_moe2a
from hypothesis import given
from hypothesis import strategies as st
from test_models import SETTINGS

from mofe import progress
from mofe.models import load
from mofe.progress import BYTES, Progress
from mofe.stages import evaluate, merge

AMOUNTS = st.integers(0, 10**12)


class Clock:
    """A clock that a test moves."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def in_a_log(monkeypatch, **kwargs) -> tuple[Progress, Clock, io.StringIO]:
    clock, log = Clock(), io.StringIO()
    monkeypatch.setattr("tqdm.std.time", clock)
    return Progress(file=log, **kwargs), clock, log


def test_a_log_gets_its_first_line_after_seconds_and_then_one_in_thirty_seconds(monkeypatch):
    bar, clock, log = in_a_log(monkeypatch, total=100, unit="steps")
    with bar:
        for step in range(100):
            clock.now += 1
            bar.update(1, f"loss {step}")
    lines = log.getvalue().splitlines()
    assert lines == [
        "[  5%] 5 of 100 steps, 1 per second, 1 min 35 s left, loss 4",
        "[ 35%] 35 of 100 steps, 1 per second, 1 min 5 s left, loss 34",
        "[ 65%] 65 of 100 steps, 1 per second, 35.0 s left, loss 64",
        "[ 95%] 95 of 100 steps, 1 per second, 5.0 s left, loss 94",
        "[100%] 100 of 100 steps in 1 min 40 s, 1 per second, loss 99",
    ]


def test_work_that_goes_on_is_measured_from_where_it_goes_on(monkeypatch):
    bar, clock, log = in_a_log(monkeypatch, total=100, initial=60, unit="steps")
    with bar:
        clock.now += 100
        bar.update(10)
    assert log.getvalue() == "[ 70%] 70 of 100 steps, 10.0 s each, 5 min 0 s left\n"


def test_work_that_is_iterated_is_counted_once(monkeypatch):
    bar, clock, log = in_a_log(monkeypatch, iterable=range(20))
    for _ in bar:
        clock.now += 2
    lines = log.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [
        "[ 15%] 3 of 20",
        "[ 90%] 18 of 20",
        "[100%] 20 of 20 in 40.0 s",
    ]


def test_quick_work_that_is_not_the_jobs_own_leaves_no_line(monkeypatch):
    bar, _, log = in_a_log(monkeypatch, total=10, unit=BYTES, leave=False)
    with bar:
        bar.update(10)
    assert log.getvalue() == ""


def test_work_that_is_cut_off_has_no_last_line(monkeypatch):
    bar, _, log = in_a_log(monkeypatch, total=10, unit="steps")
    with pytest.raises(KeyboardInterrupt), bar:
        bar.update(9)
        raise KeyboardInterrupt
    assert log.getvalue() == ""


@given(
    n=AMOUNTS, more=AMOUNTS, initial=AMOUNTS, seconds=st.floats(0, 1e7), unit=st.text(max_size=9)
)
def test_a_line_is_one_line_that_is_read_back(tmp_path_factory, n, more, initial, seconds, unit):
    unit = " ".join(unit.split()) or BYTES
    n = max(n, initial)
    told = progress.line(n, n + more, initial, seconds, unit, said="loss 0.5")
    log = tmp_path_factory.getbasetemp() / "read-back.log"
    log.write_text(f"before\n{told}\nafter\n", newline="")
    read = progress.last(log)
    assert told.endswith(read.text) and read.text.endswith("loss 0.5")
    assert (read.share == 1) is (more == 0) or n / (n + more) > 0.99
    assert abs(read.share - (n / (n + more) if n + more else 1)) <= 0.01


def test_a_log_without_progress_tells_nothing(tmp_path):
    assert progress.last(tmp_path / "none.log") is None
    (tmp_path / "x.log").write_text("going on after step 3\n")
    assert progress.last(tmp_path / "x.log") is None


def test_a_terminal_gets_a_bar():
    ours, theirs = pty.openpty()
    shape = {"dynamic_ncols": False, "ncols": 100, "nrows": 40}
    with (
        os.fdopen(theirs, "w") as terminal,
        Progress(total=4, unit="steps", file=terminal, mininterval=0, **shape) as bar,
    ):
        for _ in range(4):
            bar.update(1, "loss 0.5")
    shown = b""
    with suppress(OSError):  # how a terminal that nobody has any more ends
        while part := os.read(ours, 100_000):
            shown += part
    os.close(ours)
    shown = shown.decode()
    assert shown.count("\r") >= 4 and "4/4" in shown and "loss 0.5" in shown
    assert "[100%]" not in shown


# ------------------------------------------------------------------------- what the stages say


def test_a_training_and_an_evaluation_say_in_their_logs_how_far_they_are(
    tiny, data, tmp_path, capsys
):
    train_moe2a(tiny, data, tmp_path, SETTINGS["mofe"])
    told = capsys.readouterr().out
    steps = len((tmp_path / "log.jsonl").read_text().splitlines())
    assert re.search(
        rf"^\[100%\] {steps} of {steps} steps in .*, loss \d+\.\d{{4}}$", told, re.MULTILINE
    )
    assert "\r" not in told
    scorer = evaluate.AnswerScorer(load.checkpoint(tiny / "a"))
    scorer.loglikelihoods([([1, 2, 3], 2), ([1, 2, 4], 2)])
    assert capsys.readouterr().out.startswith("[100%] 2 of 2 answers in ")


def test_merging_says_how_far_it_is(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "FIRST", 0.0)
    monkeypatch.setattr(progress, "INTERVAL", 0.0)
    merge.merge(merge_params(tiny, "a", "aa"), tmp_path / "moe")
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("[")]
    assert any("model.safetensors: " in line and " left" in line for line in told)
    assert any(line.startswith("[100%] model.safetensors: ") for line in told)
