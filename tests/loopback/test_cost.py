"""What a connection costs this machine, and how fast bytes arrive. The figures are printed; the limits are loose."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import asyncssh

from tests.loopback.sshd import public

if TYPE_CHECKING:
    from engine.ssh.client import SshClient
    from tests.loopback.sshd import Lab, Sshd

NODES = 200
MEBIBYTES = 256


async def asyncssh_alone(lab: Lab, sshd: Sshd) -> float:
    """Seconds of CPU for one connection without anything of ours, everything parsed beforehand."""
    key, known = asyncssh.read_private_key(str(lab.key)), asyncssh.import_known_hosts(f"* {public(sshd.host_key)}\n")
    slots = asyncio.Semaphore(8)

    async def one() -> asyncssh.SSHClientConnection:
        async with slots:
            return await asyncssh.connect(
                sshd.address, sshd.port, config=None, client_keys=[key], agent_path=None, known_hosts=known
            )

    cpu = time.process_time()
    connections = await asyncio.gather(*(one() for _ in range(NODES // 4)))
    cpu = time.process_time() - cpu
    for connection in connections:
        connection.abort()
    return cpu / (NODES // 4)


async def test_two_hundred_connections_cost_little(lab: Lab, client: SshClient) -> None:
    with lab.sshd(LogLevel="INFO", MaxStartups=200) as sshd:
        lab.block("Host gpu*", "HostName 127.0.0.1", f"Port {sshd.port}")
        with lab.known_hosts.open("a") as file:
            file.writelines(f"node{n} {public(sshd.host_key)}\n" for n in range(1000))
        cpu, began = time.process_time(), time.monotonic()
        await asyncio.gather(*(client.connect(f"gpu{n}") for n in range(NODES)))
        cpu, wall = time.process_time() - cpu, time.monotonic() - began
        alone = await asyncssh_alone(lab, sshd)
    each = cpu / NODES
    print(
        f"\n{NODES} connections: {1000 * each:.2f} ms of CPU each, asyncssh alone {1000 * alone:.2f} ms;"
        f" {wall:.2f} s in all"
    )
    assert client.config.asked == 1
    assert each < max(0.010, 2 * alone)  # a machine that is busy with other things makes everything dear


async def test_bytes_arrive_nearly_as_fast_as_asyncssh_alone_can(lab: Lab, sshd: Sshd, client: SshClient) -> None:
    command = f"head -c {MEBIBYTES}M /dev/zero"
    transport = await client.connect("127.0.0.1", port=sshd.port)

    async def ours() -> float:
        link = await transport.open(command)
        began, size = time.process_time(), 0
        while data := await link.receive():
            size += len(data)
        assert size == MEBIBYTES << 20
        return time.process_time() - began

    async def alone() -> float:
        began, size = time.process_time(), 0
        async with transport.connection.create_process(command, encoding=None) as process:
            while data := await process.stdout.read(65536):
                size += len(data)
        assert size == MEBIBYTES << 20
        return time.process_time() - began

    assert isinstance(transport.connection, asyncssh.SSHClientConnection)
    pairs = [(await ours(), await alone()) for _ in range(3)]
    best = [min(column) for column in zip(*pairs, strict=True)]
    print(f"\nCPU for {MEBIBYTES} MiB: {best[0]:.2f} s, asyncssh alone {best[1]:.2f} s")
    assert best[0] < best[1] / 0.8
