"""What one node's probe answered, typed: decoded once, sanitised once, and bounded in size.

Unknown fields are passed over, so that a newer program on a node can say more. Every part has an `error`: "" unless the
node could not look at it, and then the rest of that part is at its defaults.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from engine.errors import NodeRefused
from engine.preflight.launched import Count, Disk, ProgramFile, Python, Words
from engine.text import clean

if TYPE_CHECKING:
    from collections.abc import Mapping

SIZE_LIMIT = 1 << 20
DEPTH_LIMIT = 12

Port = Annotated[int, Meta(ge=0, le=65535)]


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """The conversation; filled by the caller. In seconds: `latency` is a round trip, `clock` the node's clock minus
    ours, known to within `clock_error`, `shell` what its start-up files take; `noise` is what they print."""

    latency: float = 0.0
    clock: float = 0.0
    clock_error: float = 0.0
    shell: float = 0.0
    noise: str = ""


class State(Disk, frozen=True, kw_only=True):
    """The state folder."""

    writable: bool = False
    error: str = ""


class System(msgspec.Struct, frozen=True, kw_only=True):
    """The machine and the account; `memory` in bytes, `time` in unix seconds."""

    error: str = ""
    hostname: str = ""
    kernel: str = ""
    boot: str = ""
    python: str = ""
    uid: int = -1
    user: str = ""
    home: str = ""
    shell: str = ""
    cpu_count: Count = 0
    memory: Count = 0
    time: float = 0.0
    state: State = State()


class Shm(msgspec.Struct, frozen=True, kw_only=True):
    """/dev/shm in bytes; None where there is none."""

    total: Count | None = None
    free: Count | None = None


class Cgroup(msgspec.Struct, frozen=True, kw_only=True):
    """The narrowest limits of the session's control groups: memory in bytes; None for no limit."""

    memory: Count | None = None
    pids: Count | None = None
    cpus: float | None = None


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a job may use; `memlock` in bytes, None for no limit, a hard 0 is not known. See `engine.node.limits`."""

    error: str = ""
    memlock: Count | None = None
    memlock_hard: Count | None = 0
    nofile: Count | None = None
    nofile_hard: Count | None = None
    shm: Shm = Shm()
    cgroup: Cgroup = Cgroup()
    session: bool = False
    kill_user_processes: bool = False
    linger: bool = False


class FabricPort(msgspec.Struct, frozen=True, kw_only=True):
    """A port of an InfiniBand or RoCE device; `rate` in Gbit/s."""

    device: str
    port: Count = 0
    state: str = ""
    rate: float | None = None
    layer: str = ""
    interfaces: Words = ()


class Fabric(msgspec.Struct, frozen=True, kw_only=True):
    error: str = ""
    ports: Annotated[tuple[FabricPort, ...], Meta(max_length=1024)] = ()

    @property
    def active(self) -> tuple[FabricPort, ...]:
        return tuple(port for port in self.ports if port.state == "ACTIVE")


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody's process; `job` is "RUN/nK" if it belongs to a run of ours. None and "" where the node may not look."""

    pid: int | None = None
    user: str = ""
    comm: str = ""
    cmd: str = ""
    job: str = ""

    def __str__(self) -> str:
        name = self.comm or "a process"
        parts = [name if self.pid is None else f"{name} (pid {self.pid})"]
        if self.user:
            parts.append(f"of {self.user}")
        return " ".join(parts)


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU; memory in MiB; `trouble` is what its own counters complain of, in words."""

    index: Count
    uuid: str = ""
    name: str = ""
    total: Count | None = None
    used: Count | None = None
    driver: str = ""
    trouble: str = ""


class GpuProcess(Process, frozen=True, kw_only=True):
    """A process on a GPU; `used` in MiB."""

    uuid: str = ""
    used: Count | None = None


class Gpus(msgspec.Struct, frozen=True, kw_only=True):
    """The GPUs; `cards` counts NVIDIA controllers on the PCI bus, `visible` is CUDA_VISIBLE_DEVICES of the launch, and
    `xids` are the driver's errors in the kernel's log."""

    error: str = ""
    tool: str = ""
    cards: Count = 0
    visible: str | None = None
    xids: Words = ()
    gpus: Annotated[tuple[Gpu, ...], Meta(max_length=256)] = ()
    processes: Annotated[tuple[GpuProcess, ...], Meta(max_length=4096)] = ()

    @property
    def usable(self) -> tuple[Gpu, ...]:
        """The GPUs that CUDA_VISIBLE_DEVICES leaves; as CUDA reads it, the list ends at the first unknown entry."""
        if self.visible is None:
            return self.gpus
        left: list[Gpu] = []
        for word in self.visible.split(","):
            name = word.strip()
            match = [g for g in self.gpus if name and (str(g.index) == name or g.uuid.startswith(name))]
            if len(match) != 1 or match[0] in left:
                break
            left.append(match[0])
        return tuple(left)


class Interface(msgspec.Struct, frozen=True, kw_only=True):
    """A network interface; `prefixes` are the lengths of the networks of `ipv4`, `speed` in Mbit/s, `mtu` in bytes."""

    name: str
    up: bool = True
    loopback: bool = False
    bridge: bool = False
    ipv4: Words = ()
    ipv6: Words = ()
    prefixes: Annotated[tuple[int, ...], Meta(max_length=1024)] = ()
    speed: Count | None = None
    mtu: Count | None = None


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """The way to a name: what it resolves to here, and the local address and interface that a packet leaves by."""

    to: str
    ips: Words = ()
    error: str = ""
    source: str = ""
    interface: str = ""


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    """`firewall` is the front end that a firewall of this node would be set up with: ufw, firewalld, nft, iptables."""

    error: str = ""
    firewall: str = ""
    interfaces: Annotated[tuple[Interface, ...], Meta(max_length=4096)] = ()
    hostname: str = ""
    hostname_ips: Words = ()
    hostname_error: str = ""
    default_interface: str = ""
    routes: Annotated[tuple[Route, ...], Meta(max_length=256)] = ()


class AskedPort(msgspec.Struct, frozen=True, kw_only=True):
    port: int
    free: bool
    error: str = ""
    holder: Process | None = None


class Ports(msgspec.Struct, frozen=True, kw_only=True):
    """`ephemeral` is the range that the kernel hands out to outgoing connections."""

    error: str = ""
    asked: Annotated[tuple[AskedPort, ...], Meta(max_length=256)] = ()
    free_ports: Annotated[tuple[Port, ...], Meta(max_length=256)] = ()
    ephemeral: tuple[Port, Port] | None = None


class Job(Process, frozen=True, kw_only=True):
    """A process of an earlier run of ours."""

    why: str = ""


class Jobs(msgspec.Struct, frozen=True, kw_only=True):
    """What runs of ours; `living` are the jobs ("RUN/nK") that have a supervisor."""

    error: str = ""
    found: Annotated[tuple[Job, ...], Meta(max_length=1024)] = ()
    living: Annotated[tuple[str, ...], Meta(max_length=1024)] = ()

    def end(self, job: str) -> str:
        """The command that ends it."""
        return f"rankdeck stop {job.partition('/')[0]}" if job in self.living else "rankdeck reap PROFILE"


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """One real connection to another node: see `engine.node.mesh.call`. `rtt` in seconds; `master`: to its port."""

    to: int
    master: bool = False
    address: str = ""
    port: Port = 0
    ok: bool = False
    code: str = ""
    error: str = ""
    tries: Count = 0
    rtt: float | None = None
    sent: Count = 0
    lost: Count = 0
    large: bool | None = None


class Mesh(msgspec.Struct, frozen=True, kw_only=True):
    """The connections from one node; filled by the caller, who knows which node each answer is about."""

    error: str = ""
    links: tuple[Link, ...] = ()


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """What went through to another node, in bits a second; None where nothing did."""

    to: int
    rate: float | None = None
    error: str = ""


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """The measured flows from one node; filled by the caller. `left_out` says why nothing was measured."""

    error: str = ""
    left_out: str = ""
    flows: tuple[Flow, ...] = ()


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a rank of `engine.train.allreduce`, which explains the fields; times in s, speeds in GB/s."""

    type: str
    text: str = ""
    stage: str = ""
    missing: tuple[Count, ...] = ()
    late: tuple[Count, ...] = ()
    unreachable: bool = False
    bytes: Count = 0
    time_s: float = 0.0
    algbw: float = 0.0
    busbw: float = 0.0
    right: bool = True
    ranks: Count = 0
    backend: str = ""


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """One rank of the all-reduce: what it said, how it ended, and the end of its stderr."""

    said: tuple[Said, ...] = ()
    code: int | None = None
    signal: int | None = None
    err: str = ""


class Collective(msgspec.Struct, frozen=True, kw_only=True):
    """This node's part in a real all-reduce over all ranks; filled by the caller, `ranks` by their RANK.

    `stopped` says that it did not end by itself; `log` is the end of torchrun's own output, and `left_out` why nothing
    was tried.
    """

    error: str = ""
    left_out: str = ""
    stopped: bool = False
    code: int | None = None
    seconds: float = 0.0
    ranks: dict[int, Tried] = {}
    log: str = ""


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """One node; `peer` is the address that the connection to it goes to ("" for this machine), filled by the caller."""

    reach: Reach = Reach()
    system: System = System()
    limits: Limits = Limits()
    fabric: Fabric = Fabric()
    python: Python = Python()
    program: ProgramFile = ProgramFile()
    gpus: Gpus = Gpus()
    addresses: Addresses = Addresses()
    ports: Ports = Ports()
    jobs: Jobs = Jobs()
    mesh: Mesh = Mesh()
    speed: Speed = Speed()
    collective: Collective = Collective()
    peer: str = ""


def read(answer: bytes | Mapping[str, Any], *, node: str = "", peer: str = "") -> Observation:
    """The probe's answer as JSON text or decoded; raises NodeRefused, naming `node`, for what no probe of ours says."""
    try:
        value: Any = answer
        if isinstance(answer, bytes):
            if len(answer) > SIZE_LIMIT:
                raise ValueError(f"{len(answer)} bytes, more than {SIZE_LIMIT}")
            value = msgspec.json.decode(answer)
        found = msgspec.convert(_safe(value, DEPTH_LIMIT, [SIZE_LIMIT]), Observation, str_keys=True)
    except (ValueError, RecursionError) as error:  # msgspec's own errors are ValueErrors
        raise NodeRefused(f"a strange answer to our look at the node: {clean(str(error), 300)}", node=node) from None
    return msgspec.structs.replace(found, peer=peer)


def _safe(value: Any, depth: int, budget: list[int]) -> Any:
    """`value` with every text in it made safe; ValueError beyond `depth` levels or `budget` characters in all."""
    budget[0] -= len(value) + 1 if isinstance(value, str) else 1
    if depth < 0 or budget[0] < 0:
        raise ValueError("too deep" if depth < 0 else "too long")
    if isinstance(value, str):
        # Several lines stay apart for whoever shows them: a line break is the one control character kept, here only.
        return "\n".join(clean(line) for line in value.split("\n")) if "\n" in value else clean(value)
    if isinstance(value, dict):
        return {_safe(str(key), depth, budget): _safe(item, depth - 1, budget) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_safe(item, depth - 1, budget) for item in value]
    return value
