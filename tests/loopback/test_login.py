"""Logging in: what works, what is refused, and in which words."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from engine.errors import AuthenticationFailed, ConnectionLost, MachineError, RequestError, Unreachable
from engine.ssh.client import SshClient, Timeouts
from tests.loopback.programs import output
from tests.loopback.sshd import keygen, public

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.loopback.sshd import Lab, Sshd

RELAY = """
import socket, sys, threading
print("noise", file=sys.stderr, flush=True)
there = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def copy(take, give):
    while data := take(65536):
        give(data)
def here(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()
threading.Thread(target=copy, args=(sys.stdin.buffer.read1, there.sendall), daemon=True).start()
copy(there.recv, here)
"""
QUICK = Timeouts(connect=1.0, login=10.0, pause=0.2)


class Answering:
    """An Asker that knows one passphrase and counts how often it is asked."""

    def __init__(self, passphrase: str | None) -> None:
        self.passphrase_known = passphrase
        self.asked: list[str] = []

    async def passphrase(self, path: str) -> str | None:
        self.asked.append(path)
        await asyncio.sleep(0)
        return self.passphrase_known


async def test_an_alias_takes_host_port_and_user_from_the_ssh_config(lab: Lab, client: SshClient) -> None:
    with lab.sshd("127.0.0.2") as sshd:
        lab.alias("gpu01", sshd, f"User {lab.user}")
        transport = await client.connect("gpu01")
        assert await output(transport, "echo $SSH_CONNECTION") != b""
        assert (transport.name, transport.peer) == ("gpu01", "127.0.0.2")
        assert repr(transport) == f"SshTransport({lab.user}@127.0.0.2 port {sshd.port})"


async def test_an_explicit_user_and_port_win(lab: Lab, sshd: Sshd, client: SshClient) -> None:
    lab.block("Host 127.*", "User nobody-here", "Port 1")
    transport = await client.connect("127.0.0.1", lab.user, sshd.port)
    assert await output(transport, "echo in") == b"in\n"


async def test_a_wrong_key_is_tried_once_and_the_message_says_what_was_tried(
    lab: Lab, sshd: Sshd, client: SshClient
) -> None:
    (sshd.folder / "authorized_keys").write_text("")
    with pytest.raises(AuthenticationFailed) as refused:
        await client.connect("127.0.0.1", port=sshd.port)
    assert str(lab.key) in refused.value.text
    assert "the server takes publickey" in refused.value.text
    assert "ssh-copy-id" in refused.value.remedy
    assert sshd.count("Connection from") == 1


async def test_without_any_key_the_login_is_refused(lab: Lab, sshd: Sshd, client: SshClient) -> None:
    lab.block("Host gpu01", f"HostName 127.0.0.1\n  Port {sshd.port}", "PubkeyAuthentication no")
    with pytest.raises(AuthenticationFailed, match="tried no key"):
        await client.connect("gpu01")


async def test_a_key_that_others_can_read_is_not_used(lab: Lab, sshd: Sshd, client: SshClient) -> None:
    lab.key.chmod(0o644)
    with pytest.raises(AuthenticationFailed, match="mode 0644 lets others read it") as refused:
        await client.connect("127.0.0.1", port=sshd.port)
    assert refused.value.remedy == f"chmod 600 {lab.key}"


async def test_a_passphrase_is_asked_for_once_for_three_hosts(lab: Lab) -> None:
    lab.key = keygen(lab.folder / "locked", passphrase="open sesame")
    lab.block("# the key has a passphrase")
    ask = Answering("open sesame")
    client = SshClient(ask=ask, config=lab.config, timeouts=QUICK)
    with lab.sshd("127.0.0.2") as one, lab.sshd("127.0.0.3") as two, lab.sshd("127.0.0.4") as three:
        servers = (one, two, three)
        transports = await asyncio.gather(*(client.connect(s.address, port=s.port) for s in servers))
        assert [await output(t, "echo in") for t in transports] == [b"in\n"] * 3
        assert ask.asked == [str(lab.key)]
        assert [s.count("Connection from") for s in servers] == [1, 1, 1]
    await client.close()


async def test_a_passphrase_is_asked_for_only_when_no_other_key_fits(lab: Lab, sshd: Sshd) -> None:
    locked = keygen(lab.folder / "locked", passphrase="open sesame")
    lab.block("Host *", f"IdentityFile {locked}")
    ask = Answering("open sesame")
    client = SshClient(ask=ask, config=lab.config, timeouts=QUICK)
    await client.connect("127.0.0.1", port=sshd.port)
    assert ask.asked == []
    (sshd.folder / "authorized_keys").write_text(public(locked) + "\n")
    await client.connect("127.0.0.1", port=sshd.port)
    assert ask.asked == [str(locked)]
    await client.close()


async def test_a_declined_passphrase_is_not_asked_for_again(lab: Lab, sshd: Sshd) -> None:
    lab.key = keygen(lab.folder / "locked", passphrase="open sesame")
    lab.block("# the key has a passphrase")
    ask = Answering(None)
    client = SshClient(ask=ask, config=lab.config, timeouts=QUICK)
    for _ in range(2):
        with pytest.raises(AuthenticationFailed, match="no passphrase given") as refused:
            await client.connect("127.0.0.1", port=sshd.port)
        assert refused.value.remedy == f"ssh-add {lab.key}"
    assert len(ask.asked) == 1
    await client.close()


async def test_a_user_certificate_beside_the_key_is_offered(lab: Lab, client: SshClient) -> None:
    authority = keygen(lab.folder / "user_ca")
    subprocess.run(["ssh-keygen", "-q", "-s", str(authority), "-I", "me", "-n", lab.user, f"{lab.key}.pub"], check=True)
    with lab.sshd(TrustedUserCAKeys=f"{authority}.pub") as sshd:
        (sshd.folder / "authorized_keys").write_text("")
        transport = await client.connect("127.0.0.1", port=sshd.port)
        assert await output(transport, "echo in") == b"in\n"


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[str]:
    socket = f"{os.environ.get('XDG_RUNTIME_DIR') or '/tmp'}/agent-{os.getpid()}"  # short: a socket path has 107 bytes
    process = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    while not os.path.exists(socket):  # noqa: PTH110
        pass
    yield socket
    process.terminate()
    process.wait()


async def test_keys_of_the_agent_are_used(lab: Lab, sshd: Sshd, client: SshClient, agent: str) -> None:
    subprocess.run(["ssh-add", "-q", str(lab.key)], env={**os.environ, "SSH_AUTH_SOCK": agent}, check=True)
    lab.key.unlink()
    lab.block("Host *", f"IdentityAgent {agent}", "IdentitiesOnly yes")
    first, second = await asyncio.gather(*(client.connect("127.0.0.1", port=sshd.port) for _ in range(2)))
    assert await output(first, "echo in") == await output(second, "echo in") == b"in\n"


async def test_eight_nodes_behind_a_jump_host_share_one_connection_to_it(lab: Lab, client: SshClient) -> None:
    with lab.sshd("127.0.0.9") as bastion, lab.sshd("127.0.0.2") as node:
        lab.alias("login", bastion)
        lab.block("Host gpu*", "HostName 127.0.0.2", f"Port {node.port}", "ProxyJump login")
        transports = await asyncio.gather(*(client.connect(f"gpu{n}") for n in range(8)))
        assert [await output(t, "echo in") for t in transports] == [b"in\n"] * 8
        assert node.count("Connection from") == 8
        assert bastion.count("Connection from") == 1
        assert {t.peer for t in transports} == {"127.0.0.2"}


async def test_a_jump_host_whose_connection_broke_is_connected_to_again(lab: Lab, client: SshClient) -> None:
    with lab.sshd("127.0.0.9") as bastion, lab.sshd("127.0.0.2") as node:
        lab.alias("login", bastion)
        lab.block("Host gpu*", "HostName 127.0.0.2", f"Port {node.port}", "ProxyJump login")
        first = await client.connect("gpu1")
        bastion.kill_sessions()
        with pytest.raises(ConnectionLost):
            await output(first, "sleep 5")
        assert await output(await client.connect("gpu2"), "echo in") == b"in\n"
        assert bastion.count("Connection from") == 2


async def test_a_chain_of_jump_hosts_is_followed(lab: Lab, client: SshClient) -> None:
    with lab.sshd("127.0.0.8") as outer, lab.sshd("127.0.0.9") as inner, lab.sshd("127.0.0.2") as node:
        lab.alias("gpu01", node, f"ProxyJump 127.0.0.8:{outer.port},127.0.0.9:{inner.port}")
        transport = await client.connect("gpu01")
        assert await output(transport, "echo in") == b"in\n"
        assert (outer.count("Connection from"), inner.count("Connection from")) == (1, 1)


async def test_a_refused_jump_host_is_named(lab: Lab, sshd: Sshd, client: SshClient) -> None:
    lab.alias("gpu01", sshd, "ProxyJump 127.0.0.9:1")
    with pytest.raises(Unreachable, match=r"its jump host 127.0.0.9: .* port 1: connection refused") as refused:
        await client.connect("gpu01")
    assert refused.value.node == "gpu01"


async def test_a_node_that_the_jump_host_cannot_reach_is_named(lab: Lab, sshd: Sshd, client: SshClient) -> None:
    lab.alias("login", sshd)
    lab.block("Host gpu01", "HostName 127.0.0.2", "Port 1", "ProxyJump login")
    with pytest.raises(Unreachable, match=r"127.0.0.2 port 1 cannot be reached from the jump host login"):
        await client.connect("gpu01")


async def test_a_jump_host_behind_itself_is_a_mistake_of_the_configuration(lab: Lab, client: SshClient) -> None:
    lab.block("Host login gpu01", "ProxyJump login")
    with pytest.raises(RequestError, match="reached through itself"):
        await client.connect("gpu01")


async def test_a_proxy_command_is_run_and_its_noise_on_stderr_does_no_harm(
    lab: Lab, sshd: Sshd, client: SshClient
) -> None:
    relay = lab.folder / "relay.py"
    relay.write_text(RELAY)
    lab.alias("gpu01", sshd, f"ProxyCommand {sys.executable} {relay} %h %p")
    transport = await client.connect("gpu01")
    assert await output(transport, "echo in") == b"in\n"


async def test_a_proxy_command_that_fails_is_quoted(lab: Lab, sshd: Sshd, client: SshClient) -> None:
    lab.alias("gpu01", sshd, "ProxyCommand sh -c 'echo no such gateway >&2; exit 1'")
    with pytest.raises(Unreachable, match=r"the ProxyCommand for .* ended: no such gateway"):
        await client.connect("gpu01")


@pytest.mark.parametrize(
    "host", ["$(touch canary)", "`touch canary`", "x;touch canary", "-oProxyCommand=touch canary", "a\nb", "a\0b", ""]
)
async def test_a_host_name_never_becomes_shell(
    lab: Lab, client: SshClient, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(lab.folder)
    lab.block("Host *", "ProxyCommand sh -c 'echo %h %n %p %r'")
    with pytest.raises(RequestError):
        await client.connect(host)
    assert not (lab.folder / "canary").exists()


async def test_a_user_name_never_becomes_shell(lab: Lab, client: SshClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(lab.folder)
    lab.block("Host *", "ProxyCommand sh -c 'echo %r'")
    with pytest.raises(RequestError):
        await client.connect("gpu01", "$(touch canary)")
    assert not (lab.folder / "canary").exists()


async def test_every_login_succeeds_at_an_sshd_that_takes_two_at_a_time(lab: Lab, client: SshClient) -> None:
    with lab.sshd(MaxStartups="2:100:2") as sshd:
        found = await asyncio.gather(
            *(client.connect("127.0.0.1", port=sshd.port) for _ in range(24)), return_exceptions=True
        )
        assert [e for e in found if isinstance(e, BaseException)] == []


async def test_errors_name_the_node(lab: Lab, client: SshClient) -> None:
    with pytest.raises(MachineError) as refused:
        await client.connect("127.0.0.1", port=1)
    assert refused.value.node == "127.0.0.1"
