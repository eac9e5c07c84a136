"""How jobs stand while a run is at work: by Snakemake's marks, and by their logs."""

import os
from types import SimpleNamespace

import pytest
from conftest import CONFIG, LOOK
from snakemake.persistence.file import FilePersistence
from test_given import identities

from mofe import sums
from mofe.estimate.cost import Costs
from mofe.jobs import standing
from mofe.stages import status

LONG = "results/" + "a-long-name/" * 40 + "train.json"


@pytest.mark.parametrize("name", ["results/mini/train.json", LONG])
def test_snakemakes_marks_are_read(tmp_path, name):
    of = SimpleNamespace(_fetch_max_len=lambda subject: os.pathconf(subject, "PC_NAME_MAX"))
    (tmp_path / "incomplete").mkdir()
    path = FilePersistence._record_path(of, str(tmp_path / "incomplete"), name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    open(path, "w").close()
    assert list(standing.marked(tmp_path)) == [name]
    assert standing.marked(tmp_path / "none") == {}


@pytest.fixture
def study(tmp_path):
    return identities(CONFIG, LOOK, results=str(tmp_path))


def stands(study, marks, at_work=True) -> standing.Standing:
    (found,) = standing.of(study, [job_of(study)], marks, at_work)
    return found


def job_of(study):
    return next(job for job in study.graph.jobs if job.rule == "train")


def write_log(study, text: str) -> str:
    log = study.graph.plan.paths.log(job_of(study).outputs[0])
    os.makedirs(os.path.dirname(log), exist_ok=True)
    with open(log, "w") as file:
        file.write(text)
    return log


def test_a_job_is_queued_then_runs_as_far_as_its_log_says(study):
    output = job_of(study).outputs[0]
    assert stands(study, {}).state == "waiting"
    log = write_log(study, "[ 90%] 9 of 10 steps, of an earlier attempt\n")
    later = os.path.getmtime(log) + 10
    assert stands(study, {output: later}).state == "queued"
    os.utime(log, (later + 1, later + 1))
    runs = stands(study, {output: later})
    assert (runs.state, runs.told.share) == ("running", 0.9)
    cut = stands(study, {output: later}, at_work=False)
    assert (cut.state, cut.cut_off) == ("waiting", True)


def test_one_of_several_in_a_job_of_slurms_ends_before_snakemake_hears_of_it(study):
    """Snakemake's mark stays until the last of them has ended."""
    job = job_of(study)
    now = os.path.getmtime(write_log(study, "failed: ValueError: no\n"))
    failed = stands(study, {job.outputs[0]: now})
    assert (failed.state, failed.why) == ("failed", "ValueError: no")
    write_log(study, "[100%] 9 of 9 steps\n")
    for file in (*job.outputs, sums.path(job.outputs[0])):
        os.makedirs(os.path.dirname(file), exist_ok=True)
        open(file, "w").close()
        os.utime(file, (now, now))
    assert stands(study, {job.outputs[0]: now}).state == "done"
    # what was there before the job began is not what it makes
    os.utime(sums.path(job.outputs[0]), (now - 9, now - 9))
    assert stands(study, {job.outputs[0]: now}).state == "running"


def test_the_page_shows_what_runs_and_counts_its_part(study):
    graph, output = study.graph, job_of(study).outputs[0]
    log = write_log(study, "[ 50%] 5 of 10 steps, 1 per second, 5.0 s left\n")
    now = os.path.getmtime(log)
    costs = Costs(graph.plan)
    hours = {}
    for name, marks in (("runs", {output: now}), ("waits", {})):
        found = standing.of(study, graph.jobs, marks, True)
        hours[name] = status.hours(costs, found)
        page = status.page(graph.plan, graph, found, True, hours[name], now + 3)
        assert ("(3.0 s ago)" in page) is (name == "runs")
        assert ("5 of 10 steps, 1 per second, 5.0 s left" in page) is (name == "runs")
    assert 0 < hours["runs"].left < hours["waits"].left
    assert hours["runs"].spent == 0
