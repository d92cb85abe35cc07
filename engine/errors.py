"""The error tree, and the exit code of each branch.

    RankdeckError                 what happened, on which node, and the exact next step
    ├── RequestError        2     the request is wrong: profile, flags, name of a run
    │   └── ProfileError          every mistake of one profile file at once
    ├── PreflightFailed     3     preflight found an error; nothing was started
    ├── MachineError        4     a machine or the network let us down
    │   ├── Unreachable           no connection: name, route, refused, silent server
    │   ├── AuthenticationFailed  the server speaks, and refuses us; never retried
    │   ├── HostKeyUnknown        not in known_hosts; carries what a human needs to decide
    │   ├── HostKeyChanged        known_hosts says otherwise; refused
    │   ├── ConnectionLost        an open connection broke; what ran there runs on
    │   ├── NoPython              no usable python3 on the node
    │   └── NodeRefused           the node answered, and the answer is an error (disk full, read-only home …)
    └── JobFailed           1     the job ran and did not succeed

A job that fails is data (`RunState`), not an exception; `JobFailed` exists for the front end's exit code alone.
"""

from __future__ import annotations

EXIT_OK = 0
EXIT_JOB_FAILED = 1
EXIT_REQUEST = 2
EXIT_PREFLIGHT = 3
EXIT_MACHINE = 4
EXIT_INTERRUPTED = 130


class RankdeckError(Exception):
    """What happened (`text`), on which node (`node`, a host name or ""), and the exact next step (`remedy` or "")."""

    exit_code = EXIT_JOB_FAILED

    def __init__(self, text: str, *, node: str = "", remedy: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.node = node
        self.remedy = remedy

    def __str__(self) -> str:
        where = f"{self.node}: " if self.node else ""
        remedy = f"\n  {self.remedy}" if self.remedy else ""
        return f"{where}{self.text}{remedy}"


class RequestError(RankdeckError):
    exit_code = EXIT_REQUEST


class ProfileError(RequestError):
    """Every mistake of one profile, one line each, in the order of the file."""

    def __init__(self, source: str, mistakes: list[str]) -> None:
        count = "one mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__("\n".join([f"{source}: {count}", *(f"  {m}" for m in mistakes)]))
        self.source = source
        self.mistakes = mistakes


class PreflightFailed(RankdeckError):
    exit_code = EXIT_PREFLIGHT


class MachineError(RankdeckError):
    exit_code = EXIT_MACHINE


class Unreachable(MachineError):
    pass


class AuthenticationFailed(MachineError):
    pass


class HostKeyUnknown(MachineError):
    """`entry` is the known_hosts line that an explicit yes would store."""

    def __init__(self, *, node: str, host: str, port: int, key_type: str, fingerprint: str, entry: str) -> None:
        super().__init__(
            f"the host key of {host} port {port} is not known ({key_type} {fingerprint})",
            node=node,
            remedy=f"compare the fingerprint with the machine's own, then accept it, or run: ssh -p {port} {host}",
        )
        self.host = host
        self.port = port
        self.key_type = key_type
        self.fingerprint = fingerprint
        self.entry = entry


class HostKeyChanged(MachineError):
    pass


class ConnectionLost(MachineError):
    pass


class NoPython(MachineError):
    pass


class NodeRefused(MachineError):
    """`code` is the errno name (ENOSPC, EROFS …) or a word of the node's program ("no-run")."""

    def __init__(self, text: str, *, node: str = "", remedy: str = "", code: str = "") -> None:
        super().__init__(text, node=node, remedy=remedy)
        self.code = code


class JobFailed(RankdeckError):
    exit_code = EXIT_JOB_FAILED
