"""A Slurm of one's own on this machine, to see profiles/slurm at work.

    python -m tests.slurm up      start it, and print how to use it
    python -m tests.slurm down    cancel its jobs and stop it

Real daemons (munged, slurmctld, slurmd) on loopback, without systemd, accounting or anything under
/etc: two CPU nodes in the partition `cpu`, and in the partition `gpu` two nodes with the feature
a100_80g that say they have three A100s each. They have none, and all nodes are this machine, whatever
CPUs and memory they claim. Needs Debian's package slurm-wlm.
"""

import contextlib
import getpass
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

CPU_NODES, GPU_NODES, GPUS = ("cpu01", "cpu02"), ("gpu01", "gpu02"), 3
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "srun")
SBIN = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

SLURM_CONF = """\
ClusterName=mofe
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.own
SlurmdPidFile={folder}/run/%n.own
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
MailProg=/bin/true
MpiDefault=none
SwitchType=switch/none
# there are no cgroups to rely on: processes are found by their parents, memory is polled
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=5
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
GresTypes=gpu
# nodes claim more than this machine has
SlurmdParameters=config_overrides
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,sched_interval=2,sched_min_interval=0,batch_sched_delay=0
JobRequeue=1
ReturnToService=2
# finished jobs stay in `scontrol show job`: they are the records that tests read
MinJobAge=7200
SlurmctldTimeout=10
# a slow machine's daemons are not lost ones
SlurmdTimeout=300
BatchStartTimeout=300
MessageTimeout=60
# at a time limit, seconds between SIGTERM and SIGKILL, as is Slurm's default
KillWait=30
{nodes}
PartitionName=cpu Nodes={cpu} MaxTime=1-0
PartitionName=gpu Nodes={gpu} MaxTime=7-0
"""


@dataclass(frozen=True)
class Slurm:
    """A private Slurm, with everything it writes in `folder` (a short path: it holds sockets)."""

    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which Slurm's commands speak to it."""
        path = os.pathsep.join([str(self.folder / "bin"), SBIN])
        return {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}

    def start(self) -> None:
        """Write its configuration and start it, with no job; it accepts jobs when this returns.

        Raises RuntimeError where a daemon is not ready in time, and then stops what did start.
        """
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        try:
            self._configure()
            self._spawn("munged", *self._munged())
            self._wait("munge", "-n", "--socket", str(self.folder / "munge.socket"))
            self.start_controller()
            for node in CPU_NODES + GPU_NODES:
                self._spawn(node, "slurmd", "-D", "-N", node)
            self._wait("sh", "-c", f"test $(sinfo -hN -o %T | grep -c idle) = {len(self.nodes)}")
        except BaseException:
            self.stop()
            raise

    @property
    def nodes(self) -> tuple[str, ...]:
        return CPU_NODES + GPU_NODES

    def start_controller(self) -> None:
        self._spawn("slurmctld", "slurmctld", "-D")
        self._wait("scontrol", "ping")

    def stop_controller(self) -> None:
        self._end("slurmctld")

    def stop(self) -> None:
        """Cancel its jobs and end all its processes, also those of a start that failed."""
        if self._pid("slurmctld"):
            self._try("scancel", "--user", getpass.getuser())
            deadline = time.monotonic() + 10
            while self._try("squeue", "-h").strip() and time.monotonic() < deadline:
                time.sleep(0.2)
        for name in (*self.nodes, "slurmctld", "munged"):
            self._end(name)
        for pid in self._left():  # steps outlive their slurmd
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def jobs(self) -> list[dict[str, str]]:
        """Slurm's records of all its jobs, oldest first, as `scontrol show job` has them."""
        text = self.run("scontrol", "show", "job", "--oneliner", "--detail")
        # values may hold spaces, keys do not; a colon is part of a key (GRES_IDX) in details only
        return [
            dict(re.findall(r"(\S+?)=(.*?)(?= [A-Za-z:_/]+=|$)", line))
            for line in text.splitlines()
            if line.startswith("JobId=")
        ]

    def run(self, *command: str) -> str:
        """What one of Slurm's commands prints. Raises CalledProcessError where it fails."""
        return subprocess.run(
            command, env=self.environment, check=True, capture_output=True, text=True, timeout=300
        ).stdout

    # ------------------------------------------------------------------------------------------

    def _configure(self) -> None:
        for name in ("bin", "dev", "log", "run", "state", *(f"spool/{n}" for n in self.nodes)):
            (self.folder / name).mkdir(parents=True, mode=0o755)
        ports = _free_ports(1 + len(self.nodes))
        sizes = {
            **dict.fromkeys(CPU_NODES, "CPUs=16 RealMemory=64000"),
            **dict.fromkeys(
                GPU_NODES, f"CPUs=32 RealMemory=500000 Gres=gpu:a100:{GPUS} Feature=a100_80g"
            ),
        }
        host = socket.gethostname().partition(".")[0]
        nodes = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} {sizes[node]}"
            for node, port in zip(self.nodes, ports[1:], strict=True)
        ]
        text = SLURM_CONF.format(
            host=host,
            user=getpass.getuser(),
            folder=self.folder,
            ports=ports,
            nodes="\n".join(nodes),
            cpu=",".join(CPU_NODES),
            gpu=",".join(GPU_NODES),
        )
        (self.folder / "slurm.conf").write_text(text)
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        # with devices of a count only, Slurm calls the node invalid
        for number in range(GPUS):
            (self.folder / f"dev/nvidia{number}").symlink_to("/dev/null")
        (self.folder / "gres.conf").write_text(
            "".join(
                f"NodeName={node} Name=gpu Type=a100 File={self.folder}/dev/nvidia[0-{GPUS - 1}]\n"
                for node in GPU_NODES
            )
        )
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(1024))
        # Snakemake's jobs call srun without SLURM_CONF, which a Slurm in /etc would not need
        srun = self.folder / "bin" / "srun"
        real = shutil.which("srun", path=SBIN)
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {real} "$@"\n')
        srun.chmod(0o755)

    def _munged(self) -> list[str]:
        options = {
            "key-file": "munge.key",
            "socket": "munge.socket",
            "pid-file": "run/munged.own",
            "log-file": "log/munged.log",
            "seed-file": "run/munge.seed",
        }
        files = [f"--{option}={self.folder}/{file}" for option, file in options.items()]
        return ["munged", "--foreground", "--force", "--num-threads=2", *files]

    def _spawn(self, name: str, *command: str) -> None:
        with open(self.folder / f"log/{name}.out", "a") as log:
            process = subprocess.Popen(
                command,
                env={**self.environment, "MOFE_SLURM": str(self.folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        (self.folder / f"run/{name}.pid").write_text(str(process.pid))

    def _pid(self, name: str) -> int | None:
        """The process of a daemon that this cluster started, if it still runs."""
        file = self.folder / f"run/{name}.pid"
        pid = int(file.read_text()) if file.exists() else None
        return pid if pid in self._left() else None

    def _left(self) -> list[int]:
        """This cluster's daemons and their children, by the mark in their environment."""
        mark = f"MOFE_SLURM={self.folder}".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mark in (process / "environ").read_bytes().split(b"\0"):
                    found.append(int(process.name))
        return found

    def _end(self, name: str) -> None:
        pid = self._pid(name)
        for number, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
            deadline = time.monotonic() + seconds
            while pid in self._left() and time.monotonic() < deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
                time.sleep(0.2)

    def _wait(self, *command: str, seconds: float = 300) -> None:
        deadline = time.monotonic() + seconds
        while True:
            done = subprocess.run(
                command, env=self.environment, capture_output=True, text=True, check=False
            )
            if done.returncode == 0:
                return
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"{' '.join(command)} fails after {seconds:.0f} s ({done.stdout}{done.stderr}); "
                    f"see {self.folder}/log"
                )
            time.sleep(0.1)

    def _try(self, *command: str) -> str:
        with contextlib.suppress(subprocess.SubprocessError):
            return self.run(*command)
        return ""


def missing() -> list[str]:
    """The programs that are needed and not installed."""
    return [program for program in PROGRAMS if shutil.which(program, path=SBIN) is None]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def main(arguments: list[str]) -> int | str:
    slurm = Slurm(Path(f"/tmp/mofe-slurm-{os.getuid()}"))
    if arguments == ["up"]:
        if missing():
            return f"{', '.join(missing())} not found: as root, apt-get install slurm-wlm"
        slurm.start()
        print(slurm.run("sinfo", "-N", "-o", "%N %P %t %c %m %G"))
        print(f"To use it in a shell:\n  export SLURM_CONF={slurm.folder}/slurm.conf")
        print(f"  export PATH={slurm.folder}/bin:$PATH")
        return 0
    if arguments == ["down"]:
        slurm.stop()
        return 0
    return __doc__


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
