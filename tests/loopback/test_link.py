"""Programs over both transports: the same rules for ssh and for this machine."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.errors import ConnectionLost, NodeRefused
from engine.transport import CHUNK, STDERR_TAIL, LocalTransport, connect
from tests.loopback.programs import everything, output

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from engine.ssh.client import SshClient
    from engine.transport import Transport
    from tests.loopback.sshd import Lab, Sshd


@pytest.fixture(params=["ssh", "local"])
async def transport(request: pytest.FixtureRequest, sshd: Sshd, client: SshClient) -> AsyncIterator[Transport]:
    transport: Transport = LocalTransport()
    if request.param == "ssh":
        transport = await client.connect("127.0.0.1", port=sshd.port)
    yield transport
    await transport.close()


async def test_bytes_come_back_as_they_went(transport: Transport) -> None:
    link = await transport.open("cat")
    sent = bytes(range(256)) * 5000
    sending = asyncio.ensure_future(link.send(sent))
    back = b""
    while len(back) < len(sent):
        data = await link.receive()
        assert 0 < len(data) <= CHUNK
        back += data
    await sending
    assert back == sent
    assert link.exit_status is None
    await link.close()


async def test_the_exit_status_is_there_after_the_last_byte(transport: Transport) -> None:
    link = await transport.open("echo out; exit 7")
    assert await everything(link) == b"out\n"
    assert link.exit_status == 7
    assert await link.receive() == b""


async def test_a_program_ended_by_a_signal_has_its_negative_number(transport: Transport) -> None:
    link = await transport.open("kill -TERM $$")
    assert await everything(link) == b""
    assert link.exit_status == -signal.SIGTERM


async def test_the_end_of_stderr_is_kept(transport: Transport) -> None:
    link = await transport.open("head -c 100000 /dev/zero | tr '\\0' x >&2; echo '\\0377the end' >&2; echo out")
    assert await everything(link) == b"out\n"
    assert link.stderr.endswith("the end\n")
    assert len(link.stderr.encode("utf-8", "replace")) <= STDERR_TAIL + 8


async def test_bytes_for_a_program_that_has_ended_vanish(transport: Transport) -> None:
    link = await transport.open("exit 3")
    for _ in range(20):
        await link.send(b"x" * 10_000)
        await asyncio.sleep(0.01)
    assert await everything(link) == b""
    assert link.exit_status == 3


async def test_closing_ends_the_input_of_the_program(transport: Transport, tmp_path: Path) -> None:
    link = await transport.open(f"cat > /dev/null; touch {tmp_path}/ended")
    await link.send(b"x")
    await link.close()
    for _ in range(200):
        if (tmp_path / "ended").exists():
            break
        await asyncio.sleep(0.01)
    assert (tmp_path / "ended").exists()


async def test_a_fast_sender_waits_for_a_slow_reader(transport: Transport) -> None:
    link = await transport.open("head -c 200000000 /dev/zero")
    await link.receive()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    await asyncio.sleep(0.5)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024, "KiB"
    size = 0
    while data := await link.receive():
        size += len(data)
    assert size > 199_000_000
    assert link.exit_status == 0


async def test_a_killed_session_is_a_lost_connection_and_no_success(sshd: Sshd, client: SshClient) -> None:
    transport = await client.connect("127.0.0.1", port=sshd.port)
    link = await transport.open("echo begun; exec sleep 60")
    assert await link.receive() == b"begun\n"
    sshd.kill_sessions()
    with pytest.raises(ConnectionLost, match="the connection broke"):
        await link.receive()
    assert link.exit_status is None
    with pytest.raises(ConnectionLost):
        await link.send(b"x")
    with pytest.raises(ConnectionLost):
        await transport.open("true")


async def test_output_before_a_lost_connection_is_delivered(sshd: Sshd, client: SshClient, tmp_path: Path) -> None:
    transport = await client.connect("127.0.0.1", port=sshd.port)
    link = await transport.open(f"echo begun; touch {tmp_path}/begun; exec sleep 60")
    while not (tmp_path / "begun").exists():
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.2)
    sshd.kill_sessions()
    await asyncio.sleep(0.1)
    assert await link.receive() == b"begun\n"
    with pytest.raises(ConnectionLost):
        await link.receive()


async def test_a_second_session_is_refused_with_the_setting_that_refuses_it(lab: Lab, client: SshClient) -> None:
    with lab.sshd(MaxSessions=1) as sshd:
        transport = await client.connect("127.0.0.1", port=sshd.port)
        link = await transport.open("cat")
        with pytest.raises(NodeRefused, match="refuses another session") as refused:
            await transport.open("true")
        assert "MaxSessions" in refused.value.remedy
        await link.send(b"still here")
        assert await link.receive() == b"still here"


async def test_a_banner_and_a_forced_command_do_not_confuse_the_login(lab: Lab, client: SshClient) -> None:
    banner = lab.folder / "banner"
    banner.write_text("\x1b]0;owned\x07 WELCOME\n" * 50)
    with lab.sshd(Banner=str(banner), ForceCommand="echo forced") as sshd:
        transport = await client.connect("127.0.0.1", port=sshd.port)
        assert await output(transport, "echo mine") == b"forced\n"


async def test_closing_a_local_program_ends_it_even_if_it_ignores_its_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.transport._CLOSE_TIMEOUT", 0.3)
    link = await LocalTransport().open("trap '' TERM; echo $$; exec sleep 60")
    pid = int(await link.receive())
    started = time.monotonic()
    await link.close()
    assert time.monotonic() - started < 20
    assert not Path(f"/proc/{pid}").exists()


async def test_a_local_program_is_out_of_reach_of_the_terminal() -> None:
    link = await LocalTransport().open("ps -o sid= -p $$; cat")
    assert int(await link.receive()) != os.getsid(0)
    await link.close()


async def test_localhost_needs_no_ssh() -> None:
    transport = await connect("localhost")
    assert (transport.name, transport.peer) == ("localhost", "")
    assert await output(transport, "echo in") == b"in\n"
    await transport.close()


def test_ssh_is_not_loaded_before_it_is_needed() -> None:
    code = "import sys, engine.transport; sys.exit('asyncssh' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
