"""Running a study's jobs on Slurm: `executor` submits and watches them, `answers` says what Slurm's
words mean, and `retries` decides whether a job that ended is tried again."""
