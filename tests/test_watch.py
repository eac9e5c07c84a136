"""A run as it goes and ends: the time that is left, what runs, the user's command."""

import logging
import sys
from pathlib import Path

import pytest
from conftest import CONFIG, MINI, ROOT, snakemake
from hypothesis import given
from hypothesis import strategies as st
from snakemake.logging import ColorizingTextHandler, DefaultFormatter
from snakemake_interface_logger_plugins.common import LogEvent

from mofe.jobs import notify, watch
from mofe.jobs.called import Called
from mofe.jobs.notify import Ended
from mofe.jobs.watch import Job
from mofe.progress import Told
from mofe.study.given import Given
from mofe.study.load import read_study
from mofe.study.plan import Plan

# ------------------------------------------------------------------------------- the time left


def job(rule="train", hours=1.0, began=None, ended=None, failed=False, label="x") -> Job:
    return Job(rule, label, hours, None, began, ended, failed)


def test_nothing_is_said_before_anything_is_done():
    assert watch.time_left([job(), job(began=0.0)], [None, None], 5.0) is None


@pytest.mark.parametrize(
    "jobs, shares, now, left",
    [
        # one after the other: what is left takes as long as what is done
        ([job(began=0.0, ended=10.0), job(), job()], [None] * 3, 10.0, 20.0),
        # two at once
        ([job(began=0.0, ended=10.0)] * 2 + [job()] * 4, [None] * 6, 10.0, 20.0),
        # a log that says a quarter: three times that is left
        ([job(began=0.0)], [0.25], 10.0, 30.0),
        # the plan takes evaluations for twice as long, and they take as long: by their own pace
        (
            [job(began=0.0, ended=10.0), job("evaluate", 2.0, 10.0, 20.0), job("evaluate", 2.0)],
            [None] * 3,
            20.0,
            10.0,
        ),
        # of a rule that nothing is known of, the plan's hours at the others' pace
        ([job(began=0.0, ended=10.0), job("merge", 0.5)], [None] * 2, 10.0, 5.0),
        # what failed is not waited for
        ([job(began=0.0, ended=10.0), job(began=10.0, failed=True), job()], [None] * 3, 10.0, 10.0),
    ],
)
def test_the_time_left_follows_from_what_is_done(jobs, shares, now, left):
    assert watch.time_left(jobs, shares, now) == pytest.approx(left)


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0.01, 9)), min_size=1, max_size=9))
def test_the_time_left_is_never_negative_and_shrinks_as_a_log_goes_on(planned):
    jobs = [job(hours=hours, began=0.0, ended=took) for hours, took in planned]
    jobs += [job(hours=1.0, began=0.0), job(hours=1.0)]
    found = [
        watch.time_left(jobs, [None] * len(planned) + [share, None], 10.0) for share in (0.5, 0.9)
    ]
    assert all(left is not None and left >= 0 for left in found) and found[0] >= found[1]


def test_a_line_names_what_runs_and_how_far_it_is():
    jobs = [job(began=0.0, label=f"train {n}") for n in range(5)] + [job(label="train later")]
    told = [Told(0.27, "31 of 112 steps"), *[None] * 5]
    words = watch.running(jobs, told)
    assert words == "train 0 31 of 112 steps; train 1; train 2; and 2 more"


def test_snakemakes_words_get_the_time_left_and_a_plugin_is_left_alone(monkeypatch):
    logger = logging.getLogger("tests.watch")
    shown = ColorizingTextHandler(nocolor=True, stream=sys.stderr, formatter=DefaultFormatter())
    logger.addHandler(shown)
    run = watch.Watch("mine")
    run.begin({1: job(), 2: job()})
    watch.show(run, logger, ())
    now = [1000.0]
    monkeypatch.setattr("mofe.jobs.watch.time.time", lambda: now[0])

    def event(kind: LogEvent, **values) -> logging.LogRecord:
        made = logging.makeLogRecord({"event": kind, "levelno": logging.INFO, **values})
        run.handle(made)
        return made

    event(LogEvent.JOB_INFO, jobid=1)
    now[0] += 10
    event(LogEvent.JOB_FINISHED, job_id=1)
    told = shown.format(event(LogEvent.PROGRESS, done=1, total=2))
    assert told == "1 of 2 steps (50%) done, about 10 s left"
    assert run.line().startswith("mine: 1 of 2 jobs (50%) | about 10 s left")
    event(LogEvent.JOB_INFO, jobid=2)
    event(LogEvent.JOB_ERROR, jobid=2)
    assert (run.done, run.failed) == (1, 1)

    other = logging.getLogger("tests.watch.plugin")
    other.addHandler(logging.Handler())
    before = list(other.handlers)
    watch.show(run, other, ())
    assert other.handlers == [*before, run] and not before[0].filters


# --------------------------------------------------------------------------- the user's command

ENDED = Ended("mine", "results/mine", False, 3, 1, 7, 61.0, "a.log")


def test_the_command_is_told_how_the_run_ended(tmp_path):
    file = tmp_path / "told"
    names = ("MESSAGE", "STUDY", "OUTCOME", "RESULTS", "JOBS_DONE", "JOBS_FAILED", "JOBS_LEFT")
    words = "\\n".join(f"$MOFE_{name}" for name in (*names, "JOBS", "SECONDS", "LOG"))
    assert notify.call(f'printf "{words}" > {file}', ENDED) is None
    assert file.read_text().splitlines() == [
        "mine: failed, 3 of 7 jobs, 1 failed, 1 min 1 s",
        *("mine", "failed", "results/mine", "3", "1", "4", "7", "61", "a.log"),
    ]


def test_a_command_that_fails_or_hangs_is_told_in_a_sentence(monkeypatch):
    told = notify.call("echo no such address; exit 3", ENDED)
    assert told.startswith("notify: the command failed (exit code 3: no such address); the run")
    monkeypatch.setattr(notify, "PATIENCE", 0.2)
    assert "was stopped" in notify.call("sleep 60", ENDED)


@pytest.mark.parametrize("code", [0, 5])
def test_the_command_is_called_at_the_end_and_never_turns_a_good_run_into_a_failed_one(
    tmp_path, code
):
    file = tmp_path / "told"
    overlay = tmp_path / "notify.yaml"
    overlay.write_text(f"notify: 'echo $MOFE_MESSAGE >> {file}; exit {code}'\n")
    files = ["--configfile", str(CONFIG), str(MINI), str(overlay)]
    options = ["--cores", "1", *files, "--config", f"results={tmp_path}/results"]
    target = f"{tmp_path}/results/claims_paper.md"
    told = snakemake(*options, "--", target).stderr
    assert file.read_text().startswith("mini: done, 1 of 1 jobs, ")
    assert ("notify: the command failed (exit code 5)" in told) is (code == 5)
    if not code:  # a dry run, and one that makes nothing of the study, tell nobody
        snakemake(*options, "-n", "--forceall", "--", target)
        snakemake(*options, "--", "status")
        assert len(file.read_text().splitlines()) == 1


def test_how_a_run_is_watched_is_part_of_nothing_that_is_made():
    plain = read_study(CONFIG, MINI)
    one, two = ({"seeds": [0], **more} for more in ({}, {"notify": "true", "track": "wandb"}))
    made = [Given(Plan(plain), {}, config=config).archive() for config in (one, two)]
    assert made[0] == made[1] and made[0]["config"] == one
    here = Path(ROOT)
    called = [Called(here, here, here / "Snakefile", settings=config) for config in (one, two)]
    assert called[0].command == called[1].command and "seeds=[0]" in called[0].command
