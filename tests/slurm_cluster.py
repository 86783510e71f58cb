"""A real SLURM of two nodes on this machine, in a folder of its own: `python tests/slurm_cluster.py up|down FOLDER`.

Debian builds slurmd so that several run on one machine, each a node with its own port, its own cores and a pretended GPU.
The ports are free ones and munge's key and socket lie in the folder too, so that clusters do not meet. No accounting, no
cgroups. Every partition holds both nodes: jobs of `gpu` are requeued when one of `urgent` needs their place, after a signal and
ten seconds; jobs of `scavenge` are cancelled; those of `steady` are left alone. `kill|start FOLDER node2` is a power cut.
"""

import argparse
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

NODES = ("node1", "node2")
CORES = 32  # of each node, as far as SLURM believes
COMMANDS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
MUNGE_FILES = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
CONFIGURATION = """\
ClusterName=genae-test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
# cred_expire: how long a requeued job waits before it may start again, 120 s unless told.
AuthInfo=socket={folder}/munge.socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmdSpoolDir={folder}/spool/%n
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,bf_interval=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SlurmdTimeout=15
MessageTimeout=10
KillWait=5
# MinJobAge: how long the controller can tell of a job that has ended.
MinJobAge=3600
JobRequeue=1
# A job is as nice as the command that submitted it.
PropagatePrioProcess=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{of_preemption}
# The cores are pretended: this machine may have fewer.
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs={cores} RealMemory=64000 Gres=gpu:1 State=UNKNOWN
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cores} RealMemory=64000 Gres=gpu:1 State=UNKNOWN
PartitionName=steady Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=OFF
PartitionName=gpu Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=10
PartitionName=scavenge Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=CANCEL
PartitionName=urgent Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""
# Without it a job hears of its preemption by SIGTERM alone, and not by the signal that it asked for.
TOLD_OF_PREEMPTION = "SlurmctldParameters=preempt_send_user_signal"
GRES = "".join(f"NodeName={node} Name=gpu Count=1 File=/dev/null\n" for node in NODES)


@dataclass(frozen=True)
class Cluster:
    """The cluster in a folder, running or not.  tells: whether jobs hear of their preemption by the signal they asked for."""

    folder: Path
    tells: bool = True

    @property
    def configuration(self) -> Path:
        """What SLURM_CONF names."""
        return self.folder / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment, in which SLURM's commands speak to this cluster."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
        return kept | {"SLURM_CONF": str(self.configuration)}

    def ask(self, *command: str) -> str:
        """What one of SLURM's commands prints. Raises CalledProcessError if it fails."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.strip()

    def is_up(self) -> bool:
        """Whether both nodes are there to take jobs."""
        if not self._pid("slurmctld"):  # sinfo would look for one for a minute
            return False
        with suppress(subprocess.SubprocessError):
            states = self.ask("sinfo", "--noheader", "--Node", "--partition=gpu", "--format=%T").split()
            return len(states) == len(NODES) and all(state in ("idle", "mixed", "allocated") for state in states)
        return False

    def start(self, *, seconds: float = 30.0) -> None:
        """Start the daemons and wait until both nodes are up.

        Raises RuntimeError, saying what to install, or with the logs' last lines where they do not come up.
        """
        lacking = why_not()
        if lacking:
            raise RuntimeError(lacking)
        if self.configuration.exists():
            self.stop()  # a cluster whose owner died
        for place in ("state", *(f"spool/{node}" for node in NODES)):
            (self.folder / place).mkdir(parents=True, exist_ok=True)
        host = socket.gethostname().partition(".")[0]
        of_preemption = TOLD_OF_PREEMPTION if self.tells else ""
        ports = _free_ports(3)
        text = CONFIGURATION.format(host=host, folder=self.folder, ports=ports, cores=CORES, of_preemption=of_preemption)
        self.configuration.write_text(text)
        (self.folder / "gres.conf").write_text(GRES)
        key = self.folder / "munge.key"
        key.unlink(missing_ok=True)
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))

        # --force: the folder's parents may be closed to others, who have no business here.
        self._daemon("munged", "--force", *(f"--{name}={self.folder}/munge.{end}" for name, end in MUNGE_FILES.items()))
        self._daemon("slurmctld", "-c")  # -c: without the jobs of a cluster that was here before
        for node in NODES:
            self.start_node(node)
        deadline = time.monotonic() + seconds
        while not self.is_up():
            if time.monotonic() > deadline:
                self.stop()
                logs = "\n".join(f"{log.name}:\n{_tail(log)}" for log in sorted(self.folder.glob("*.log")))
                raise RuntimeError(f"the nodes did not come up within {seconds:g} s:\n{logs}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End the jobs and the daemons, whatever state they are in; the folder stays, with its logs."""
        self._end("slurmctld", signal.SIGTERM)
        for node in NODES:
            self.kill_node(node)
        self._end("munge", signal.SIGTERM)

    def start_node(self, node: str) -> None:
        """Start a node's daemon, as when the node is switched on."""
        self._daemon("slurmd", "-N", node)

    def kill_node(self, node: str) -> None:
        """What a node's power cut does: its daemon and everything of its jobs end at once, and nobody is told."""
        self._end(f"slurmd.{node}", signal.SIGKILL)
        while found := self._of_jobs(node):
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)

    def _daemon(self, name: str, *options: str) -> None:
        """Run a daemon, which puts itself in the background."""
        with (self.folder / f"{name}.start.log").open("ab") as log:
            done = subprocess.run(
                [_find(name), *options], env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        if done.returncode:
            raise RuntimeError(f"{name} ended with {done.returncode}:\n{_tail(self.folder / f'{name}.start.log')}")

    def _end(self, name: str, how: signal.Signals) -> None:
        """End a daemon, if it runs, and wait until it has gone."""
        pid = self._pid(name)
        for signal_, seconds in [(how, 10), (signal.SIGKILL, 60)] if pid else []:
            with suppress(ProcessLookupError):
                os.kill(pid, signal_)
            deadline = time.monotonic() + seconds
            while _is_alive(pid) and time.monotonic() < deadline:
                time.sleep(0.02)

    def _pid(self, name: str) -> int | None:
        """The daemon that left its number in NAME.pid; None where it runs no more."""
        with suppress(FileNotFoundError, ProcessLookupError):
            pid = int((self.folder / f"{name}.pid").read_text())
            its_own = f"SLURM_CONF={self.configuration}" in _environment(pid)  # the number may be another's by now
            return pid if its_own and _is_alive(pid) else None
        return None

    def _of_jobs(self, node: str) -> set[int]:
        """The processes of a node's jobs, known by what they were started with, and the slurmstepd over them."""
        mine = {f"SLURM_CONF={self.configuration}", f"SLURMD_NODENAME={node}"}
        found = set()
        for place in Path("/proc").glob("[0-9]*"):
            pid = int(place.name)
            with suppress(OSError):
                if mine <= _environment(pid) and _is_alive(pid):
                    found.add(pid)
                    parent = _stat(pid)[1]
                    if Path(f"/proc/{parent}/comm").read_text().startswith("slurmstepd"):
                        found.add(int(parent))
        return found


def why_not() -> str | None:
    """What this machine lacks for a cluster, and what to do about it; None where nothing is."""
    lacking = [name for name in COMMANDS if not _find(name)]
    if lacking:
        return f"{', '.join(lacking)} not found: install slurm-wlm and munge (apt-get install slurm-wlm munge), and run as root"
    if os.geteuid() != 0:
        return "SLURM's daemons start jobs as their users: run as root"
    return None


@contextmanager
def shared(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, started for the first process that wants it, stopped after the last, even one that is killed.

    Every process that uses it shares a lock, which the kernel takes back from the dead; a guard waits to have it alone.
    """
    folder = cluster.folder
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "starting").open("w") as starting, (folder / "in-use").open("w") as in_use:
        fcntl.flock(starting, fcntl.LOCK_EX)
        fcntl.flock(in_use, fcntl.LOCK_SH)  # waits for a guard that is stopping it
        if not cluster.is_up():
            cluster.start()
            guard = [sys.executable, __file__, "guard", str(folder)]
            subprocess.Popen(guard, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
        fcntl.flock(starting, fcntl.LOCK_UN)
        yield cluster


def _find(name: str) -> str | None:
    """Where a command is; Debian keeps daemons off a user's path."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, all different."""
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _environment(pid: int) -> set[str]:
    """What a process was started with, NAME=VALUE each."""
    return set(Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0"))


def _stat(pid: int) -> list[str]:
    """The state of a process, its parent, and so on (proc(5), from the third field on)."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _is_alive(pid: int) -> bool:
    with suppress(OSError):
        return _stat(pid)[0] not in "ZX"  # a zombie is dead
    return False


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-5:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("what", choices=["up", "down", "kill", "start", "guard"])
    parser.add_argument("folder", type=lambda text: Path(text).resolve())
    parser.add_argument("node", choices=NODES, nargs="?", help="to kill or to start again")
    asked = parser.parse_args()
    cluster = Cluster(asked.folder)
    if asked.what in ("kill", "start"):
        if not asked.node:
            parser.error(f"which node: {' or '.join(NODES)}?")
        (cluster.kill_node if asked.what == "kill" else cluster.start_node)(asked.node)
    elif asked.what == "up":
        if not cluster.is_up():
            cluster.start()
        print(f"two nodes are up; to use them: export SLURM_CONF={cluster.configuration}")
    elif asked.what == "down":
        cluster.stop()
    else:
        with (asked.folder / "in-use").open("w") as in_use:
            fcntl.flock(in_use, fcntl.LOCK_EX)
            cluster.stop()


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        sys.exit(str(error))
