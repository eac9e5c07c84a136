"""What the answers of Slurm's commands mean: states of jobs, and why a submission failed.

Pure functions of text, as slurm-wlm 20.11 to 24.11 print it.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from mofe.jobs.slurm.retries import Cause

# How jobs of one run are asked for: number, state, comment, and name.
FORMAT = "%i|%T|%k|%j"
DONE = "COMPLETED"
# The states in which a job stays, once it is in one of them, and why it ended.
ENDED = {
    "OUT_OF_MEMORY": Cause.MEMORY,
    "TIMEOUT": Cause.TIME,
    "NODE_FAIL": Cause.LOST,
    "BOOT_FAIL": Cause.LOST,
    "PREEMPTED": Cause.LOST,
    "REVOKED": Cause.LOST,
    "CANCELLED": Cause.FAILED,
    "DEADLINE": Cause.FAILED,
    "FAILED": Cause.FAILED,
}
# A job that Slurm is about to put back into the queue can be seen in one of these for a moment.
PASSING = {"NODE_FAIL", "BOOT_FAIL", "PREEMPTED"}


# Slurm's lines in a job's output after a step took too much memory. The job itself, whose script
# sees a step that failed, then often counts as failed.
_MEMORY = re.compile(
    "^(slurmstepd|srun).*(oom.kill|exceeded (job )?memory limit|out.of.memory)",
    re.IGNORECASE | re.MULTILINE,
)


def out_of_memory(output: str) -> bool:
    """Whether a job ran out of memory, by what Slurm wrote among its output."""
    return bool(_MEMORY.search(output))


@dataclass(frozen=True)
class Entry:
    """One job, as Slurm tells of it."""

    number: str
    state: str
    comment: str = ""
    name: str = ""

    @property
    def live(self) -> bool:
        """Whether it waits, runs, or is being ended."""
        return self.state != DONE and self.state not in ENDED


def entries(lines: str) -> list[Entry]:
    """The jobs in what squeue (FORMAT) or sacct (number and state) printed. sacct adds who
    cancelled a job to its state."""
    found = []
    for line in lines.splitlines():
        if "|" not in line:  # a remark, as some sites' wrappers print
            continue
        number, state, *more = (part.strip() for part in line.split("|"))
        found.append(Entry(number, state.split(" ")[0], *more[:2]))
    return found


class Answer(Enum):
    """What a failed command's words say."""

    AWAY = "the controller or its database does not answer: ask again"
    LATER = "a limit of the moment: an attempt has failed"
    NEVER = "a mistake that stays"


_AWAY = re.compile(
    "Unable to contact slurm controller|Socket timed out|Zero Bytes were transmitted"
    "|Connection (refused|timed out|reset)|Communication connection failure|temporarily unable"
    "|Unexpected message|Transport endpoint|controller is in standby|Insane message"
    "|Slurm backup controller|Resource temporarily unavailable|Unable to connect"
    "|Message (receive|send) failure|Protocol authentication error|Munge|slurm_persist_conn"
    "|Slurm database connection|Network is unreachable|No route to host",
    re.IGNORECASE,
)
SITE = "the site's file, profiles/site.yaml or the one that $MOFE_SITE names"
# The key there that is wrong, and how to find what it should be.
_MISTAKES = {
    "Invalid partition name": ("partition", 'sinfo -o "%P %G"'),
    "group not permitted to use this partition": ("partition", 'sinfo -o "%P %G"'),
    "Invalid account": ("account", "sacctmgr show assoc user=$USER format=account"),
    "Invalid feature specification": ("constraint", 'sinfo -o "%N %f %G"'),
    "Invalid qos specification": ("profile: slurm-qos", "sacctmgr show qos format=name"),
    "Invalid generic resource": ("gpu_model", 'sinfo -o "%N %G"'),
    "Requested GRES option unsupported": (
        "gpu_option (gres)",
        "scontrol show config | grep SelectType",
    ),
    "Invalid Trackable RESource": ("gpu_model", 'sinfo -o "%N %G"'),
    "Requested node configuration is not available": (
        "partition, constraint or gpu_model",
        'sinfo -o "%P %N %c %m %f %G"',
    ),
    "Requested time limit is invalid": ("partition", 'sinfo -o "%P %l"'),
    "requested partition configuration not available": ("partition", 'sinfo -o "%P %l %D"'),
    "More processors requested than permitted": ("partition", 'sinfo -o "%P %c"'),
    "Memory required by task is not available": ("partition", 'sinfo -o "%P %m"'),
    "Invalid reservation": ("profile: slurm-reservation", "scontrol show reservation"),
    "Access/permission denied": ("account or partition", 'sinfo -o "%P %g"'),
}


def meaning(told: str) -> Answer:
    """What the words of a failed command say. Unknown words are a limit of the moment."""
    if mistake(told):
        return Answer.NEVER
    return Answer.AWAY if _AWAY.search(told) else Answer.LATER


def mistake(told: str) -> str | None:
    """What to correct where a submission can never succeed."""
    for words, (line, how) in _MISTAKES.items():
        if words.lower() in told.lower():
            return f"correct {line} in {SITE} (to see what there is: {how})"
    return None


def words(told: str) -> str:
    """sbatch's own sentence in what the plugin reports of a failed submission."""
    quoted = re.search(r"The error message was '(.*?)'\.?\n", told, re.DOTALL)
    lines: Iterable[str] = (quoted[1] if quoted else told).splitlines()
    kept = [re.sub(r"^\w+: (error: )?", "", line).strip() for line in lines]
    return "; ".join(line for line in dict.fromkeys(kept) if line)
