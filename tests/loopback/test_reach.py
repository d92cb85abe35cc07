"""Servers that cannot be reached, or are none: bounded in time, and the message says which."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from engine.errors import Unreachable
from engine.ssh.client import SshClient, Timeouts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.loopback.sshd import Lab


@contextlib.asynccontextmanager
async def server(says: bytes, *, hangs_up: bool = False) -> AsyncIterator[tuple[int, list[int]]]:
    """A TCP server that says something and then stays, or hangs up: its port, and one item a connection."""
    visits: list[int] = []

    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visits.append(1)
        writer.write(says)
        with contextlib.suppress(OSError):
            await writer.drain()
            if not hangs_up:
                await reader.read()
        writer.close()

    listening = await asyncio.start_server(visit, "127.0.0.1", 0)
    yield listening.sockets[0].getsockname()[1], visits
    listening.close()
    await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("says", "hangs_up", "words"),
    [
        (b"", False, "accepts the connection and says nothing within 1 s"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", True, "is not an ssh server: it says 'HTTP/1.1 400 Bad Request"),
        (b"220 \x1b]0;owned\x07mail ESMTP\r\n", False, "is not an ssh server: it says '220 mail ESMTP'"),
        (b"SSH-2.0-Silent\r\n", False, "the login did not end within 1 s"),
        (b"SSH-1.5-Old\r\n", True, "is not an ssh server: it says 'SSH-1.5-Old'"),
        (b"Not allowed at this time\r\n", True, "refuses this address for a while"),
    ],
)
async def test_what_answers_instead_of_sshd_is_told(lab: Lab, says: bytes, hangs_up: bool, words: str) -> None:
    client = SshClient(config=lab.config, timeouts=Timeouts(connect=1, login=1))
    async with server(says, hangs_up=hangs_up) as (port, visits):
        began = time.monotonic()
        with pytest.raises(Unreachable) as failed:
            await client.connect("127.0.0.1", port=port)
        assert words in failed.value.text
        assert f"127.0.0.1 port {port}" in failed.value.text
        assert failed.value.remedy
        assert time.monotonic() - began < 15
        assert len(visits) == 1
    await client.close()


@pytest.mark.parametrize("says", [b"", b"Exceeded MaxStartups\r\n"])
async def test_a_server_that_hangs_up_is_tried_four_times(lab: Lab, says: bytes) -> None:
    client = SshClient(config=lab.config, timeouts=Timeouts(connect=1, login=1, pause=0.02))
    async with server(says, hangs_up=True) as (port, visits):
        with pytest.raises(Unreachable, match="closes the connection before the login") as failed:
            await client.connect("127.0.0.1", port=port)
        assert "MaxStartups" in failed.value.remedy
        assert len(visits) == 4
    await client.close()


async def test_a_closed_port_is_a_refused_connection(lab: Lab, client: SshClient) -> None:
    with pytest.raises(Unreachable, match=r"127.0.0.1 port 1: connection refused") as failed:
        await client.connect("127.0.0.1", port=1)
    assert "sshd" in failed.value.remedy


async def test_a_name_that_does_not_exist_is_told(lab: Lab, client: SshClient) -> None:
    with pytest.raises(Unreachable, match=r"the name no-such-host.invalid cannot be resolved"):
        await client.connect("no-such-host.invalid")


async def test_a_silent_node_behind_a_jump_host_is_bounded(lab: Lab, client: SshClient) -> None:
    with lab.sshd() as bastion:
        lab.alias("login", bastion)
        async with server(b"") as (port, _):
            lab.block("Host gpu01", "HostName 127.0.0.1", f"Port {port}", "ProxyJump login")
            with pytest.raises(Unreachable, match="says nothing within 1 s"):
                await client.connect("gpu01")


async def test_quitting_in_the_middle_of_a_login_leaves_nothing_behind(lab: Lab, client: SshClient) -> None:
    async with server(b"SSH-2.0-Silent\r\n") as (port, _):
        login = asyncio.ensure_future(client.connect("127.0.0.1", port=port))
        await asyncio.sleep(0.3)
        login.cancel()
        with pytest.raises(asyncio.CancelledError):
            await login
        left = [t for t in asyncio.all_tasks() if t is not asyncio.current_task() and "visit" not in repr(t)]
        assert left == []
