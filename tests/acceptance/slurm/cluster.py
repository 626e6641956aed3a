"""A Slurm of two nodes and a spare one on this machine: no systemd, no cgroups, no database, no file elsewhere.

The nodes are named by addresses of the loopback device, such as 127.0.0.11: names that resolve everywhere, tell the
nodes apart, and are not what a wrong MASTER_ADDR=localhost would be. The daemons are children that die with the tests.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "setpriv")
# Jobs get the spare node only when another one is lost.
NODES = ("127.0.0.11", "127.0.0.12", "127.0.0.13")
SPARE = NODES[2]
DROPPED = 5  # times that a program is started while the controller drops its connections
CONFIGURATION = """
ClusterName=sftc
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
# A munge of our own. A requeued job waits until its credential has expired: 120 s by default.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
{listen}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
MailProg=/bin/true
AccountingStorageType=accounting_storage/none
# Ended jobs stay to be asked about.
MinJobAge=86400
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1
# A job of `urgent` preempts one of `batch`, whose script gets its own signal 60 s before.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
KillWait=10
# A node that says nothing for 10 s is lost, and comes back by itself.
SlurmdTimeout=10
ReturnToService=2
SlurmdParameters=config_overrides
{nodes}
PartitionName=batch Nodes=ALL Default=YES DefaultTime=60 PriorityTier=1 PreemptMode=REQUEUE GraceTime=60
PartitionName=urgent Nodes=ALL DefaultTime=60 PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str | None:
    """Why no cluster can run here, or None."""
    if os.geteuid() != 0:
        return "Slurm's daemons need root"
    absent = [program for program in PROGRAMS if _found(program) is None]
    return f"not installed: {', '.join(absent)} (Debian: apt-get install slurm-wlm munge)" if absent else None


class Cluster:
    """The daemons by name, and what one asks them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variables = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, *words: str | Path, check: bool = True, cwd: Path | None = None, **more: str) -> str:
        """The output of one of Slurm's programs, started again when the controller drops it."""
        environment = {**self.variables, **more}
        for _ in range(DROPPED):
            done = subprocess.run(
                words, env=environment, capture_output=True, text=True, timeout=60, cwd=cwd or self.folder
            )
            if done.returncode != -signal.SIGPIPE:  # what it asked was not heard
                break
        if check and done.returncode:
            raise RuntimeError(f"{words}: status {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def start_node(self, name: str) -> None:
        (self.folder / f"spool-{name}").mkdir(exist_ok=True)
        self._start(name, "slurmd", "-D", "-N", name, "-f", self.folder / "slurm.conf")

    def lose_node(self, name: str) -> None:
        """The daemon of the node and all that it runs are gone at once, as when its power fails."""
        self._daemons.pop(name).kill()
        spool = f"{self.folder}/spool-{name}/"
        for step in _steps(spool):
            for process in (*_children(step), step):
                _kill(process)

    def start(self) -> None:
        _lay_out(self.folder)
        self._start("munged", "munged", "--foreground", *_munge(self.folder))
        self._await(lambda: (self.folder / "munge.socket").exists())
        self._start("slurmctld", "slurmctld", "-D", "-f", self.folder / "slurm.conf")
        for name in NODES:
            self.start_node(name)
        idle = ("sinfo", "-h", "-p", "batch", "-t", "idle", "-o", "%D")
        self._await(lambda: self.run(*idle, check=False) == f"{len(NODES)}\n")

    def stop(self) -> None:
        """Jobs first: their steps outlive slurmd by design."""
        try:
            if "slurmctld" in self._daemons:
                for name in set(NODES) - set(self._daemons):
                    self.start_node(name)
                self._await(self._is_empty)
        finally:
            for name in [*NODES, "slurmctld", "munged"]:
                if daemon := self._daemons.pop(name, None):
                    daemon.terminate()
                    try:
                        daemon.wait(15)
                    except subprocess.TimeoutExpired:
                        daemon.kill()
            for step in _steps(f"{self.folder}/"):
                _kill(step)

    def _is_empty(self) -> bool:
        """A job that ends may release another one, so each look cancels again."""
        jobs = self.run("squeue", "-h", "-o", "%A", check=False).split()
        if jobs:
            self.run("scancel", *jobs, check=False)
        return not jobs and not _steps(f"{self.folder}/")

    def _start(self, name: str, *words: str | Path) -> None:
        with (self.folder / f"{name}.out").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", _found(str(words[0])) or words[0], *words[1:]],
                env=self.variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _await(self, happened: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not happened():
            gone = [name for name, daemon in self._daemons.items() if daemon.poll() is not None]
            if gone or time.monotonic() > deadline:
                logs = "".join(path.read_text(errors="replace")[-2000:] for path in self.folder.glob("*.out"))
                raise RuntimeError(f"the cluster in {self.folder}: {gone or 'nothing happens'}\n{logs}")
            time.sleep(0.2)


@contextmanager
def running(folder: Path) -> Iterator[Cluster]:
    """A cluster with its files in `folder`, which is ended whatever happens."""
    cluster = Cluster(folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


def _lay_out(folder: Path) -> None:
    ports = [_free_port() for _ in range(1 + len(NODES))]
    # Where this host's name is one of loopback the daemons listen there only; elsewhere that would part them.
    loopback = socket.gethostbyname(socket.gethostname()).startswith("127.")
    text = CONFIGURATION.format(
        folder=folder,
        port=ports[0],
        listen="CommunicationParameters=NoInAddrAny,NoCtldInAddrAny" if loopback else "",
        nodes="\n".join(
            f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=8 RealMemory=4000 "
            f"Feature=rack{rack} Weight={1 + (name == SPARE)}"
            for rack, (name, port) in enumerate(zip(NODES, ports[1:], strict=True), 1)
        ),
    )
    folder.chmod(0o755)  # munged wants its socket to be reachable by everybody
    (folder / "slurm.conf").write_text(text)
    # Named outright, this plugin does nothing; left to find out, slurmd fails without cgroups or systemd.
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    (folder / "state").mkdir(exist_ok=True)
    key = folder / "munge.key"
    key.touch(0o600)
    key.write_bytes(os.urandom(128))


def _munge(folder: Path) -> list[str]:
    files = {"key": "key-file", "socket": "socket", "log": "log-file", "pid": "pid-file", "seed": "seed-file"}
    return [f"--{option}={folder}/munge.{name}" for name, option in files.items()]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _found(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")


def _steps(spool: str) -> list[int]:
    """The processes of job steps: each listens on a socket in the spool directory of its node."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes()
            if words.startswith(b"slurmstepd") and _listens(folder, spool):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def _listens(folder: Path, spool: str) -> bool:
    inodes = set()
    for line in Path("/proc/net/unix").read_text().splitlines():
        fields = line.split()
        if len(fields) == 8 and fields[7].startswith(spool):
            inodes.add(f"socket:[{fields[6]}]")
    return any(str(link.readlink()) in inodes for link in (folder / "fd").iterdir())


def _children(process: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])  # the name before it may hold blanks
            if parent == process:
                child = int(stat.parent.name)
                found += [*_children(child), child]
    return found


def _kill(process: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
