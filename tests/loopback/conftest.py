"""Fixtures of the loopback tier: real sshd on 127.0.0.x, no root needed.

lab      function   a client's key, known_hosts and ssh_config, and `lab.sshd(...)` for servers
sshd     function   one server, known to the client
client   function   an SshClient that reads the lab's ssh_config, with timeouts of about a second
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.loopback.sshd import Lab, Sshd, obstacle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from engine.ssh.client import SshClient


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    if reason := obstacle():
        pytest.skip(f"loopback tier: {reason}")
    return Lab(tmp_path)


@pytest.fixture
def sshd(lab: Lab) -> Iterator[Sshd]:
    with lab.sshd() as server:
        yield server


@pytest.fixture
async def client(lab: Lab) -> AsyncIterator[SshClient]:
    from engine.ssh.client import SshClient, Timeouts

    client = SshClient(config=lab.config, timeouts=Timeouts(connect=1.0, login=10.0, pause=0.2))
    yield client
    await client.close()
