"""When Snakemake looks for jobs to start: where it may find one, and not more often.

After each look at jobs that are ready, Snakemake 9.27 plans another one a second later, for the
sake of --max-jobs-per-timespan (by default 100/1s). So while jobs wait for cores, each end of a job
adds a look to every second that follows. Each look asks the file system for all their inputs.
"""

import threading

from snakemake.scheduling.job_scheduler import JobScheduler


def use() -> None:
    """Have Snakemake look again when a job ends. It also looks again after the timespan where its
    limit of jobs per timespan held back jobs, where it looks at a sample of the jobs only, and
    where rules wait for input from a queue."""
    JobScheduler._schedule_reevalutation = _later


def _later(scheduler: JobScheduler, seconds: float) -> None:
    """Plan one look in `seconds`, unless one is planned or only the end of a job can matter."""
    limiter = scheduler.job_rate_limiter
    # as of the selection: since then, submitting may have taken longer than the timespan
    limited = limiter is not None and len(limiter._jobs) >= limiter.max_jobs
    held_back = limited or scheduler.subsample
    planned = getattr(scheduler, "_planned_look", None)
    if planned or not (held_back or scheduler.workflow.dag.has_unfinished_queue_input_jobs()):
        return

    def look() -> None:
        scheduler._planned_look = None
        scheduler._open_jobs.release()

    scheduler._planned_look = threading.Timer(seconds, look)
    scheduler._planned_look.daemon = True
    scheduler._planned_look.start()
