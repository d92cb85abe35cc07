"""What a job may use on a node: locked memory, open files, shared memory, control groups; and what ends it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.preflight.devices import ranks_of
from engine.preflight.findings import Note, Seen, check, error, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

GIB = 1 << 30
SHM_LEAST, SHM_ENOUGH = 64 << 20, GIB
"""Docker gives a container 64 MiB of /dev/shm; NCCL takes 10 MiB a pair of ranks, a DataLoader what a batch needs."""
MEMLOCK_LEAST = 64 << 20
MEMORY_A_RANK = 4 * GIB
FILES = 1024


@check("limits.memlock", needs=("limits", "python", "fabric"))
def memlock(seen: Seen) -> Iterator[Note]:
    """InfiniBand and RoCE may lock the memory that they need."""
    for rank, node, observed in seen.nodes():
        limit = _after(observed.python.memlock, observed.limits.memlock)
        if limit is None or not observed.fabric.active or "NCCL_IB_DISABLE" in seen.profile.env:
            continue
        note = error if limit < MEMLOCK_LEAST else warning
        text = f"only {limit >> 10} kB of memory may be locked (ulimit -l): RDMA needs all of its buffers locked"
        if observed.limits.memlock_hard is None:
            yield note(rank, text, fix=[_first(seen, rank, "ulimit -l unlimited")])
            continue
        yield note(
            rank,
            text,
            remedy=f"on {node.host}: echo '* - memlock unlimited' | sudo tee /etc/security/limits.d/rdma.conf, log in"
            " anew; where sshd itself is limited: sudo systemctl edit ssh, LimitMEMLOCK=infinity; without RDMA, and"
            " slower: --set env.NCCL_IB_DISABLE=1",
        )


@check("limits.files", needs=("limits", "python", "gpus"), across=True)
def files(seen: Seen) -> Iterator[Note]:
    """Every rank may open enough files and connections."""
    world = sum(ranks_of(node, observed) for _, node, observed in seen.nodes())
    need = max(FILES, 256 + 8 * world)
    for rank, node, observed in seen.nodes():
        soft, hard = _after(observed.python.nofile, observed.limits.nofile), observed.limits.nofile_hard
        if soft is None or soft >= need:
            continue
        text = f"{soft} files may be open (ulimit -n): {world} ranks, each connected to every other, need about {need}"
        if hard is None or hard >= need:
            yield warning(rank, text, fix=[_first(seen, rank, f"ulimit -n {need}")])
        else:
            line = "echo '* - nofile 65536' | sudo tee /etc/security/limits.d/nofile.conf"
            yield warning(rank, text, remedy=f"on {node.host}: {line}, log in anew")


def _first(seen: Seen, rank: int, command: str) -> str:
    """A setting that runs a command before a node's activation."""
    line = seen.profile.nodes[rank].activate or seen.profile.program.activate
    return f"nodes[{rank}].activate={command}" + (f" && {line}" if line else "")


def _after(activation: int | None, session: int | None) -> int | None:
    """The limit that the ranks get: the activation may change that of the session. None: there is none."""
    if activation is None:
        return session
    return None if activation < 0 else activation


@check("limits.shm", needs=("limits",))
def shm(seen: Seen) -> Iterator[Note]:
    """/dev/shm has room for NCCL and data loaders."""
    for rank, node, observed in seen.nodes():
        about = observed.limits.shm
        if about.free is None or about.total is None or about.free >= SHM_ENOUGH:
            continue
        note = error if about.free < SHM_LEAST else warning
        yield note(
            rank,
            f"/dev/shm has {about.free >> 20} MiB free of {about.total >> 20}: ranks of one node talk through it, and"
            " data loaders",
            remedy=f"on {node.host}: sudo mount -o remount,size=8G /dev/shm; a container: docker run --shm-size=8g",
        )


@check("limits.memory", needs=("limits", "system", "gpus"))
def memory(seen: Seen) -> Iterator[Note]:
    """The control group of the session leaves memory, processes and CPUs enough."""
    for rank, node, observed in seen.nodes():
        cgroup, ranks, installed = observed.limits.cgroup, ranks_of(node, observed), observed.system.memory
        if cgroup.memory is not None and cgroup.memory < min(ranks * MEMORY_A_RANK, installed):
            yield warning(
                rank,
                f"its control group may use {cgroup.memory / GIB:.1f} GiB of {installed / GIB:.0f}, for"
                f" {ranks} ranks: the kernel kills them beyond that",
                remedy="raise the memory of the container or of the session, or run fewer ranks there",
            )
        if cgroup.pids is not None and cgroup.pids < 64 * ranks:
            text = f"its control group may have {cgroup.pids} processes and threads, for {ranks} ranks"
            yield warning(rank, text, remedy="raise it: docker run --pids-limit=-1, or TasksMax= of the user's slice")
        if cgroup.cpus is not None and cgroup.cpus < ranks:
            text = f"its control group may use {cgroup.cpus:g} CPUs, for {ranks} ranks: they wait for each other"
            yield warning(rank, text, remedy="raise it: docker run --cpus=N, or CPUQuota= of the user's slice")


@check("limits.session", needs=("limits", "system"))
def session(seen: Seen) -> Iterator[Note]:
    """A run outlives the login that starts it."""
    for rank, node, observed in seen.nodes():
        about = observed.limits
        if about.kill_user_processes and about.session and not about.linger:
            yield error(
                rank,
                "the machine ends all processes of a user at logout (KillUserProcesses=yes), and so a run",
                remedy=f"on {node.host}: sudo loginctl enable-linger {observed.system.user or '$USER'}",
            )
