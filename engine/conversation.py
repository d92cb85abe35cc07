"""One conversation a node: open it, ask, follow. JSON from a node becomes typed here, once.

A conversation is one program (`engine.node.serve`) at the other end of one link. Rules:
- Everything that a node says is bounded in size, checked, and cannot name a file outside the run's mirror.
- A broken link ends every pending question with `ConnectionLost`; nothing is assumed about what the node did.
- Bytes of a stream go to the sink as they come, without being joined or held.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import io
import json
import math
import secrets
import time
import zipfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from engine import __version__
from engine.errors import ConnectionLost, MachineError, NodeRefused, NoPython
from engine.events import Left, safe_left
from engine.node import tail
from engine.text import clean
from engine.waiting import within

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.transport import Link, Transport

COMMAND = (
    "exec /bin/sh -c 'for p in python3 /usr/bin/python3 /usr/local/bin/python3; do "
    'command -v "$p" >/dev/null 2>&1 && '
    'exec "$p" -I -S -c "import sys, time; began = time.time(); '
    'i = sys.stdin.buffer; exec(i.read(int(i.readline())))"; '
    "done; echo rankdeck: no python3 >&2; exit 97'"
)
"""What every login shell (sh, bash, csh, fish) runs for us: constant, so that no data ever becomes shell."""

NOISE_LIMIT, NOISE_LINES = 1 << 20, 3
LINE_LIMIT = 16 << 20
OPEN_TIMEOUT = 45.0
PING_EVERY = 15.0

TRAVELS = ("engine/__init__.py", "engine/batch.py", "engine/node/*.py", "engine/train/*.py")


@cache
def pack() -> bytes:
    """The program that travels to the nodes: one zip, the same bytes for the same sources."""
    root = Path(__file__).parent.parent
    archive = io.BytesIO()
    parts = {str(path.relative_to(root)): path.read_bytes() for pattern in TRAVELS for path in root.glob(pattern)}
    parts["__main__.py"] = b"from engine.node.__main__ import main\n\nmain()\n"
    with zipfile.ZipFile(archive, "w") as file:
        for name, source in sorted(parts.items()):
            file.writestr(zipfile.ZipInfo(name), source, zipfile.ZIP_DEFLATED)  # a ZipInfo alone would not be deflated
    return archive.getvalue()


@cache
def checksum() -> str:
    return hashlib.sha256(pack()).hexdigest()


class Hello(msgspec.Struct, frozen=True):
    """What a node says of itself when the conversation opens. `clock` = its clock minus ours, in seconds, known to
    within `clock_error`; `latency` is one round trip, and `shell` what its start-up files took, in seconds; `noise` is
    the beginning of what they print."""

    protocol: int
    host: str
    python: str
    state: str
    user: str
    boot: str
    t: float
    latency: float = 0.0
    clock: float = 0.0
    clock_error: float = 0.0
    shell: float = 0.0
    noise: str = ""


class Sink(Protocol):
    """Where a follow delivers. Called from the event loop; must not block for long."""

    def reset(self, stream: str) -> None: ...
    def frame(self, stream: str, end: int, more: bool) -> None: ...
    def data(self, stream: str, offset: int, data: bytes) -> None: ...
    def alive(self, alive: bool) -> None: ...
    def drained(self, streams: int) -> None: ...


class Conversation:
    """An open conversation with one node."""

    def __init__(self, transport: Transport, link: Link, host: str, hello: Hello, rest: bytes) -> None:
        self.host = host
        self.hello = hello
        self._transport = transport
        self._link = link
        self._pending: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._sinks: dict[int, Sink] = {}
        self._number = 0
        self._inbox = bytearray(rest)
        self._payload: tuple[Sink, str, int, int] | None = None
        self._end: MachineError | None = None
        self._heard = time.monotonic()
        self.batch = False
        """Whether runs that are watched through this node run elsewhere, and may not have begun: below Slurm."""
        self._holders = 1
        self.ended: asyncio.Future[MachineError] = asyncio.get_running_loop().create_future()
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._ping())]

    @property
    def peer(self) -> str:
        """The address that the connection goes to; "" for this machine."""
        return self._transport.peer

    def __repr__(self) -> str:
        return f"<Conversation {self.host} {'ended' if self._end else 'open'}>"

    async def ask(self, verb: str, *, timeout: float, **fields: Any) -> dict[str, Any]:
        """One question, one answer. NodeRefused when the answer is an error, ConnectionLost when none comes."""
        self._number += 1
        return await self._exchange(self._number, verb, timeout, fields)

    async def measure(self) -> None:
        """Latency and clock difference, by one round trip (Cristian 1989)."""
        asked, clock = time.monotonic(), time.time()
        answer = await self.ask("ping", timeout=30.0)
        half = (time.monotonic() - asked) / 2
        moment = answer.get("t")
        if not isinstance(moment, (int, float)) or not math.isfinite(moment):
            raise ConnectionLost("the node does not keep to the protocol: a clock without a time", node=self.host)
        self.hello = msgspec.structs.replace(
            self.hello, latency=2 * half, clock=moment - clock - half, clock_error=half
        )

    async def watch(
        self, run: str, node_rank: int, streams: Mapping[str, tuple[int, int]], sink: Sink, once: bool
    ) -> int:
        """Follow `streams` ({name: (offset, crc)}) of a run into `sink`; the number is for `watch_more`."""
        self._number += 1
        number = self._number
        self._sinks[number] = sink
        fields = {"run": run, "node_rank": node_rank, "streams": dict(streams), "once": once, "batch": self.batch}
        await self._exchange(number, "watch", 30.0, fields)
        return number

    async def watch_more(self, number: int, run: str, node_rank: int, streams: Mapping[str, tuple[int, int]]) -> None:
        await self.ask("watch", timeout=30.0, sub=number, run=run, node_rank=node_rank, streams=dict(streams))

    def give_up(self, error: MachineError) -> None:
        """End the conversation because of this error, as if the link had broken."""
        if self._end is None:
            self._end = error
            self.ended.set_result(error)
        for future in self._pending.values():
            if not future.done():
                future.set_exception(error)

    def share(self) -> Conversation:
        """The same conversation for one more holder; it closes when the last one closes it."""
        self._holders += 1
        return self

    async def close(self) -> None:
        """Leave the node. What runs there runs on."""
        self._holders -= 1
        if self._holders:
            return
        for task in self._tasks:
            task.cancel()
        self.give_up(ConnectionLost("closed", node=self.host))
        await self._link.close()
        await self._transport.close()

    async def _exchange(self, number: int, verb: str, timeout: float, fields: dict[str, Any]) -> dict[str, Any]:
        if self._end is not None:
            raise self._end
        future = self._pending[number] = asyncio.get_running_loop().create_future()
        request = json.dumps({"id": number, "do": verb, **fields}, separators=(",", ":")).encode() + b"\n"
        try:
            await within(timeout, self._link.send(request))
            answer = await within(timeout, future)
        except asyncio.TimeoutError:
            raise ConnectionLost(f"no answer to “{verb}” within {timeout:.0f} s", node=self.host) from None
        finally:
            self._pending.pop(number, None)
            if future.done() and not future.cancelled():
                future.exception()  # seen, also where sending failed before it could be
        if "error" in answer:
            raise refusal(self.host, str(answer["error"]), clean(str(answer.get("text", ""))))
        result = answer.get("ok")
        return result if isinstance(result, dict) else {}

    async def _ping(self) -> None:
        """Ask now and then; a node from which nothing at all comes any more is lost, though the link looks open."""
        while self._end is None:
            await asyncio.sleep(PING_EVERY)
            asked = time.monotonic()
            try:
                await self.ask("ping", timeout=PING_EVERY * 2)
            except MachineError as lost:
                if self._heard < asked:
                    self.give_up(lost)

    async def _read(self) -> None:
        try:
            self._digest(b"")
            while data := await self._link.receive():
                self._heard = time.monotonic()
                self._digest(data)
            error: MachineError = ConnectionLost(
                f"our program there ended (exit status {self._link.exit_status}) {clean(self._link.stderr)}".strip(),
                node=self.host,
            )
        except MachineError as lost:
            error = lost
        except OSError as full:
            error = MachineError(f"the log mirror on this machine cannot be written: {full}", node=self.host)
        except (ValueError, TypeError, KeyError, ArithmeticError, RecursionError) as junk:
            error = ConnectionLost(f"the node does not keep to the protocol: {clean(str(junk))}", node=self.host)
        except Exception as fault:  # ours or the viewer's: a conversation that nobody reads would look silent
            error = MachineError(f"a fault of Rankdeck's own: {clean(repr(fault))}", node=self.host)
            error.__cause__ = fault
        self.give_up(error)

    def _digest(self, data: bytes) -> None:
        """Take bytes from the node: frames of JSON lines, some with a payload that passes through unjoined."""
        inbox = self._inbox
        if self._payload is not None and not inbox:
            data = self._deliver(data)
        inbox += data
        while True:
            if self._payload is not None:
                if not inbox:
                    return
                rest = self._deliver(bytes(inbox))
                inbox.clear()
                inbox += rest
                continue
            end = inbox.find(b"\n")
            if end < 0:
                if len(inbox) > LINE_LIMIT:
                    raise ValueError("a line without an end")
                return
            line = bytes(inbox[:end])
            del inbox[: end + 1]
            self._frame(json.loads(line))

    def _deliver(self, data: bytes) -> bytes:
        """Hand what belongs to the current payload to its sink; the rest comes back."""
        assert self._payload is not None
        sink, stream, offset, left = self._payload
        part = data[:left] if len(data) > left else data
        sink.data(stream, offset, part)
        left -= len(part)
        self._payload = (sink, stream, offset + len(part), left) if left else None
        return data[len(part) :]

    def _frame(self, head: dict[str, Any]) -> None:
        number = head["id"]
        if "ok" in head or "error" in head:
            future = self._pending.get(number)
            if future is not None and not future.done():
                future.set_result(head)
            return
        sink = self._sinks.get(number)
        if sink is None:
            raise ValueError("frames for a question that nobody asked")
        if "s" in head:
            stream, offset, length = head["s"], head["o"], head["n"]
            if not (isinstance(stream, str) and tail.STREAM.fullmatch(stream)):
                raise ValueError("a stream with a forbidden name")
            if not (isinstance(offset, int) and isinstance(length, int) and 0 <= length <= tail.CHUNK and offset >= 0):
                raise ValueError("a frame with a forbidden size")
            if head.get("reset"):
                sink.reset(stream)
            if length:
                sink.frame(stream, offset + length, length == tail.CHUNK)
                self._payload = (sink, stream, offset, length)
        elif "alive" in head:
            sink.alive(bool(head["alive"]))
        elif "drained" in head:
            sink.drained(int(head["drained"]))


def lefts(answer: Mapping[str, Any]) -> tuple[Left, ...]:
    """The processes that an answer to “stop” or “sweep” names as not removed."""
    try:
        found = msgspec.convert(answer.get("left", []), list[Left])
    except msgspec.ValidationError:
        return ()
    return tuple(safe_left(left) for left in found)


ELSEWHERE = "keep the logs elsewhere: --set state_dir=/var/tmp/rankdeck-USER"
REFUSALS: dict[str, tuple[str, str]] = {
    "ENOSPC": ("no space left", f"free space there, or {ELSEWHERE}"),
    "EDQUOT": ("over the disk quota", f"free space there, or {ELSEWHERE}"),
    "EROFS": ("the file system is read-only", ELSEWHERE),
    "EACCES": ("no permission", ELSEWHERE),
    "no-run": ("this node does not know the run", ""),
}
"""What a node's error code means, and what to do about it; USER is whose account it is there."""


def refusal(host: str, code: str, text: str, user: str = "") -> NodeRefused:
    meaning, remedy = REFUSALS.get(code, ("", ""))
    remedy = remedy.replace("-USER", f"-{user}" if user else "")
    return NodeRefused(f"{meaning} ({text})" if meaning else text or code, node=host, remedy=remedy, code=code)


async def converse(transport: Transport, host: str, state_dir: str = "") -> Conversation:
    """Open the conversation: start python3 on the node, hand it our program if it lacks it, shake hands.

    NoPython, NodeRefused (state folder), ConnectionLost; bounded by 45 s in all.
    """
    try:
        return await within(OPEN_TIMEOUT, _converse(transport, host, state_dir))
    except asyncio.TimeoutError:
        raise ConnectionLost(
            f"connected, and then no word from our program within {OPEN_TIMEOUT:.0f} s",
            node=host,
            remedy=f"look at what the shell's start-up files do there: ssh {host} true",
        ) from None


async def _converse(transport: Transport, host: str, state_dir: str) -> Conversation:
    program = pack()
    nonce = secrets.token_hex(8)
    header = {"nonce": nonce, "sha": checksum(), "size": len(program), "state": state_dir}
    source = (Path(__file__).parent / "node" / "boot.py").read_bytes()
    link = await transport.open(COMMAND)
    try:
        await link.send(b"%d\n" % len(source) + source + json.dumps(header).encode() + b"\n")
        inbox = bytearray()
        noise: list[str] = []
        while (answer := await _answer(link, nonce.encode(), inbox, host, noise)).get("need"):
            await link.send(program)
        if "error" in answer:
            raise _unfit(host, answer)
        about = {k: clean(v) if isinstance(v, str) else v for k, v in answer.items()}
        hello = msgspec.convert({**about, "noise": "\n".join(noise)}, Hello)
        conversation = Conversation(transport, link, host, hello, bytes(inbox))
        await conversation.measure()
        return conversation
    except msgspec.ValidationError as junk:
        await link.close()
        raise NodeRefused(f"a strange answer to our greeting: {clean(str(junk))}", node=host) from None
    except BaseException:
        await link.close()
        raise


async def _answer(link: Link, nonce: bytes, inbox: bytearray, host: str, noise: list[str]) -> dict[str, Any]:
    """The next line that begins with the nonce; rc files may print before: `noise` gets the beginning of that."""
    seen = 0
    while True:
        while (end := inbox.find(b"\n")) >= 0:
            line = bytes(inbox[:end])
            del inbox[: end + 1]
            at = line.rfind(nonce)
            if at >= 0:
                # A shell that echoes its input prints the nonce too.
                with contextlib.suppress(ValueError, RecursionError):
                    answer = json.loads(line[at + len(nonce) :])
                    if isinstance(answer, dict):
                        return answer
            elif len(noise) < NOISE_LINES:
                noise.append(clean(line.decode("utf-8", "replace"))[:200])
        data = await link.receive()
        seen += len(data)
        if not data:
            raise _no_greeting(link, host)
        if seen > NOISE_LIMIT:
            raise NodeRefused("the shell there prints without end", node=host, remedy=f"try: ssh {host} true")
        inbox += data


def _no_greeting(link: Link, host: str) -> MachineError:
    said = clean(link.stderr).strip()
    if link.exit_status == 97 and "no python3" in said:
        return NoPython(
            "there is no python3 on the PATH of a non-interactive shell, nor in /usr/bin or /usr/local/bin",
            node=host,
            remedy="install Python 3.8 or later there (apt-get install python3)",
        )
    if "Unknown option: -I" in said:
        return _too_old(host, "python3 there is Python 2")
    if "invalid literal for int()" in said:
        return NodeRefused(
            "a start-up file of the shell there read from its standard input, which is our program's",
            node=host,
            remedy=f"guard that `read` for sessions without a terminal ([ -t 0 ] && …), then try: ssh {host} true",
        )
    detail = f": {said[-500:]}" if said else ""
    return NodeRefused(
        f"the shell there ended with exit status {link.exit_status} before our program could start{detail}",
        node=host,
        remedy=f"see what its start-up files do: ssh {host} true",
    )


def _too_old(host: str, text: str) -> NoPython:
    return NoPython(f"{text}; 3.8 or later is needed", node=host, remedy="put a newer python3 first on the PATH there")


def _unfit(host: str, answer: dict[str, Any]) -> MachineError:
    text = clean(str(answer.get("text", "")))
    if answer["error"] == "python":
        return _too_old(host, text)
    if answer["error"] == "state":
        number = answer.get("errno")
        code = errno.errorcode.get(number, "os") if isinstance(number, int) else "os"
        whose = clean(str(answer.get("user", "")))
        return refusal(host, code, f"{clean(str(answer.get('path')))}: {text}", whose)
    return NodeRefused(
        text, node=host, remedy=f"chmod 700 the folder, or set `state_dir` in the profile ({__version__})"
    )
