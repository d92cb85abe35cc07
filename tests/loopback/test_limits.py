"""What runs out: open files here and on the node, places at the server, time for the login, room on the disk."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engine.conversation import converse, refusal
from engine.errors import MachineError, Unreachable
from engine.ssh.client import SshClient, Timeouts

if TYPE_CHECKING:
    from tests.loopback.sshd import Lab

RANKDECK = str(Path(sys.prefix) / "bin" / "rankdeck")
MANY = 80


def check_many(lab: Lab, limit: str) -> subprocess.CompletedProcess[str]:
    """`rankdeck check` of many hosts, all of them one server, under a limit of the shell."""
    profile = lab.folder / "crowd.yaml"
    profile.write_text(
        f"version: 1\nname: crowd\nnodes:\n  - {{host: '127.0.1.[1-{MANY}]', gpus: 1}}\n"
        "program: {kind: command, path: 'true'}\n"
    )
    with lab.sshd(SetEnv=f"HOME={lab.folder}", LogLevel="INFO") as sshd:
        lab.block("Host 127.0.1.*", "HostName 127.0.0.1", f"Port {sshd.port}")
        return subprocess.run(
            ["bash", "-c", f'{limit}; exec "$0" "$@"', RANKDECK, "check", str(profile)],
            env={**os.environ, "RANKDECK_SSH_CONFIG": str(lab.config), "HOME": str(lab.folder)},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100,
        )  # fmt: skip


def test_too_few_open_files_on_this_machine_are_told_with_the_remedy(lab: Lab) -> None:
    done = check_many(lab, "ulimit -n 64")
    assert done.returncode in (3, 4), done.stderr
    text = (done.stdout + done.stderr).lower()
    assert "too many open files" in text
    assert "raise the limit" in text
    assert "ulimit -n 4096" in text
    assert "Traceback (most recent call last)" not in done.stderr


def test_a_low_soft_limit_of_open_files_is_raised(lab: Lab) -> None:
    done = check_many(lab, "ulimit -S -n 64")
    assert "open files" not in (done.stdout + done.stderr).lower()
    assert "127.0.1.80" in done.stdout + done.stderr


class Collected:
    """A sink that keeps what comes."""

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}
        self.done = asyncio.Event()

    def reset(self, stream: str) -> None:
        raise AssertionError(stream)

    def frame(self, stream: str, end: int, more: bool) -> None:
        pass

    def data(self, stream: str, offset: int, data: bytes) -> None:
        assert offset == self.sizes.get(stream, 0)
        self.sizes[stream] = offset + len(data)

    def alive(self, alive: bool) -> None:
        pass

    def drained(self, streams: int) -> None:
        self.done.set()


async def test_a_node_with_64_open_files_follows_128_logs(lab: Lab, client: SshClient) -> None:
    (lab.folder / ".bashrc").write_text("ulimit -n 64\n")
    names = [f"ranks/x_1/attempt_0/{rank}/{stream}.log" for rank in range(64) for stream in ("stdout", "stderr")]
    for name in names:
        path = lab.folder / "state/rankdeck/runs/many/n0" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 300_000)
    lab.folder.joinpath("state/rankdeck").chmod(0o700)
    with lab.sshd(SetEnv=f"HOME={lab.folder} XDG_STATE_HOME={lab.folder}/state") as sshd:
        transport = await client.connect("127.0.0.1", port=sshd.port)
        conversation = await converse(transport, "gpu01")
        sink = Collected()
        await conversation.watch("many", 0, dict.fromkeys(names, (0, 0)), sink, once=True)
        ended: set[asyncio.Future[Any]] = {asyncio.ensure_future(sink.done.wait()), conversation.ended}
        await asyncio.wait(ended, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        assert not conversation.ended.done(), conversation.ended.result()
        assert sink.sizes == dict.fromkeys(names, 300_000)
        await conversation.close()


async def test_a_login_that_takes_longer_than_the_server_waits_is_told(lab: Lab) -> None:
    client = SshClient(config=lab.config, timeouts=Timeouts(connect=5, login=20, pause=0.05))
    with lab.sshd(
        LoginGraceTime=1, AuthorizedKeysCommand="/usr/bin/sleep 5", AuthorizedKeysCommandUser=lab.user
    ) as sshd:
        (sshd.folder / "authorized_keys").write_text("")
        began = time.monotonic()
        with pytest.raises(MachineError) as failed:
            await client.connect("127.0.0.1", port=sshd.port)
        assert time.monotonic() - began < 20
        assert "LoginGraceTime" in failed.value.remedy
        assert sshd.count("Connection from") <= 4
    await client.close()


async def test_a_full_server_that_stays_full_is_told_after_four_tries(lab: Lab) -> None:
    client = SshClient(config=lab.config, timeouts=Timeouts(connect=2, login=10, pause=0.05))
    with lab.sshd(MaxStartups="1:100:1") as sshd:
        _, writer = await asyncio.open_connection("127.0.0.1", sshd.port)
        with pytest.raises(Unreachable, match="closes the connection before the login") as failed:
            await client.connect("127.0.0.1", port=sshd.port)
        assert "MaxStartups" in failed.value.remedy
        writer.close()
        transport = await client.connect("127.0.0.1", port=sshd.port)
        await transport.close()
    await client.close()


@pytest.mark.parametrize("code", ["EDQUOT", "ENOSPC"])
def test_a_quota_is_told_like_a_full_disk(code: str) -> None:
    """No file system with quotas can be mounted everywhere; what a node answers then is the same line."""
    refused = refusal("gpu01", code, "/home/ml/.local/state/rankdeck: no room")
    assert "free space there, or keep the logs elsewhere: --set state_dir=" in refused.remedy
    assert refused.code == code
