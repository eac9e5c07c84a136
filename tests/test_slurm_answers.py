"""What Slurm's words mean, what follows a job's ends, and what our executor takes from the plugin.
No Slurm is needed."""

import inspect
import json
import logging
from types import SimpleNamespace

import pytest
import snakemake_executor_plugin_slurm as plugin
import snakemake_executor_plugin_slurm_jobstep as jobstep
from snakemake.scheduling.job_scheduler import JobScheduler
from snakemake_executor_plugin_slurm import utils
from snakemake_interface_logger_plugins.common import LogEvent

from mofe.jobs import ending
from mofe.jobs.slurm import answers, gres, retries
from mofe.jobs.slurm.answers import Answer, Entry
from mofe.jobs.slurm.executor import Executor
from mofe.jobs.slurm.retries import Cause, decide

MEMORY, TIME, LOST, FAILED, REFUSED = (
    Cause.MEMORY,
    Cause.TIME,
    Cause.LOST,
    Cause.FAILED,
    Cause.REFUSED,
)


@pytest.mark.parametrize(
    "ends, again, memory, time",
    [
        ([], False, 1, 1),
        ([MEMORY], True, 2, 1),
        ([MEMORY, MEMORY], True, 3, 1),
        ([TIME], True, 1, 2),
        ([TIME, MEMORY, FAILED], True, 2, 2),
        ([FAILED] * 3, True, 1, 1),
        ([FAILED] * 4, False, 1, 1),
        ([LOST] * 20, True, 1, 1),
        ([LOST] * 21, False, 1, 1),
        ([LOST] * 15 + [TIME] * 3, True, 1, 4),
        ([LOST] * 15 + [TIME] * 4, False, 1, 5),
        ([REFUSED], False, 1, 1),
        ([MEMORY, REFUSED], False, 2, 1),
    ],
)
def test_memory_follows_memory_and_time_follows_time(ends, again, memory, time):
    assert decide(ends, 3) == retries.Verdict(again, memory, time)
    assert not decide(ends, 0).again


def test_the_ends_of_a_job_are_its_own():
    ends = retries.Ends()
    ends.note("train", {"variant": "a", "seed": "0"}, TIME)
    assert ends.note("train", {"seed": "0", "variant": "a"}, MEMORY) == (TIME, MEMORY)
    assert ends.of("train", {"variant": "b", "seed": "0"}) == ()
    assert ends.of("evaluate", {"variant": "a", "seed": "0"}) == ()


def test_what_is_done_is_told():
    assert "3 times its time" in retries.sentence([TIME, TIME], 3)
    assert retries.sentence([LOST], 3) == "It is submitted again."
    assert "not submitted again" in retries.sentence([REFUSED], 3)


# The sentences are those of slurm-wlm 22.05 and of its source, src/common/slurm_errno.c.
@pytest.mark.parametrize(
    "told, answer",
    [
        ("sbatch: error: Unable to contact slurm controller (connect failure)", Answer.AWAY),
        ("Socket timed out on send/recv operation", Answer.AWAY),
        ("sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying", Answer.AWAY),
        ("Zero Bytes were transmitted or received", Answer.AWAY),
        ("sbatch: error: Batch job submission failed: Invalid partition name specified",
         Answer.NEVER),
        ("Batch job submission failed: Invalid account or account/partition combination specified",
         Answer.NEVER),
        ("Batch job submission failed: Invalid feature specification", Answer.NEVER),
        ("Batch job submission failed: Invalid qos specification", Answer.NEVER),
        ("Batch job submission failed: Requested node configuration is not available", Answer.NEVER),
        ("sbatch: error: Requested GRES option unsupported by configured SelectType plugin",
         Answer.NEVER),
        ("Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)",
         Answer.LATER),
        ("something new", Answer.LATER),
    ],
)  # fmt: skip
def test_what_a_failed_command_says(told, answer):
    assert answers.meaning(told) is answer
    assert bool(answers.mistake(told)) == (answer is Answer.NEVER)


def test_sbatchs_own_words_are_taken_from_the_plugins_report():
    told = (
        "SLURM sbatch failed. The error message was 'sbatch: error: invalid partition specified: "
        "nope\nsbatch: error: Batch job submission failed: Invalid partition name specified'.\n"
        '    sbatch call:\n        sbatch --wrap="x Socket timed out"\n'
    )
    found = answers.words(told)
    assert found == (
        "invalid partition specified: nope; Batch job submission failed: Invalid partition name "
        "specified"
    )
    assert answers.meaning(found) is Answer.NEVER


def test_states_are_read_from_squeue_and_sacct():
    squeue = "a site's remark\n12|COMPLETING|rule_train|mofe_1\n13|COMPLETED||mofe_1\n"
    live, done = answers.entries(squeue)
    assert live == Entry("12", "COMPLETING", "rule_train", "mofe_1") and live.live
    assert not done.live
    (cancelled,) = answers.entries("14|CANCELLED by 1000\n")
    assert answers.ENDED[cancelled.state] is FAILED and not cancelled.live


@pytest.mark.parametrize(
    "line, memory",
    [
        ("slurmstepd-cpu01: error: StepId=5.0 exceeded memory limit (610 > 209), being killed", True),
        ("slurmstepd: error: Detected 1 oom-kill event(s) in StepId=5.0. Some of your", True),
        ("srun: error: gpu01: task 0: Out Of Memory", True),
        ("slurmstepd-cpu01: error: *** STEP 5.0 ON cpu01 CANCELLED AT 2026-11-27T11:41:04 ***", False),
        ("train x: OutOfMemoryError: CUDA out of memory", False),
    ],
)  # fmt: skip
def test_slurms_own_lines_tell_that_memory_ran_out(line, memory):
    assert answers.out_of_memory(f"before\n{line}\nsrun: error: task 0: Killed\n") is memory


@pytest.mark.parametrize(
    "error, again",
    [
        (ValueError("lower it"), False),
        (FloatingPointError("not finite"), False),
        (RuntimeError("CUDA out of memory"), True),
        (OSError(28, "No space left on device"), True),
    ],
)
def test_a_job_notes_whether_another_attempt_can_help(tmp_path, monkeypatch, error, again):
    monkeypatch.setenv(ending.SLURM_JOB, "7")
    log = tmp_path / "log"
    log.write_text("Traceback\n" + ending.failed(error, "several\nwords"))
    assert ending.failure(log) == "several words"
    assert ending.read(log, "7") == ending.Ending(type(error).__name__, again)
    assert ending.read(log, "7").refused is not again
    assert ending.read(log, "8") is None, "another attempt's log"


@pytest.mark.parametrize("last", ["", "{", '{"job": "x"', "plain", '{"seconds": {}}', "\0" * 9])
def test_a_log_without_an_ending_tells_nothing(tmp_path, last):
    log = tmp_path / "log"
    log.write_text(f"some\n{last}")
    assert ending.read(log, "7") is None
    assert ending.read(tmp_path / "none", "7") is None


def test_a_job_that_succeeded_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv(ending.SLURM_JOB, "7")
    line = ending.finished("train x", seconds={"starting": 1.0, "computing": 2.0})
    (tmp_path / "log").write_text(line + "\n")
    assert ending.failure(tmp_path / "log") is None
    assert ending.read(tmp_path / "log", "7") == ending.Ending(None, False)
    assert not ending.read(tmp_path / "log", "7").refused
    monkeypatch.delenv(ending.SLURM_JOB)
    assert json.loads(ending.finished("train x")) == {"job": "train x"}
    assert ending.failed(ValueError("lower it"), "lower it") == "failed: lower it\n"


def test_the_plugin_has_what_our_executor_takes_from_it():
    """Where this fails after an update of Snakemake or the plugin, read mofe/jobs/slurm/executor.py
    again."""
    for name in (
        *("run_job", "run_jobs", "check_active_jobs", "cancel_jobs", "get_account_arg"),
        *("format_job_exec", "get_job_exec_prefix", "additional_general_args", "print_job_error"),
    ):
        assert callable(getattr(plugin.Executor, name)), name
    assert str(inspect.signature(utils.get_job_wildcards)).startswith("(job")
    source = inspect.getsource(plugin.Executor)
    for used in (
        "self.run_uuid",
        "self._job_submission_executor.submit(self.run_job, job)",
        "self.slurm_logdir / group_or_rule / wildcard_str",
        'comment_str = f"rule_{job.name}_wildcards_{wildcard_str}"',
        "next(self.get_account_arg(job))",
        "self._report_job_error_threadsafe(",
        'aux={"slurm_logfile": slurm_logfile}',
        "The error message was '{e.output.strip()}'.",
    ):
        assert used in source, used
    assert "+= set_gres_string(job)" in source and "delete_slurm_environment()" in source
    assert "get_gpu_setting(job)" in inspect.getsource(jobstep.Executor)
    handler = inspect.getsource(JobScheduler)
    assert "if job.restart_times > job.attempt - 1:" in handler
    assert "signal.signal(signal.SIGTERM, self.exit_gracefully)" in handler


class Task:
    """A job of Snakemake's in a group, with its log, that made its output or not."""

    def __init__(self, number: int, folder, made: bool):
        self.jobid, self.rule = number, SimpleNamespace(name="evaluate")
        self.output, self.log = [str(folder / f"{number}.json")], [str(folder / f"{number}.log")]
        self.told = []
        if made:
            (folder / f"{number}.json").touch()
            (folder / f"{number}.log").write_text(ending.finished("evaluate x"))

    def log_error(self, message, **_):
        self.told.append(message)


def test_a_group_that_failed_tells_which_of_its_jobs_have_ended_well(tmp_path, monkeypatch, caplog):
    """Whoever counts the run's jobs hears of each that it ended."""
    monkeypatch.setenv(ending.SLURM_JOB, "7")
    made, failed = Task(1, tmp_path, True), Task(2, tmp_path, False)
    group = SimpleNamespace(jobs=[made, failed], is_group=lambda: True)
    ours = object.__new__(Executor)
    ours.logger = logging.getLogger("tests.slurm")
    with caplog.at_level(logging.INFO, "tests.slurm"):
        ours.print_job_error(SimpleNamespace(job=group, external_jobid="7"), "no memory")
    assert (made.told, failed.told) == ([], ["no memory"])
    (said,) = caplog.records
    assert (said.event, said.job_id) == (LogEvent.JOB_FINISHED, 1)


# ------------------------------------------------------------------------------ GPUs by --gres


class Asking:
    """A job with these resources."""

    name = "train"

    def __init__(self, **resources):
        self.resources = resources


def test_gres_is_asked_for_each_node():
    assert gres.option(Asking(gpu=1, gpu_model="a100")) == "--gres=gpu:a100:1"
    assert gres.option(Asking(gpu=4, nodes=2)) == "--gres=gpu:2"
    with pytest.raises(ValueError, match="gpu is 3, which cannot be spread evenly over nodes: 2"):
        gres.option(Asking(gpu=3, nodes=2))
