"""Until all nodes have met: ports, names, routes, and how many there are."""

from __future__ import annotations

from engine.diagnosis.rules.rule import Rule

MASTER = r"(?P<master>[^\s,()\[\]]+|\[[0-9a-fA-F:.%]+\])"

RULES = (
    Rule(
        id="port-in-use",
        where=("raised", "line"),
        texts=(
            r"(?:failed to bind to \S*:(?P<port>\d+)\b.{0,40})(?:98|48|[Aa]ddress already in use)",
            (
                r"server socket has failed to (?:listen|bind)(?s:.{0,200}?)(?:port: (?P<port>\d+)(?s:.{0,120}?))"
                r"?(?:EADDRINUSE|errno: (?:98|48)\b|address already in use)"
            ),
            r"\[Errno (?:98|48)\] (?:[Aa]ddress already in use|error while attempting to bind)",
            r"EADDRINUSE",
            r"Address already in use",
        ),
        also=r"failed to (?:bind|listen).*(?:Address already in use|EADDRINUSE)",
        says="cannot listen on its port[ {port}]: another program has it (EADDRINUSE, address already in use)",
        remedy=(
            "see who has it: ssh {host} ss -ltnp; end that program, or set `rendezvous.master_port` to a free port"
        ),
        sure=0.97,
    ),
    Rule(
        id="port-forbidden",
        where=("raised", "line"),
        texts=(r"server socket has failed to (?:listen|bind).{0,200}(?:EACCES|errno: 13\b|[Pp]ermission denied)",),
        says="may not listen on its port: ports below 1024 are root's",
        remedy="set `rendezvous.master_port` to a port between 1024 and 65535",
    ),
    Rule(
        id="port-invalid",
        texts=(
            (
                r"(?:port must be 0-65535|[Ii]nvalid port|port number .{0,40}(?:range|between)|out of "
                r"range.{0,40}\bport|getsockaddrarg: port)"
            ),
        ),
        says="was given a port that does not exist: {exc}",
        remedy="set `rendezvous.master_port` to a port between 1024 and 65535",
    ),
    Rule(
        id="address-not-local",
        where=("raised", "line"),
        texts=(
            (
                r"(?:server socket has failed to (?:listen|bind)|bind).{0,240}(?:EADDRNOTAVAIL|errno: 99\b|"
                r"[Cc]annot assign requested address)"
            ),
            r"\[Errno 99\]",
        ),
        says="cannot listen on the master address: that address is not its own",
        remedy=(
            "set `rendezvous.master_addr` to an address of the first node, and see that node ranks follow the profile"
        ),
    ),
    Rule(
        id="duplicate-node-rank",
        texts=(r"keys?: \S*/torchelastic/role_info/",),
        says=(
            "waited in vain for what each node has to say of itself: a node is missing, or two have the same node_rank"
        ),
        remedy=(
            "give every node its own --node_rank, 0 on the master only, and the same --nnodes; a launch by "
            "Rankdeck does that"
        ),
        sure=0.6,
        weight=55,
    ),
    Rule(
        id="stale-job",
        texts=(
            (
                r"[Tt]imed out initializing process group in store based barrier.{0,200}world_size=(?P<world>\d+), "
                r"worker_count=(?P<count>\d+)"
            ),
        ),
        says="waited at the first barrier: {count} worker(s) came where {world} were expected",
        remedy=(
            "more than expected: an older job still uses the port (rankdeck reap PROFILE); fewer: a rank never started"
        ),
        sure=0.7,
        weight=50,
    ),
    Rule(
        id="master-is-loopback",
        where=("raised", "line"),
        texts=(
            (
                r"(?:connect(?:/validate)? to|trying to connect to)\D{0,12}\(?(?P<master>localhost|"
                r"127\.\d+\.\d+\.\d+|\[?::1\]?)[,:] ?(?P<port>\d+)"
            ),
        ),
        says="looks for the master on itself ({master}, port {port}) although the master is another node",
        remedy=(
            "set `rendezvous.master_addr` to an address of the first node that the others reach; with c10d "
            "also `--local-addr`, or the static backend; a host name that resolves to 127.0.1.1 in /etc/hosts "
            "does the same"
        ),
        weight=85,
    ),
    Rule(
        id="name-unresolved",
        where=("raised", "line"),
        texts=(
            rf"network addresses of \({MASTER}, \d+\) cannot be retrieved",
            r"(?:socket\.)?gaierror: \[Errno -?\d+\] (?P<why>.{1,60})",
            r"(?:[Cc]ould not|[Cc]annot|[Ff]ailed to) resolve (?:host(?:name)?|address)?:? ?(?P<master>\S{0,80})",
            r"getaddrinfo.{0,80}(?:failed|Name or service not known)",
        ),
        unless=r"failed to connect to \S+ \(errno: ",
        also=r"gai error|Name or service not known|Temporary failure in name resolution",
        says="cannot resolve the name of the master[ {master}][ ({why})]",
        remedy="set `rendezvous.master_addr` to an address (10.0.0.11), or add the name to /etc/hosts on {host}",
        weight=80,
    ),
    Rule(
        id="master-unreachable",
        where=("raised", "line"),
        texts=(
            rf"client socket has (?:timed out|failed to connect)(?s:.{{0,160}}?)\({MASTER}, (?P<port>\d+)\)"
            r"(?s:(?:.{0,200}?\(errno: (?P<errno>\d+) - (?P<why>[^)]+)\))?)",
            r"client socket has (?:timed out|failed)(?s:.{0,120}?)connect(?:ing)? to (?P<master>\S+?)[:,](?P<port>\d+)"
            r"(?:\s\(errno: (?P<errno>\d+) - (?P<why>[^)]+)\))?",
            r"connect\(\) timed out\. Original timeout",
            (
                r"(?:failed to connect|[Cc]ould not connect|connection) to (?:the )?(?:TCPStore|rendezvous|master)"
                r"\S*"
            ),
        ),
        also=r"errno: \d+ - |client socket has (?:timed out|failed)",
        says=("cannot connect to the master[ {master} port {port}][ ({why})]: client socket timed out or was refused"),
        remedy=(
            "is torchrun up on the first node, and no firewall between? from {host}: nc -zv[ {master} {port}]; "
            "open the port, or correct `rendezvous.master_addr` and `rendezvous.interface`; rankdeck check "
            "PROFILE tests it"
        ),
        sure=0.85,
        weight=75,
    ),
    Rule(
        id="nodes-missing",
        texts=(
            r"[Tt]imed out after \d+ seconds waiting for clients\. (?P<here>\d+)/(?P<all>\d+) clients joined",
            r"Rendezvous ?TimeoutError",
            r"rendezvous.{0,60}(?:timed? ?out|did not complete)",
        ),
        says="waited in vain for all nodes to join[: {here} of {all} came]",
        remedy=(
            "start torchrun on every node, with the same --nnodes, master address, port and rdzv_id; look at "
            "the log of the node that is missing; rankdeck launch starts all of them"
        ),
        sure=0.8,
        weight=54,
    ),
    Rule(
        id="ranks-not-assigned",
        texts=(r"wait timeout after \d+ ?ms, keys: \S*/torchelastic/(?:assigned_ranks|num_members)",),
        says=(
            "waited in vain for the first node to hand out the ranks: a node is missing, or they do not agree on "
            "--nnodes or --node_rank"
        ),
        remedy="look at the log of the first node; give every node the same --nnodes and its own --node_rank",
        sure=0.6,
        weight=46,
    ),
    Rule(
        id="rendezvous-closed",
        texts=(
            r"RendezvousClosedError",
            r"rendezvous is closed",
            r"RendezvousGracefulExitError",
        ),
        says="came too late: the rendezvous was closed already",
        remedy="an earlier run used the same --rdzv_id, or the others had finished; launch again with a new id",
        sure=0.7,
        weight=45,
    ),
    Rule(
        id="rank-never-came",
        texts=(
            r"wait timeout after \d+ ?ms, keys: \S*//\w+//\d+/(?P<suspect>\d+)",
            (
                r"retrieving ncclUniqueId from \[(?P<suspect>\d+)\].{0,200}(?:[Ss]ocket [Tt]imeout|wait timeout|"
                r"[Tt]imeout)"
            ),
            r"store->get\('?(?P<suspect>\d+)'?\).{0,80}(?:[Tt]imeout)",
        ),
        says="waited in vain for another rank to set up communication",
        remedy="look at what that rank was doing; if it prepares data, raise the timeout of init_process_group",
        sure=0.6,
        weight=48,
    ),
    Rule(
        id="store-lost",
        role="victim",
        texts=(
            r"recvV\w+ failed",
            r"[Ff]ailed to recv, got 0 bytes",
            r"Connection was likely closed",
            r"sendBytes failed",
            r"RendezvousConnectionError",
            r"RendezvousStateError",
            r"store->get\(",
            r"DistStoreError",
            r"failed to (?:send a keep-alive|shutdown the rendezvous)",
            r"keep-alive heartbeat",
            r"should dump.{0,20} flag on TCPStore",
            r"TCPStore server has shut down",
            r"wait timeout after \d+",
        ),
        says="lost the store: torchrun on the first node, or its rank 0, had gone",
        remedy="look at the first node: what ended there ended first",
        sure=0.4,
        weight=20,
    ),
    Rule(
        id="libuv-missing",
        texts=(r"built without libuv support",),
        says="has a torch without libuv, which another version asks for",
        remedy='set `env: {USE_LIBUV: "0"}`, or install the same torch on all nodes',
    ),
)
