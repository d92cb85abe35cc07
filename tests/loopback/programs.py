"""Running small programs over a transport."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.transport import Link, Transport


async def everything(link: Link) -> bytes:
    """All that the program writes, up to its end."""
    chunks = []
    while data := await link.receive():
        chunks.append(data)
    return b"".join(chunks)


async def output(transport: Transport, command: str) -> bytes:
    """What one program writes to stdout."""
    link = await transport.open(command)
    data = await everything(link)
    await link.close()
    return data
