"""Host keys: known, unknown, changed, revoked, certified; nothing is stored without a yes."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from engine.errors import HostKeyChanged, HostKeyUnknown, RequestError
from tests.loopback.programs import output
from tests.loopback.sshd import keygen, public

if TYPE_CHECKING:
    from pathlib import Path

    from engine.ssh.client import SshClient
    from tests.loopback.sshd import Lab


def fingerprint(key: Path) -> str:
    return subprocess.run(
        ["ssh-keygen", "-l", "-f", f"{key}.pub"], capture_output=True, text=True, check=True
    ).stdout.split()[1]


async def test_an_unknown_key_comes_with_what_a_human_needs_and_nothing_is_stored(lab: Lab, client: SshClient) -> None:
    with lab.sshd(known=False) as sshd:
        with pytest.raises(HostKeyUnknown) as unknown:
            await client.connect("127.0.0.1", port=sshd.port)
        found = unknown.value
        assert (found.node, found.host, found.port, found.key_type) == (
            "127.0.0.1", "127.0.0.1", sshd.port, "ssh-ed25519",
        )  # fmt: skip
        assert found.fingerprint == fingerprint(sshd.host_key)
        assert found.entry == f"{sshd.name} {public(sshd.host_key)}"
        assert lab.known_hosts.read_text() == ""
        assert sshd.count("Connection from") == 1


async def test_a_remembered_key_is_known_to_us_and_to_ssh(lab: Lab, client: SshClient) -> None:
    lab.block("Host *", "HashKnownHosts yes")
    with lab.sshd(known=False) as sshd:
        with pytest.raises(HostKeyUnknown) as unknown:
            await client.connect("127.0.0.1", port=sshd.port)
        assert unknown.value.entry.startswith("|1|")
        await client.remember(unknown.value)
        transport = await client.connect("127.0.0.1", port=sshd.port)
        assert await output(transport, "echo in") == b"in\n"
        command = ["ssh", "-F", str(lab.config), "-oBatchMode=yes", "-p", str(sshd.port), "127.0.0.1", "echo in"]
        assert subprocess.run(command, capture_output=True, check=True).stdout == b"in\n"


async def test_a_changed_key_is_refused_and_the_line_is_named(lab: Lab, client: SshClient) -> None:
    with lab.sshd(known=False) as sshd:
        lab.known_hosts.write_text("# a comment\n")
        lab.know(sshd, key=keygen(lab.folder / "old_host_key"))
        with pytest.raises(HostKeyChanged, match="has changed") as changed:
            await client.connect("127.0.0.1", port=sshd.port)
        assert f"{lab.known_hosts}:2 holds ssh-ed25519" in changed.value.text
        assert changed.value.remedy.endswith(f"ssh-keygen -R '{sshd.name}' -f {lab.known_hosts}")
        assert sshd.count("Connection from") == 1


async def test_a_key_of_a_type_that_is_not_on_file_counts_as_changed(lab: Lab, client: SshClient) -> None:
    with lab.sshd(known=False) as sshd:
        lab.know(sshd, key=keygen(lab.folder / "old_host_key", kind="ecdsa"))
        with pytest.raises(HostKeyChanged, match="holds ecdsa-sha2-nistp256"):
            await client.connect("127.0.0.1", port=sshd.port)


@pytest.mark.parametrize("hashed", [False, True])
async def test_the_server_is_asked_for_the_type_of_key_that_is_on_file(
    lab: Lab, client: SshClient, hashed: bool
) -> None:
    ecdsa, ed25519 = keygen(lab.folder / "ecdsa", kind="ecdsa"), keygen(lab.folder / "ed25519")
    with lab.sshd(known=False, host_key=ecdsa, **{"HostKey ": str(ed25519)}) as sshd:
        lab.know(sshd, "other-host", ed25519)
        lab.know(sshd, key=ecdsa)
        if hashed:
            subprocess.run(["ssh-keygen", "-H", "-f", str(lab.known_hosts)], capture_output=True, check=True)
        transport = await client.connect("127.0.0.1", port=sshd.port)
        assert await output(transport, "echo in") == b"in\n"


async def test_a_revoked_key_is_refused(lab: Lab, client: SshClient) -> None:
    with lab.sshd() as sshd:
        with lab.known_hosts.open("a") as file:
            file.write(f"@revoked * {public(sshd.host_key)}\n")
        with pytest.raises(HostKeyChanged, match="revoked"):
            await client.connect("127.0.0.1", port=sshd.port)


async def test_a_host_certificate_of_a_known_authority_is_enough(lab: Lab, client: SshClient) -> None:
    authority, host_key = keygen(lab.folder / "host_ca"), keygen(lab.folder / "host_key")
    command = ["ssh-keygen", "-q", "-s", str(authority), "-h", "-I", "node", "-n", "127.0.0.1", f"{host_key}.pub"]
    subprocess.run(command, check=True)
    with lab.sshd(known=False, host_key=host_key, HostCertificate=f"{host_key}-cert.pub") as sshd:
        lab.known_hosts.write_text(f"@cert-authority [127.0.0.*]:{sshd.port} {public(authority)}\n")
        transport = await client.connect("127.0.0.1", port=sshd.port)
        assert await output(transport, "echo in") == b"in\n"


async def test_a_host_certificate_for_another_name_is_refused(lab: Lab, client: SshClient) -> None:
    authority, host_key = keygen(lab.folder / "host_ca"), keygen(lab.folder / "host_key")
    command = ["ssh-keygen", "-q", "-s", str(authority), "-h", "-I", "node", "-n", "elsewhere", f"{host_key}.pub"]
    subprocess.run(command, check=True)
    with lab.sshd(known=False, host_key=host_key, HostCertificate=f"{host_key}-cert.pub") as sshd:
        lab.known_hosts.write_text(f"@cert-authority * {public(authority)}\n")
        with pytest.raises(HostKeyChanged, match="is not accepted"):
            await client.connect("127.0.0.1", port=sshd.port)


async def test_a_host_key_alias_is_looked_up_without_the_port(lab: Lab, client: SshClient) -> None:
    with lab.sshd(known=False) as sshd:
        lab.alias("gpu01", sshd, "HostKeyAlias cluster-node")
        lab.know(sshd, "cluster-node")
        transport = await client.connect("gpu01")
        assert await output(transport, "echo in") == b"in\n"


async def test_a_key_under_the_plain_name_is_good_for_another_port(lab: Lab, client: SshClient) -> None:
    with lab.sshd(known=False) as sshd:
        lab.know(sshd, "127.0.0.1")
        transport = await client.connect("127.0.0.1", port=sshd.port)
        assert await output(transport, "echo in") == b"in\n"


@pytest.mark.parametrize("file", ["none", "/dev/null"])
@pytest.mark.parametrize("strict", ["no", "accept-new", "ask"])
async def test_no_setting_switches_the_check_off(lab: Lab, client: SshClient, file: str, strict: str) -> None:
    lab.block("Host gpu01", "HostName 127.0.0.1", f"UserKnownHostsFile {file}", f"StrictHostKeyChecking {strict}")
    with lab.sshd(known=False) as sshd:
        with pytest.raises(HostKeyUnknown) as unknown:
            await client.connect("gpu01", port=sshd.port)
        with pytest.raises(RequestError, match="no host key be stored"):
            await client.remember(unknown.value)


async def test_strict_checking_leaves_nothing_to_accept(lab: Lab, client: SshClient) -> None:
    lab.block("Host *", "StrictHostKeyChecking yes")
    with lab.sshd(known=False) as sshd, pytest.raises(HostKeyUnknown) as unknown:
        await client.connect("127.0.0.1", port=sshd.port)
    assert unknown.value.entry == ""
    assert "StrictHostKeyChecking" in unknown.value.remedy
