"""Starting a job in several processes, by `accelerate launch`, on one machine or several.

Only the standard library and light modules are imported, as in mofe/jobs/job.py.
"""

import os
import pickle
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TextIO

from mofe import stops
from mofe.jobs import outcome
from mofe.training import limit

CONFIG = Path(__file__).with_name("accelerate.yaml")


def start(job, processes: int, nodes: int = 1) -> int:
    """Run a job (mofe.jobs.job.Job) in several processes. Returns 0 if all of them succeed, else 1.

    processes: their number, spread evenly over `nodes`, the machines of this Slurm job. What the
    processes and their launcher print goes to `{log}.processes`; their lines about the job also go
    to the terminal. SIGTERM, SIGUSR1 and SIGINT are passed on. Where memory did not suffice and
    fewer rows are to be computed at once, the processes are started again. Raises ValueError where
    the processes cannot be spread evenly.
    """
    if processes % nodes:
        raise ValueError(
            f"resources: gpu is {processes}, which cannot be spread evenly over nodes: {nodes}; "
            "make gpu (of the whole job) a multiple of nodes"
        )
    file = Path(f"{job.log}.job").absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    # the processes inherit the environment; a file with its secrets would lie on a shared disk
    file.write_bytes(pickle.dumps(replace(job, environment={})))
    command = _everywhere(nodes, _accelerate(file, processes, nodes))
    asked: list[int] = []  # the signals so far
    with open(f"{job.log}.processes", "w") as log:
        while True:
            before = _limit(job)
            code = _launch(command, job.label, log, asked)
            # a process that lacked memory has noted that fewer rows are to be computed at once
            if code == 0 or asked or _limit(job) == before:
                break
    file.unlink()
    return int(code != 0)


def _limit(job) -> bytes:
    return limit.noted(Path(job.scratch)) if job.scratch else b""


def _launch(command: list[str], label: str, log: TextIO, asked: list[int]) -> int:
    """Run the launcher of the processes, with what it prints in the log, and return its code. The
    signals that come are passed on and added to `asked`."""
    # SIGUSR1 would kill the launcher, so it inherits that this signal is ignored.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    launcher = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env={
            # torchrun would kill its processes 30 s after SIGTERM, while a large checkpoint is
            # written
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "600",
            **os.environ,
            "PYTHONSAFEPATH": "1",  # no package of this name in the working directory
        },
    )

    def pass_on(number: int, frame) -> None:
        asked.append(number)
        if launcher.poll() is None:
            # launchers pass on neither SIGUSR1 nor SIGINT; the processes treat all three alike
            os.killpg(launcher.pid, signal.SIGTERM)

    for number in stops.NUMBERS:
        signal.signal(number, pass_on)
    for line in launcher.stdout:
        log.write(line)
        if line.startswith(label):
            outcome.say(line.rstrip("\n"))
    return launcher.wait()


def _accelerate(file: Path, processes: int, nodes: int) -> list[str]:
    """The command that starts one machine's share of the processes."""
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIG)]
    command += ["--multi_gpu", "--num_processes", str(processes), "--num_machines", str(nodes)]
    if nodes > 1:
        # this runs on the job's first machine; no other job uses this port there
        port = 20000 + int(os.environ["SLURM_JOB_ID"]) % 20000
        command += ["--main_process_ip", socket.gethostname(), "--main_process_port", str(port)]
        command += ["--same_network", "--machine_rank", "{machine}"]
    else:
        command += ["--main_process_port", "0"]
    return [*command, "--module", "mofe.jobs.launch", str(file)]


def _everywhere(nodes: int, command: list[str]) -> list[str]:
    """A command that runs the given one once on each machine of this Slurm job."""
    if nodes == 1:
        return command
    spread = ["srun", "--overlap", f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
    return [*spread, sys.executable, "-m", "mofe.jobs.launch", "--machine", *command]


def _on_this_machine(command: list[str]) -> None:
    """Replace this process by the command, with this machine's number in the Slurm job filled
    in."""
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    machine = os.environ["SLURM_NODEID"]
    os.execv(command[0], [machine if word == "{machine}" else word for word in command])


def _work(file: str) -> int:
    """Make the job's call in one of the processes. The first one writes the job's log, each other
    one a log of its own beside it."""
    from mofe.jobs.job import execute

    job, number = pickle.loads(Path(file).read_bytes()), int(os.environ["RANK"])
    if number:
        # the first one removes what they share
        job = replace(
            job, scratch=None, log=f"{job.log}.{number}", label=f"{job.label} (process {number})"
        )
    code = execute(job)
    if code:
        os._exit(code)  # a normal exit would wait for the others, which wait for this one
    if (distributed := sys.modules.get("torch.distributed")) and distributed.is_initialized():
        distributed.destroy_process_group()
    return code


if __name__ == "__main__":
    if sys.argv[1] == "--machine":
        _on_this_machine(sys.argv[2:])
    sys.exit(_work(sys.argv[1]))
