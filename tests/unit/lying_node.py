"""A double of a node's program that greets as it should and then says what a test wants."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

from engine.conversation import converse

if TYPE_CHECKING:
    from collections.abc import Callable

    from engine.conversation import Conversation
    from engine.transport import Link

HELLO = {"ok": True, "protocol": 1, "host": "gpu01", "python": "3.11.2", "state": "/s", "user": "ml", "boot": "b"}


class LyingNode:
    """A transport and its only link. `say` is what arrives next; `answer` makes the answer to each request."""

    name = "gpu01"
    peer = "10.0.0.11"
    stderr = ""
    exit_status: int | None = None

    def __init__(self, hello: dict[str, Any] | None = None) -> None:
        self.hello = {**HELLO, "t": time.time(), **(hello or {})}
        self.asked: list[dict[str, Any]] = []
        self.answer: Callable[[dict[str, Any]], bytes] = self.honest
        self.closed = False
        self._said: asyncio.Queue[bytes] = asyncio.Queue()
        self._greeted = False

    def honest(self, request: dict[str, Any]) -> bytes:
        return line({"id": request["id"], "ok": {"t": time.time()}})

    def say(self, data: bytes) -> None:
        self._said.put_nowait(data)

    async def greeted(self) -> Conversation:
        return await converse(self, self.name)

    async def open(self, command: str) -> Link:
        return self

    async def send(self, data: bytes) -> None:
        lines = data.splitlines()
        if not self._greeted:
            self._greeted = True
            self.say(json.loads(lines[-1])["nonce"].encode() + line(self.hello))
            return
        for request in map(json.loads, lines):
            self.asked.append(request)
            if said := self.answer(request):
                self.say(said)

    async def receive(self) -> bytes:
        return await self._said.get()

    async def close(self) -> None:
        self.closed = True


def line(value: Any) -> bytes:
    return json.dumps(value).encode() + b"\n"


def frame(number: int, stream: str, offset: int, data: bytes, **more: Any) -> bytes:
    return line({"id": number, "s": stream, "o": offset, "n": len(data), **more}) + data
