"""Between ranks: interfaces, gloo, NCCL, InfiniBand; and what ranks say whose peer has gone."""

from __future__ import annotations

from engine.diagnosis.rules.rule import Rule

RULES = (
    Rule(
        id="no-such-interface",
        where=("raised", "line"),
        texts=(
            r"(?:ifa != nullptr\W*)?[Uu]nable to find address for:? ?(?P<name>\S*)",
            r"(?:Bootstrap|NET/Socket) ?: ?[Nn]o (?:socket )?interface found",
            r"[Nn]o usable listening interface found",
            r"(?:SOCKET_IFNAME|interface)\W.{0,40}(?:not found|does not exist|no such device)",
            r"[Nn]o such (?:network )?(?:interface|device).{0,60}(?P<name>\b(?:eth|en|ib|bond)\w+)",
        ),
        says="has no network interface[ {name}]",
        remedy=(
            "set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME to the name that this node has (ssh {host} ip -br "
            "addr); names differ between nodes: `rendezvous.interface: auto` finds each node's own"
        ),
        sure=0.95,
    ),
    Rule(
        id="hostname-is-loopback",
        where=("raised", "line"),
        texts=(
            (
                r"(?:connectFullMesh failed|failed to connect|[Cc]onnection refused).{0,400}(?:remote|local)"
                r"=\[?(?P<address>127\.\d+\.\d+\.\d+|::1)\]?"
            ),
        ),
        says="told the others a loopback address ({address}) as its own: its host name resolves to it",
        remedy=(
            "set GLOO_SOCKET_IFNAME (`rendezvous.interface: auto` does), or take the name off the 127.0.1.1 "
            "line of /etc/hosts"
        ),
        sure=0.85,
        weight=80,
    ),
    Rule(
        id="duplicate-gpu",
        where=("raised", "line"),
        texts=(
            (
                r"Duplicate GPU detected ?: rank (?P<one>\d+) and rank (?P<other>\d+) both on CUDA device "
                r"(?P<device>\w+)"
            ),
        ),
        says="shares a GPU with another rank: ranks {one} and {other} are both on device {device}",
        remedy=(
            "start one rank a GPU: torchrun's nproc_per_node times Slurm's ntasks-per-node must be the number "
            "of GPUs; set the device from LOCAL_RANK (torch.cuda.set_device)"
        ),
        sure=0.95,
    ),
    Rule(
        id="nccl-version",
        where=("raised", "line"),
        texts=(
            r"[Mm]ismatched NCCL version",
            r"NCCL version mismatch",
            r"nccl.{0,40}version.{0,60}(?:mismatch|differ)",
        ),
        says="has another NCCL version than its peers",
        remedy="install the same torch on all nodes: rankdeck check PROFILE compares them",
    ),
    Rule(
        id="infiniband",
        where=("raised", "line"),
        texts=(
            r"Call to ibv_\w+ failed.{0,120}",
            r"NET/IB ?: Got (?:completion|async event).{0,200}",
            r"(?:with status=|with error )\d+.{0,40}opcode.{0,60}vendor err \d+",
            r"IB (?:port|device).{0,60}(?:error|down)",
        ),
        says="cannot talk over InfiniBand or RoCE: {match}",
        remedy=(
            'try `env: {NCCL_IB_GID_INDEX: "3"}` for RoCE; name the devices with NCCL_IB_HCA; '
            "NCCL_IB_DISABLE=1 shows whether it is that"
        ),
        sure=0.85,
        weight=90,
    ),
    Rule(
        id="collective-mismatch",
        where=("raised", "line"),
        texts=(
            r"Received data size doesn't match",
            r"op\.preamble\.length <= op\.nbytes",
            r"distributed collective mismatch",
            r"[Dd]etected mismatch between collectives",
            r"Message truncated",
            r"ncclInvalidArgument",
            r"[Cc]ollectives? differ",
            r"mismatch in (?:collective|shape) (?:across|between) ranks",
        ),
        says="took part in a collective with another shape or data type than its peers: {detail}",
        remedy=(
            "make every rank call the same collectives with the same shapes and dtypes (uneven last batches, "
            "`if rank == 0`); `env: {TORCH_DISTRIBUTED_DEBUG: DETAIL}` names both sides"
        ),
        sure=0.88,
    ),
    Rule(
        id="barrier-missed",
        texts=(r"Ranks? (?P<suspect>\d+)(?P<more>(?:, \d+)*) failed to pass monitoredBarrier",),
        says="did not reach the barrier at which the others waited",
        remedy="look at what it was doing: rankdeck logs RUN --rank {suspect} --stderr",
        sure=0.85,
        weight=50,
    ),
    Rule(
        id="collective-timeout",
        role="victim",
        where=("raised", "line"),
        texts=(
            r"Timed out waiting \d+ms for (?:recv|send)",
            r"[Ww]atchdog caught collective operation timeout",
            r"[Cc]ollective operation timeout",
            r"Some NCCL operations have failed or timed out",
            r"[Pp]rocess group watchdog thread terminated",
            r"[Ww]atchdog got stuck for",
            r"Application timeout caused pair closure",
            r"ran for \d+ milliseconds before timing out",
            r"Timeout at NCCL work",
            r"Terminating the process after attempting to dump debug info",
            r"[Hh]eartbeat monitor timed out",
            r"[Ff]ailed to check the .should dump. flag on TCPStore",
        ),
        says="waited in vain for another rank in a collective",
        remedy=(
            "find the rank that did not come; if it does long work (loading data, saving), raise the timeout "
            "of init_process_group"
        ),
        sure=0.4,
        weight=30,
    ),
    Rule(
        id="peer-unreachable",
        where=("raised", "line"),
        texts=(
            (
                r"connectFullMesh failed.{0,300}(?:timed? ?out|No route to host|unreachable)"
                r".{0,120}?(?:remote=\[?(?P<peer>[0-9a-fA-F.:]+)\]?:(?P<port>\d+))?"
            ),
            (
                r"(?:socketStartConnect|Net|NET/Socket|socketPollConnect).{0,20}[Cc]onnect to (?P<peer>[^\s<]+)"
                r"<(?P<port>\d+)> failed ?: ?(?P<why>.{1,60})"
            ),
            r"Call to connect (?:to \S+ )?(?:timeout|failed) ?: ?(?P<why>.{1,60})",
            r"[Nn]o interface found in the same subnet",
            r"operation=Connect, res=\d",
            r"rv != -1.{0,60}connect: (?P<why>[\w ]+)",
        ),
        also=r"connect(?:FullMesh)?.{0,40}(?:failed|timeout|Connect to)|failed to connect, willRetry",
        says=(
            "cannot connect to another rank[ at {peer} port {port}][ ({why})]: a firewall between the nodes, "
            "or the wrong network interface"
        ),
        remedy=(
            "NCCL and gloo use ports of their own choice: open the high ports between the nodes, and set "
            "`rendezvous.interface` (NCCL_SOCKET_IFNAME, GLOO_SOCKET_IFNAME) to the network that joins them, "
            "never docker0 or virbr0"
        ),
        sure=0.75,
        weight=62,
    ),
    Rule(
        id="connection-lost",
        texts=(r"^(?:\w+\.)*(?P<type>BrokenPipe|Connection(?:Reset|Refused|Aborted))Error\b",),
        says="lost a connection of its own (not torch.distributed's): {exc}",
        remedy=(
            "what it talks to there (a data loader or pool of its own, a server, a database) had gone: read the "
            "traceback, {see}; where a neighbour or another rank ended just before, look there"
        ),
        sure=0.5,
        weight=30,
    ),
    Rule(
        id="peer-refused",
        role="victim",
        texts=(
            r"connectFullMesh failed",
            r"failed to connect, willRetry",
            r"socketPollConnect",
            r"SO_ERROR: Connection refused",
        ),
        says="could not connect to a rank that had gone",
        remedy="look at the rank that failed before",
        sure=0.4,
        weight=28,
    ),
    Rule(
        id="nccl-remote",
        role="victim",
        texts=(
            r"ncclRemoteError",
            r"remote process exited or there was a network error",
            r"NCCL communicator was aborted",
            r"communicator.{0,40}abort",
            r"socketProgress.{0,60}(?:closed|remote)",
            r"Connection closed by remote peer",
            r"NCCL Error 6\b",
        ),
        says="lost its connection to another rank (NCCL)",
        remedy="look at the other nodes: what ended there ended first",
        sure=0.4,
        weight=25,
    ),
    Rule(
        id="peer-gone",
        role="victim",
        texts=(
            r"Connection closed by peer",
            r"Connection reset by (?:peer|remote)",
            r"ConnectionResetError",
            r"BrokenPipeError",
            r"Broken pipe",
            r"Read error \[",
            r"[Ww]rite error \[",
            r"Socket closed",
            r"remote worker (?:crashing|hanging)",
            r"gloo.{0,80}(?:[Cc]onnection|[Ss]ocket)",
            r"Software caused connection abort",
            r"ConnectionAbortedError",
            r"ConnectionRefusedError",
            r"peer closed",
        ),
        says="lost its connection to another rank",
        remedy="look at the other nodes: what ended there ended first",
        sure=0.4,
        weight=25,
    ),
    Rule(
        id="nccl-usage",
        texts=(r"ncclInvalidUsage",),
        also=r"NCCL WARN",
        says="called NCCL wrongly: {detail}",
        remedy=(
            "set `env: {NCCL_DEBUG: INFO}` and launch again; most often two ranks share a GPU, or NCCL versions differ"
        ),
        sure=0.6,
        weight=70,
    ),
    Rule(
        id="nccl-cuda-error",
        where=("raised", "line"),
        texts=(
            r"ncclUnhandledCudaError",
            r"unhandled cuda error",
            r"Cuda failure(?: \d+)? '?(?P<what>[^'\n]{1,80})",
        ),
        also=r"NCCL WARN",
        says="had a CUDA error inside NCCL[: {what}]",
        remedy=(
            "set `env: {NCCL_DEBUG: INFO}` and launch again; see the GPUs: ssh {host} nvidia-smi; out of "
            "memory and a driver older than NCCL needs do this"
        ),
        sure=0.65,
        weight=70,
    ),
    Rule(
        id="nccl-system-error",
        texts=(
            r"ncclSystemError",
            r"unhandled system error",
            r"ncclInternalError",
            r"(?s:NCCL (?:error in|Error [0-57-9])(?!.*(?:remote process|ncclRemote|abort)))",
        ),
        says="had a network or system error inside NCCL: {detail}",
        remedy=(
            "set `env: {NCCL_DEBUG: INFO}` and launch again; wrong interface (NCCL_SOCKET_IFNAME), a firewall, "
            "/dev/shm or the memlock limit do this: rankdeck check PROFILE"
        ),
        sure=0.6,
        weight=60,
    ),
    Rule(
        id="backend-missing",
        texts=(
            r"Distributed package doesn't have (?P<backend>\w+) built in",
            r"\b(?P<backend>\w{1,40}) is not (?:available|built in).{0,40}(?:build|backend)",
            r"Unknown c10d backend",
        ),
        says="asks for a backend[ {backend}] that its torch was built without",
        remedy='install a torch with CUDA there, or use the backend gloo: init_process_group("gloo")',
        sure=0.95,
    ),
)
