"""A real Slurm on the hosts of a test cluster: node1..node3 with eight pretend GPUs each, node4 for logins.

The controller runs on node4, which is where users log in and submit; every host has the same home, as clusters have.
Everything lies in the cluster's own folder and mount namespaces: nothing of the machine is changed.

What it takes, found by trying (Slurm 22.05): slurmd wants a mounted freezer though nothing is tracked by it; GPUs are
character devices that gres.conf names (a Count alone leaves the node INVAL); `config_overrides` lets a machine with two
cores offer eight.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from typing import TYPE_CHECKING

from tests.cluster.cluster import Cluster, obstacle
from tests.cluster.network import SEARCH, command

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.hosts import Host

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "mknod")
GPUS = 8
KILL_WAIT = 5  # seconds between Slurm's SIGTERM and SIGKILL

CONFIG = """\
ClusterName=test
SlurmctldHost=node4
SlurmUser=root
AuthType=auth/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir=/run/slurmd
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
MpiDefault=none
GresTypes=gpu
KillWait={kill_wait}
MessageTimeout=10
SlurmdTimeout=10
NodeName=node[1-3] CPUs=8 RealMemory=4000 Gres=gpu:{gpus} State=UNKNOWN
PartitionName=train Nodes=node[1-3] Default=YES MaxTime=1-00:00:00 OverSubscribe=NO State=UP
PartitionName=urgent Nodes=node[1-3] PriorityTier=9 MaxTime=1-00:00:00 OverSubscribe=NO State=UP
"""


def slurm_obstacle() -> str:
    """Why no Slurm can be run here, in a few words; "" where it can."""
    missing = [name for name in PROGRAMS if not shutil.which(name, path=SEARCH)]
    return obstacle() or (f"needs the commands {', '.join(missing)}" if missing else "")


class Slurm:
    """`cluster` with Slurm on it. `nodes` compute; `login` takes ssh logins and holds the controller."""

    def __init__(self) -> None:
        self.cluster = Cluster(4)
        self.nodes = self.cluster.hosts[:3]
        self.login = self.cluster.hosts[3]
        self.folder = self.cluster.folder / "slurm"
        self.home = self.cluster.folder / "shared-home"
        try:
            self._write_files()
            for host in self.cluster.hosts:
                self._prepare(host)
            self.start_controller()
            for host in self.nodes:
                host.run(["slurmd"], root=True)
            self.await_idle()
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<Slurm on {self.cluster!r}>"

    def _write_files(self) -> None:
        etc = self.folder / "etc"
        etc.mkdir(parents=True)
        (self.folder / "state").mkdir()
        text = CONFIG.format(folder=self.folder, kill_wait=KILL_WAIT, gpus=GPUS)
        (etc / "slurm.conf").write_text(text)
        (etc / "gres.conf").write_text(f"AutoDetect=off\nName=gpu File={self.folder}/gpu[0-{GPUS - 1}]\n")
        (etc / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
        for number in range(GPUS):
            command("mknod", "-m", "666", str(self.folder / f"gpu{number}"), "c", "1", "3")
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        shutil.chown(key, "munge", "munge")

    def _prepare(self, host: Host) -> None:
        """What a host needs after each boot, before Slurm."""
        host.share_home()
        freezer = "/sys/fs/cgroup/freezer"
        munged = "munged --pid-file=/run/munge/pid --log-file=/run/munge/log"
        host.run(
            f"mount --bind {self.folder}/etc /etc/slurm && mount -t tmpfs none /sys/fs/cgroup && mkdir {freezer} && "
            f"mount -t cgroup -o freezer none {freezer} && mkdir -p /run/munge && chown munge /run/munge && "
            f"setpriv --reuid=munge --regid=munge --clear-groups {munged} --seed-file=/run/munge/seed "
            f"--key-file={self.folder}/munge.key",
            root=True,
        )

    # ---- what happens to clusters --------------------------------------------------------------------------------

    def start_controller(self) -> None:
        self.login.run(["slurmctld"], root=True)

    def stop_controller(self) -> None:
        """Kill it, as a crash does; what it has saved is there for the next."""
        self.kill("slurmctld")

    def kill(self, name: str, number: int = 9) -> None:
        """Send a daemon of the login node a signal, 0 for none, and wait until it is gone."""
        for process in self.login.processes():
            if process.name == name:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.outer, number)
        deadline = time.monotonic() + 30
        while any(process.name == name for process in self.login.processes()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} does not go")
            time.sleep(0.05)

    def forget(self) -> None:
        """The controller loses all that it knew, as when its disk dies: it begins to count jobs from 1 again."""
        self.stop_controller()
        shutil.rmtree(self.folder / "state")
        (self.folder / "state").mkdir()
        self.start_controller()
        self.await_idle()

    def revive(self, host: Host) -> None:
        """Bring a node that lost its power back into service."""
        if not host.is_on:
            host.power_on()
            self._prepare(host)
            host.run(["slurmd"], root=True)

    def await_idle(self, *, seconds: float = 30.0) -> None:
        """Wait until all nodes could run something."""
        deadline = time.monotonic() + seconds
        while "idle 3" not in (said := self.login.run(["sinfo", "-h", "-o", "%T %D"], check=False).stdout):
            if time.monotonic() > deadline:
                logs = "".join(log.read_text(errors="replace")[-3000:] for log in self.folder.glob("*.log"))
                raise RuntimeError(f"Slurm's nodes are {said!r}\n{logs}")
            time.sleep(0.1)

    # ---- what users do -------------------------------------------------------------------------------------------

    def sh(self, text: str, *, check: bool = True, timeout: float = 60.0) -> str:
        """Run bash text at the login node, in the shared home, over plain ssh; what it prints."""
        done = self.cluster.ssh(self.login, text, timeout=timeout)
        if check and done.returncode:
            raise RuntimeError(f"{text!r} ended with {done.returncode}: {done.stdout}{done.stderr}")
        return done.stdout

    def state(self, job: str) -> str:
        return self.sh(f"squeue -h -t all -j {job} -o %T", check=False).strip().partition("\n")[0]

    def await_state(self, job: str, *states: str, seconds: float = 30.0) -> str:
        deadline = time.monotonic() + seconds
        while (found := self.state(job)) not in states:
            if time.monotonic() > deadline:
                raise AssertionError(f"job {job} is {found}, not {' or '.join(states)}")
            time.sleep(0.2)
        return found

    def path(self, name: str) -> Path:
        """A path in the shared home, as the tests can open it."""
        return self.home / name

    def heal(self) -> list[str]:
        """Between tests: no jobs, all nodes in service, an empty home; the jobs that had to be cancelled."""
        for host in self.nodes:
            self.revive(host)
        if not any(process.name == "slurmctld" for process in self.login.processes()):
            self.start_controller()
        left = self.login.run(["squeue", "-h", "-o", "%A %T %j"], root=True).stdout.splitlines()
        for line in left:
            self.login.run(["scancel", line.split()[0]], root=True, check=False)
        self.login.run(["scontrol", "update", "nodename=node[1-3]", "state=resume"], root=True, check=False)
        self.await_idle()
        for entry in self.home.iterdir():
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()
        return left

    def close(self) -> None:
        with contextlib.suppress(RuntimeError, subprocess.SubprocessError):
            self.stop_controller()
        self.cluster.close()
