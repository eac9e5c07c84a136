"""A Slurm of one's own on this machine, to see profiles/slurm at work.

    python -m tests.slurm up [--accounting]    start it, and print how to use it
    python -m tests.slurm down                 cancel its jobs and stop it

Real daemons (munged, slurmctld, slurmd) on loopback, without systemd or anything under /etc: two CPU
nodes in the partition `cpu`, and in the partition `gpu` two nodes with the feature a100_80g that say
they have three A100s each. They have none, and all nodes are this machine, whatever CPUs and memory
they claim. Jobs in the partition `urgent` take the GPU nodes from those in `gpu`, which go back to the
queue. Needs Debian's package slurm-wlm. With accounting there are slurmdbd and MariaDB, one account,
`lab`, and no job without an account; that needs slurmdbd, mariadb-server-core and mariadb-client-core.
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
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CPU_NODES, GPU_NODES, GPUS = ("cpu01", "cpu02"), ("gpu01", "gpu02"), 3
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel", "srun")
ACCOUNTING = ("slurmdbd", "mariadbd", "mariadb-install-db", "sacctmgr", "sacct")
PACKAGES = "slurm-wlm slurmdbd mariadb-server-core mariadb-client-core"
ACCOUNT = "lab"
SBIN = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

SLURM_CONF = """\
ClusterName=mofe
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
# a job that goes back to the queue waits there until its credentials have expired: 120 s, if unset
AuthInfo=socket={folder}/munge.socket,cred_expire=20
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.own
SlurmdPidFile={folder}/run/%n.own
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/%n.log
MailProg={folder}/bin/mail
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
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
# finished jobs stay in `scontrol show job` as long: they are the records that tests read
MinJobAge={min_job_age}
SlurmctldTimeout=10
# a slow machine's daemons are not lost ones
SlurmdTimeout=300
BatchStartTimeout=300
MessageTimeout=60
# at a time limit, seconds between SIGTERM and SIGKILL, as is Slurm's default
KillWait=30
{nodes}
PartitionName=cpu Nodes={cpu} MaxTime=1-0
PartitionName=gpu Nodes={gpu} MaxTime=7-0 PriorityTier=1
PartitionName=urgent Nodes={gpu} MaxTime=7-0 PriorityTier=10
{accounting}
"""
ACCOUNTING_CONF = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={port}
AccountingStoragePass={folder}/munge.socket
AccountingStorageEnforce=associations
AccountingStorageTRES=gres/gpu,gres/gpu:a100
"""
SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={ports[0]}
SlurmUser={user}
CommunicationParameters=NoInAddrAny
PidFile={folder}/run/slurmdbd.own
LogFile={folder}/log/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={ports[1]}
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm
"""
DATABASE = """\
create database slurm;
create user 'slurm'@'localhost' identified by 'slurm';
create user 'slurm'@'127.0.0.1' identified by 'slurm';
grant all on slurm.* to 'slurm'@'localhost';
grant all on slurm.* to 'slurm'@'127.0.0.1';
"""


@dataclass(frozen=True)
class Slurm:
    """A private Slurm, with everything it writes in `folder` (a short path: it holds sockets)."""

    folder: Path
    accounting: bool = False
    min_job_age: int = 7200  # seconds

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
            if self.accounting:
                self._start_accounting()
            self.start_controller()
            for node in self.nodes:
                self.start_node(node)
            idle = "sinfo -hN -o '%N %T' | sort -u | grep -c idle"  # once per partition
            self._wait("sh", "-c", f"test $({idle}) = {len(self.nodes)}")
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

    def start_node(self, node: str) -> None:
        self._spawn(node, "slurmd", "-D", "-N", node)

    def kill_node(self, node: str) -> None:
        """Lose a node's power: all its processes are gone at once. The controller is told what it
        would find out after SlurmdTimeout."""
        marks = f"SLURMD_NODENAME={node}".encode(), f"MOFE_SLURM_NODE={node}".encode()
        for pid, environment in _environments():
            if str(self.folder).encode() in environment and any(m in environment for m in marks):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=power")

    def stop(self) -> None:
        """Cancel its jobs and end all its processes, also those of a start that failed."""
        if self._pid("slurmctld"):
            self._try("scancel", "--user", getpass.getuser())
            deadline = time.monotonic() + 10
            while self._try("squeue", "-h").strip() and time.monotonic() < deadline:
                time.sleep(0.2)
        for name in (*self.nodes, "slurmctld", "slurmdbd", "mariadbd", "munged"):
            self._end(name)
        while left := self._left():  # steps outlive their slurmd, and may start others meanwhile
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)

    def jobs(self) -> list[dict[str, str]]:
        """Slurm's records of all its jobs, oldest first, as `scontrol show job` has them."""
        text = self.run("scontrol", "show", "job", "--oneliner", "--detail")
        # values may hold spaces, keys do not; a colon is part of a key (GRES_IDX) in details only
        return [
            dict(re.findall(r"(\S+?)=(.*?)(?= [A-Za-z:_/]+=|$)", line))
            for line in text.splitlines()
            if line.startswith("JobId=")
        ]

    def mail(self) -> str:
        """The mail that was sent: a line of recipient and subject each."""
        file = self.folder / "log" / "mail"
        return file.read_text() if file.exists() else ""

    def run(self, *command: str) -> str:
        """What one of Slurm's commands prints. Raises CalledProcessError where it fails."""
        return subprocess.run(
            command, env=self.environment, check=True, capture_output=True, text=True, timeout=300
        ).stdout

    # ------------------------------------------------------------------------------------------

    def _configure(self) -> None:
        for name in ("bin", "dev", "log", "run", "state", *(f"spool/{n}" for n in self.nodes)):
            (self.folder / name).mkdir(parents=True, mode=0o755)
        ports = _free_ports(1 + len(self.nodes) + 2)
        sizes = {
            **dict.fromkeys(CPU_NODES, "CPUs=16 RealMemory=64000"),
            **dict.fromkeys(
                GPU_NODES, f"CPUs=32 RealMemory=500000 Gres=gpu:a100:{GPUS} Feature=a100_80g"
            ),
        }
        host = socket.gethostname().partition(".")[0]
        nodes = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} {sizes[node]}"
            for node, port in zip(self.nodes, ports[1:-2], strict=True)
        ]
        accounting = {"folder": self.folder, "user": getpass.getuser(), "ports": ports[-2:]}
        text = SLURM_CONF.format(
            host=host,
            user=getpass.getuser(),
            folder=self.folder,
            min_job_age=self.min_job_age,
            ports=ports,
            nodes="\n".join(nodes),
            cpu=",".join(CPU_NODES),
            gpu=",".join(GPU_NODES),
            accounting=ACCOUNTING_CONF.format(folder=self.folder, port=ports[-2])
            if self.accounting
            else "",
        )
        if self.accounting:
            file = self.folder / "slurmdbd.conf"
            file.touch(0o600)
            file.write_text(SLURMDBD_CONF.format(**accounting))
            (self.folder / "database-port").write_text(str(ports[-1]))
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
        mail = self.folder / "bin" / "mail"
        mail.write_text(f'#!/bin/sh\necho "$*" >> {self.folder}/log/mail\n')
        mail.chmod(0o755)

    def _start_accounting(self) -> None:
        """MariaDB, slurmdbd, and an account for this user."""
        data, socket_file = self.folder / "database", self.folder / "database.socket"
        user = f"--user={getpass.getuser()}"
        install = ["mariadb-install-db", "--no-defaults", user, f"--datadir={data}"]
        self.run(*install, "--auth-root-authentication-method=normal", "--skip-test-db")
        self._spawn(
            "mariadbd",
            *["mariadbd", "--no-defaults", user, f"--datadir={data}", f"--socket={socket_file}"],
            f"--port={(self.folder / 'database-port').read_text()}",
            *["--bind-address=127.0.0.1", "--innodb-buffer-pool-size=64M"],
            *["--innodb-log-file-size=32M", f"--pid-file={self.folder}/run/mariadbd.own"],
        )
        client = ["mariadb", "--no-defaults", "--user=root", f"--socket={socket_file}", "-e"]
        self._wait(*client, "select 1")
        self.run(*client, DATABASE)
        self.start_database()
        manage = ["sacctmgr", "--immediate", "--quiet", "add"]
        self.run(*manage, "cluster", "mofe")
        self.run(*manage, "account", ACCOUNT, "Cluster=mofe")
        self.run(*manage, "user", getpass.getuser(), f"Account={ACCOUNT}", "Cluster=mofe")

    def start_database(self) -> None:
        self._spawn("slurmdbd", "slurmdbd", "-D")
        self._wait("sacctmgr", "--noheader", "show", "cluster")

    def stop_database(self) -> None:
        self._end("slurmdbd")

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
                env={
                    **self.environment,
                    "MOFE_SLURM": str(self.folder),
                    "MOFE_SLURM_NODE": name,
                },
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
        return [pid for pid, environment in _environments() if mark in environment.split(b"\0")]

    def _end(self, name: str) -> None:
        pid = self._pid(name)
        for number, seconds in ((signal.SIGTERM, 60), (signal.SIGKILL, 60)):
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


def missing(accounting: bool = False) -> list[str]:
    """The programs that are needed and not installed."""
    needed = PROGRAMS + ACCOUNTING * accounting
    return [program for program in needed if shutil.which(program, path=SBIN) is None]


def _environments() -> Iterator[tuple[int, bytes]]:
    """This machine's processes, and the variables that each was started with."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            yield int(process.name), (process / "environ").read_bytes()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def main(arguments: list[str]) -> int | str:
    slurm = Slurm(Path(f"/tmp/mofe-slurm-{os.getuid()}"), "--accounting" in arguments)
    if arguments in (["up"], ["up", "--accounting"]):
        if lacking := missing(slurm.accounting):
            return f"{', '.join(lacking)} not found: as root, apt-get install {PACKAGES}"
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
