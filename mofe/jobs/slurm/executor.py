"""Submitting jobs to Slurm, and watching them, while its controller or its accounting is away.

Snakemake's plugin for Slurm submits the jobs (snakemake-executor-plugin-slurm). Its class is taken
here with other answers to four questions: how a job ended, whether it is submitted again, what
follows where Slurm does not answer, and how a run is stopped. Only the interface of executors and
a few names of the plugin are used, which tests/test_slurm_answers.py looks for.
"""

import hashlib
import os
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import snakemake_executor_plugin_slurm as plugin
from snakemake_executor_plugin_slurm.utils import get_job_wildcards
from snakemake_interface_common.exceptions import WorkflowError
from snakemake_interface_executor_plugins.executors.base import SubmittedJobInfo
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

from mofe.jobs import ending, warm
from mofe.jobs.slurm.answers import (
    DONE,
    ENDED,
    FORMAT,
    PASSING,
    Answer,
    Entry,
    entries,
    meaning,
    mistake,
    out_of_memory,
    words,
)
from mofe.jobs.slurm.retries import Cause, Ends, decide, sentence

ASK_AGAIN = 5  # seconds between two questions to a Slurm that does not answer
TELL_AGAIN = 600  # seconds between two lines about that
LONGEST_PAUSE = 60  # seconds between two looks at the jobs
LONGEST_END = 180  # seconds that cancelled jobs may take to save their state and end
# So many answers that do not have a job, and it is gone. Slurm forgets finished jobs after
# MinJobAge.
GONE_AFTER = 3
FORGOTTEN = "Slurm does not know how"


def use(ends: Ends, results: str) -> None:
    """Have Snakemake submit jobs to Slurm this way, where its plugin is installed. ends: where
    the ends of jobs are noted. results: the study's folder; only one run at a time may have jobs
    that write to it."""
    registry = ExecutorPluginRegistry()
    if registry.is_installed("slurm"):
        plugin.delete_slurm_environment = _forget_the_job_around
        own = {"ends": ends, "tag": _tag(results)}
        registry.get_plugin("slurm").executor = type("Executor", (Executor,), own)


def _forget_the_job_around() -> None:
    """Take out of the environment what Slurm tells a job, where Snakemake itself is one: its own
    jobs would take it for theirs. The plugin also takes out where Slurm's configuration is."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        if name != "SLURM_CONF":
            del os.environ[name]


def _tag(results: str) -> str:
    """What the names of all jobs end with that write to this folder."""
    return hashlib.sha256(os.path.realpath(results).encode()).hexdigest()[:12]


class Silence(Exception):
    """A command of Slurm's failed, because what it asks does not answer."""


class Executor(plugin.Executor):
    """The plugin's executor, which waits for Slurm and tells jobs' ends apart."""

    ends: Ends
    tag: str

    def __post_init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__post_init__(*arguments, **keywords)
        self.run_uuid = f"{self.run_uuid}_{self.tag}"
        self.logger.info(f"Slurm's name of this run's jobs: {self.run_uuid}")
        self._stopping = threading.Event()
        self._silent_since: float | None = None
        self._told = 0.0
        self._unanswered: dict[Any, str] = {}
        self._submitted: set[str] = set()
        self._passing: set[str] = set()
        self._missed: Counter[str] = Counter()
        self._first = True

    # ---------------------------------------------------------------------------- submission

    def run_jobs(self, jobs: list) -> None:
        if self._first:
            self._first = False
            signal.signal(signal.SIGTERM, _interrupt)
            self._refuse_beside_others()
        super().run_jobs(jobs)

    def run_job(self, job) -> None:
        """Submit a job. Where Slurm does not answer, wait until it does, see whether it has the
        job all the same, and else submit it again."""
        while True:
            super().run_job(job)
            failed = self._unanswered.pop(job, None)
            if failed is None:
                return
            self._silence(words(failed))
            self._stopping.wait(ASK_AGAIN)
            listed = self._until_answered(self._of_this_run)
            if listed is None:
                return  # the run is being stopped
            found = self._lost_submission(job, listed)
            if found:
                self.report_job_submission(found)
                return

    def get_account_arg(self, job):
        """The account as the profile has it: sbatch itself refuses a wrong one, and asking for
        the list of accounts fails while the controller is away."""
        account = job.resources.get("slurm_account")
        yield f" -A {account}" if account else ""

    # ------------------------------------------------------- several jobs as one of Slurm's

    def get_job_exec_prefix(self, job):
        return f"export {warm.IN_TURN}=1" if job.is_group() else super().get_job_exec_prefix(job)

    def format_job_exec(self, job) -> str:
        """The command of a job. One of Slurm's jobs that is for several of Snakemake's starts them
        by a single Snakemake, which goes on after one has failed; the plugin would start three
        processes for each."""
        command, of_the_plugin = super().format_job_exec(job), super().additional_general_args()
        if not job.is_group():
            return command
        here = f"--executor local --cores {job.threads} --keep-going --quiet progress rules host"
        if command.count(of_the_plugin) != 1:
            raise WorkflowError(f"{of_the_plugin!r} is not in the plugin's command: {command}")
        return command.replace(of_the_plugin, here)

    def report_job_submission(self, job_info: SubmittedJobInfo, register_job: bool = True) -> None:
        self._submitted.add(job_info.external_jobid)
        super().report_job_submission(job_info, register_job=register_job)

    def report_job_error(self, job_info: SubmittedJobInfo, msg: str | None = None, **keywords: Any):
        """Report a failed job. The plugin calls this where a submission failed."""
        if self._stopping.is_set():
            return
        if job_info.external_jobid is None:
            answer = meaning(words(msg or ""))
            if answer is Answer.AWAY:
                self._unanswered[job_info.job] = msg
                return
            cause = Cause.REFUSED if answer is Answer.NEVER else Cause.FAILED
            told = f"Slurm does not take the job: {words(msg or '')}"
            if how := mistake(told):
                told = f"{told}; {how}"
            self._fail(job_info, cause, told)
        else:
            super().report_job_error(job_info, msg=msg, **keywords)

    def _lost_submission(self, job, listed: Sequence[Entry]) -> SubmittedJobInfo | None:
        """The job that Slurm took although its answer did not arrive."""
        wildcards = get_job_wildcards(job)
        comment = f"rule_{job.name}" + (f"_wildcards_{wildcards}" if wildcards else "")
        for entry in listed:
            if entry.comment == comment and entry.number not in self._submitted:
                kind = "group" if job.is_group() else "rule"
                log = self.slurm_logdir / f"{kind}_{job.name}" / wildcards / f"{entry.number}.log"
                self.logger.info(f"Slurm has taken the job as {entry.number} (log: {log}).")
                return SubmittedJobInfo(job, entry.number, {"slurm_logfile": log})
        return None

    def _refuse_beside_others(self) -> None:
        """Raises WorkflowError where jobs of an earlier run still write to the results."""

        def ask() -> list[Entry]:
            return entries(_ask("squeue", "--me", "--noheader", f"--format={FORMAT}"))

        others = [
            entry
            for entry in self._until_answered(ask) or ()
            if entry.name.endswith(self.tag) and entry.name != self.run_uuid and entry.live
        ]
        if others:
            names = ",".join(dict.fromkeys(entry.name for entry in others))
            numbers = ", ".join(entry.number for entry in others)
            raise WorkflowError(
                f"Jobs of an earlier run still wait or run, and write to the same results: "
                f"{numbers}; wait until they have ended, or cancel them: scancel --name={names}"
            )

    # -------------------------------------------------------------------------------- status

    async def check_active_jobs(
        self, active_jobs: list[SubmittedJobInfo]
    ) -> AsyncGenerator[SubmittedJobInfo, None]:
        """Report the jobs that have ended, and yield the others."""
        pause = self.next_seconds_between_status_checks
        states = self._states([info.external_jobid for info in active_jobs])
        ended = False
        for info in active_jobs:
            state = None if self._stopping.is_set() else self._end(info, states)
            if state is None:
                yield info
                continue
            ended = True
            if state == DONE:
                self._succeed(info)
            else:
                told = f"Slurm's job {info.external_jobid} ended: {state}."
                self._fail(info, self._cause(info, state), told)
        shortest = self.workflow.executor_settings.init_seconds_before_status_checks
        longer = min(pause + 10, LONGEST_PAUSE)
        self.next_seconds_between_status_checks = shortest if ended else max(shortest, longer)

    async def sleep(self) -> None:
        """Pause between two looks at the jobs, until the run ends."""
        until = time.monotonic() + self.next_seconds_between_status_checks
        while self.wait and time.monotonic() < until:
            await plugin.asyncio.sleep(0.5)

    def _states(self, numbers: Sequence[str]) -> Mapping[str, str]:
        """The states of jobs, as far as Slurm or its accounting knows them."""
        if not numbers:
            return {}
        listed = self._until_answered(self._of_this_run)
        known = {entry.number: entry.state for entry in listed or ()}
        missing = [number for number in numbers if number not in known]
        if not missing or listed is None:
            return known
        try:
            kept = {entry.number: entry.state for entry in _accounted(missing)}
        except Silence:
            return known
        self._missed.update(number for number in missing if number not in kept)
        return known | kept

    def _end(self, info: SubmittedJobInfo, states: Mapping[str, str]) -> str | None:
        """The state in which a job has ended; None while it has not."""
        number = info.external_jobid
        state = states.get(number)
        if state is None:
            if self._missed[number] < GONE_AFTER:
                return None
            return DONE if self._done(info) else FORGOTTEN
        self._missed.pop(number, None)
        if state in PASSING and number not in self._passing:
            self._passing.add(number)
            return None
        if state not in PASSING:
            self._passing.discard(number)
        if state in ENDED and self._done(info):
            return DONE  # stopped between its work's end and its own
        return state if state == DONE or state in ENDED else None

    def _done(self, info: SubmittedJobInfo) -> bool:
        """Whether a job has made all that it was to make, whatever happened to it then."""
        return all(_has_made_all(job, info.external_jobid) for job in _jobs(info))

    def _cause(self, info: SubmittedJobInfo, state: str) -> Cause:
        """Why a job of Slurm's ended, as far as Slurm tells."""
        cause = ENDED.get(state, Cause.LOST)
        if state not in ("FAILED", FORGOTTEN):
            return cause
        output = Path(info.aux["slurm_logfile"])
        found = output.is_file() and out_of_memory(output.read_text(errors="replace"))
        return Cause.MEMORY if found else cause

    def _succeed(self, info: SubmittedJobInfo) -> None:
        self.report_job_success(info)
        if not self.workflow.executor_settings.keep_successful_logs:
            Path(info.aux["slurm_logfile"]).unlink(missing_ok=True)

    def _fail(self, info: SubmittedJobInfo, cause: Cause, told: str) -> None:
        """Report a failed attempt, and have Snakemake repeat it or not. Of several jobs, those that
        are made are made; the others are repeated where one of them may be."""
        job, retries = info.job, info.job.restart_times
        noted = [
            self.ends.note(j.rule.name, j.wildcards_dict, _cause_of(j, info.external_jobid, cause))
            for j in _unmade(info)
        ]
        ends = max(noted, key=lambda found: decide(found, retries).again)
        # Snakemake repeats a job as long as its attempt is not above the number of retries.
        job.attempt = retries if decide(ends, retries).again else retries + 1
        logs = [str(info.aux["slurm_logfile"])] if info.aux else []
        what = f"{told} {sentence(ends, retries)}"
        super().report_job_error(info, msg=what + " ", aux_logs=logs)

    def print_job_error(self, job_info: SubmittedJobInfo, msg: str | None = None, **keywords: Any):
        """Tell a failure of what failed: Snakemake would tell it of all jobs, without why."""
        for job in _unmade(job_info):
            job.log_error(msg, **keywords)

    # ------------------------------------------------------------------------------- the end

    def cancel(self) -> None:
        """Stop the run: nothing more is submitted, and what was submitted is cancelled."""
        self._stopping.set()
        self._job_submission_executor.shutdown(wait=True, cancel_futures=True)
        super().cancel()

    def cancel_jobs(self, active_jobs: list[SubmittedJobInfo]) -> None:
        """Cancel all jobs of this run, and wait until they have saved their state and ended."""
        command = ["scancel", f"--name={self.run_uuid}"]
        if self._first:
            return  # nothing was submitted
        try:
            self._until_answered(lambda: _cancel(command), stoppable=False)
            left = self._await_ends()
        except KeyboardInterrupt:
            self.logger.warning(f"Jobs may still run; to cancel them: {' '.join(command)}")
            return
        if left:
            self.logger.warning(
                f"These cancelled jobs have not ended yet: {', '.join(left)}; call Snakemake again "
                'when they have: squeue --me -o "%i %k %T %M %R"'
            )

    def _await_ends(self) -> list[str]:
        """Wait until all jobs of this run have ended. Returns those that have not in time."""
        deadline = time.monotonic() + LONGEST_END
        while True:
            listed = self._until_answered(self._of_this_run, stoppable=False)
            left = [entry.number for entry in listed if entry.live]
            if not left or time.monotonic() > deadline:
                return left
            time.sleep(1)

    # ------------------------------------------------------------------------------- silence

    def _of_this_run(self) -> list[Entry]:
        """All jobs of this run that Slurm still knows. Raises Silence."""
        name = f"--name={self.run_uuid}"
        return entries(_ask("squeue", "--states=all", "--noheader", name, f"--format={FORMAT}"))

    def _until_answered(self, ask: Callable[[], Any], stoppable: bool = True) -> Any:
        """What a question to Slurm gives, asked until there is an answer; None where the run is
        stopped before."""
        while not (stoppable and self._stopping.is_set()):
            try:
                answer = ask()
            except Silence as error:
                self._silence(str(error))
                self._stopping.wait(ASK_AGAIN) if stoppable else time.sleep(ASK_AGAIN)
            else:
                if self._silent_since is not None:
                    self.logger.warning("Slurm answers again.")
                self._silent_since = None
                return answer
        return None

    def _silence(self, told: str) -> None:
        """Tell that Slurm does not answer, now and then."""
        now = time.monotonic()
        if self._silent_since is None or now - self._told > TELL_AGAIN:
            self._silent_since, self._told = self._silent_since or now, now
            self.logger.warning(
                f"Slurm does not answer ({told}); it is asked again until it does, and nothing is "
                "lost. To stop: Ctrl-C."
            )


def _jobs(info: SubmittedJobInfo) -> list:
    """Snakemake's jobs that one job of Slurm's is for."""
    return list(info.job.jobs) if info.job.is_group() else [info.job]


def _unmade(info: SubmittedJobInfo) -> list:
    """Those of them that made not all; all where each says that it did."""
    number = info.external_jobid
    return [j for j in _jobs(info) if number is None or not _has_made_all(j, number)] or _jobs(info)


def _told_by_its_log(job, number: str) -> ending.Ending | None:
    return ending.read(job.log[0], number) if job.log else None


def _has_made_all(job, number: str) -> bool:
    """Whether a job's log says that it ended well in Slurm's job, and what it makes is there."""
    told = _told_by_its_log(job, number)
    return bool(told and told.error is None and all(map(os.path.exists, job.output)))


def _cause_of(job, number: str | None, cause: Cause) -> Cause:
    """Why a job ended in one of Slurm's that ended by `cause`, of which only the job's log knows
    that it would come again."""
    told = _told_by_its_log(job, number) if number else None
    return Cause.REFUSED if told and told.refused else cause


def _ask(*command: str) -> str:
    """What a command of Slurm's prints. Raises Silence where it fails, for whatever reason: an
    unknown state of jobs is never taken for their end."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    except subprocess.TimeoutExpired as error:
        raise Silence(f"{command[0]} took longer than {error.timeout:.0f} s") from error
    if done.returncode:
        raise Silence(words(done.stderr) or f"{command[0]} failed")
    return done.stdout


def _cancel(command: Sequence[str]) -> None:
    """Cancel jobs; whether they have ended is asked afterwards. Raises Silence."""
    try:
        _ask(*command)
    except Silence as error:
        if meaning(str(error)) is Answer.AWAY:
            raise


def _accounted(numbers: Sequence[str]) -> list[Entry]:
    """What the accounting knows of jobs: nothing where there is none. Raises Silence."""
    if shutil.which("sacct") is None:
        return []
    command = ["sacct", "-X", "-n", "-P", f"--jobs={','.join(numbers)}", "--format=JobIDRaw,State"]
    try:
        return entries(_ask(*command))
    except Silence as error:
        if "accounting storage is disabled" in str(error):
            return []
        raise


def _interrupt(number: int, frame: Any) -> None:
    """SIGTERM stops a run as Ctrl-C does; a second one changes nothing."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt
