"""The ssh configuration: names that are safe, answers of `ssh -G`, and hosts that share one."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import fields
from pathlib import Path

import pytest

from engine.errors import MachineError, RequestError
from engine.ssh.config import SshConfig, expand_command, parse_answer, valid_host, valid_user
from engine.ssh.grammar import home

needs_ssh = pytest.mark.skipif(shutil.which("ssh") is None, reason="needs ssh")

GOOD_HOSTS = ["gpu01", "gpu-01.lan", "10.0.0.1", "::1", "fe80::1%eth0", "a_b", "bücher.example"]
BAD_NAMES = ["", "-oProxyCommand=x", "a b", "a\tb", "a\nb", "a\0b", "$(x)", "`x`", "a;b", "a'b", 'a"b', "a|b", "a&b",
             "{a}", "a>b", "a*", "a\x1b", "a" * 256, "a\u202eb"]  # fmt: skip


@pytest.mark.parametrize("name", GOOD_HOSTS)
def test_host_names_and_addresses_are_valid(name: str) -> None:
    assert valid_host(name)


@pytest.mark.parametrize("name", [*BAD_NAMES, "a@b", "a\\b", "a/b", "a,b", "ssh://a"])
def test_names_that_could_become_shell_or_options_are_no_hosts(name: str) -> None:
    assert not valid_host(name)


@pytest.mark.parametrize("name", ["root", "m.l", "a-b", "DOMAIN\\user", "user1"])
def test_user_names_are_valid(name: str) -> None:
    assert valid_user(name)


@pytest.mark.parametrize("name", [*BAD_NAMES, "a@b", "a\\"])
def test_names_that_could_become_shell_or_options_are_no_users(name: str) -> None:
    assert not valid_user(name)


CONFIGS = {
    "empty": "",
    "one block": "Host gpu*\n  User ml\n  Port 2222\n  IdentityFile ~/.ssh/lab\n",
    "a block for each host": "".join(f"Host gpu{n}\n  HostName 10.0.0.{n}\n  Port 22{n:02}\n" for n in range(20)),
    "first value wins": (
        "Host gpu1\n  User one\nHost gpu*\n  User many\n  HostName %h.lan\nHost *\n  User all\n  Port 9\n"
    ),
    "percent sign": "Host gpu*\n  HostName %%x%h\n",
    "negated": "Host * !gpu1* !login\n  ProxyJump login\nHost gpu?\n  ConnectTimeout 7\n",
    "equals and quotes": 'Host="gpu1" gpu2\n  User = "ml"\n  IdentityFile="/tmp/with space"\nHOST gpu3\n  POrT=3\n',
    "comments": "# Host gpu1\nHost gpu2 # gpu1\n  User ml # not me\n",
    "jump": "Host gpu*\n  ProxyJump me@login:2200\nHost login\n  HostName 10.1.1.1\n",
    "proxy command": "Host gpu*\n  ProxyCommand nc -X 5 %h %p\nHost *\n  UserKnownHostsFile none\n",
    "tokens": "Host gpu*\n  IdentityFile ~/keys/%h\n  UserKnownHostsFile ~/kh_%k\n",
    "match": "Match host gpu1*\n  User ml\nMatch user root\n  Port 7\n",
    "match all": "Host gpu1\n  User one\nMatch all\n  ConnectTimeout 3\n  HashKnownHosts yes\n",
    "match final": (
        "Match final all\n  ConnectTimeout 5\nHost *.x\n  HashKnownHosts yes\n  Port 99\nHost g*\n  HostName %h.x\n"
    ),
    "match final, own host names": (
        "Match final\n  ConnectTimeout 5\nHost gpu1\n  HostName GPU2\nHost gpu2\n  Port 5\n  HostName x\n"
    ),
    "canonical": "CanonicalizeHostname yes\nCanonicalDomains invalid\nHost gpu*\n  User ml\n",
    "case": "Host GPU1 Gpu2\n  Port 11\nHost gpu1\n  HostName MIXED.Case\n",
    "include": "Include part_*\nHost *\n  User last\n",
    "include in a block": "Host gpu1*\n  Include part_a\nHost *\n  User last\n",
    "everything": (
        "Host gpu1*\n  IdentitiesOnly yes\n  IdentityAgent none\n  HostKeyAlias lab\n  BindAddress 127.0.0.1\n"
        "  StrictHostKeyChecking yes\n  AddressFamily inet\n  PubkeyAuthentication no\n  CertificateFile ~/c.pub\n"
        "  GlobalKnownHostsFile /etc/a /etc/b\n  HashKnownHosts yes\n"
    ),
}  # fmt: skip
HOSTS = ["gpu1", "gpu2", "gpu3", "gpu10", "gpu11", "GPU1", "login", "other.x", "10.0.0.1"]


@needs_ssh
@pytest.mark.parametrize("name", CONFIGS)
async def test_a_shared_answer_is_the_answer_that_ssh_gives_each_host(name: str, tmp_path: Path) -> None:
    text = CONFIGS[name]
    for part in ("part_a", "part_b"):
        (tmp_path / part).write_text(f"Host gpu1 login\n  Port 1\n  HostName {part}.%h\n  ConnectTimeout 4\n")
        text = text.replace("part_*", f"{tmp_path}/part_*").replace("Include part_a", f"Include {tmp_path}/part_a")
    (tmp_path / "config").write_text(text)
    shared = SshConfig(tmp_path / "config")
    for host in HOSTS:
        found = await shared.resolve(host)
        alone = parse_answer(shared._run(host, "", None), host)
        assert {f.name: getattr(found, f.name) for f in fields(found)} == {
            f.name: getattr(alone, f.name) for f in fields(alone)
        }, host


@needs_ssh
@pytest.mark.parametrize(
    ("name", "most"), [("empty", 1), ("one block", 1), ("a block for each host", 1), ("match final", 1), ("match", 100)]
)
async def test_hosts_that_the_configuration_cannot_tell_apart_share_one_answer(
    name: str, most: int, tmp_path: Path
) -> None:
    (tmp_path / "config").write_text(CONFIGS[name])
    config = SshConfig(tmp_path / "config")
    await asyncio.gather(*(config.resolve(f"gpu{n}") for n in range(20)))
    assert config.asked <= most
    assert most == 1 or config.asked == 20


@needs_ssh
async def test_an_explicit_user_and_port_win(tmp_path: Path) -> None:
    for text in ("Host *\n  User ml\n  Port 5\n", "Match user x\n  Port 6\nHost *\n  User ml\n"):
        (tmp_path / "config").write_text(text)
        found = await SshConfig(tmp_path / "config").resolve("gpu01", "me", 7)
        assert (found.user, found.port) == ("me", 7)


@needs_ssh
async def test_the_environment_names_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text("User from-the-environment\n")
    monkeypatch.setenv("RANKDECK_SSH_CONFIG", str(tmp_path / "config"))
    assert (await SshConfig().resolve("gpu01")).user == "from-the-environment"


@needs_ssh
def test_hosts_that_the_configuration_names_can_be_offered(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("Host login\n  Port 7\nHost gpu02 gpu01 *.lan !gpu09\nHost *\n  User ml\nHost login\n  User x\n")
    assert SshConfig(config).named_hosts() == ["login", "gpu01", "gpu02"]
    assert SshConfig(tmp_path / "none").named_hosts() == []


async def test_a_mistake_in_the_file_is_quoted_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Host *\n  Prot 22\n")
    with pytest.raises(RequestError, match=r"line 2: Bad configuration option: prot") as refused:
        await SshConfig(tmp_path / "config").resolve("gpu01")
    assert refused.value.remedy.startswith("make this command succeed: ssh -T -G")


@needs_ssh
async def test_a_host_name_of_the_configuration_is_checked_too(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("Host gpu01\n  HostName $(touch x)\n")
    with pytest.raises((RequestError, MachineError)):
        await SshConfig(tmp_path / "config").resolve("gpu01")


async def test_without_ssh_the_remedy_is_to_install_it() -> None:
    with pytest.raises(MachineError, match="no `ssh`") as missing:
        await SshConfig(ssh="no-such-ssh").resolve("gpu01")
    assert "OpenSSH" in missing.value.remedy


@pytest.mark.parametrize("port", [0, -1, 65536])
async def test_a_port_is_a_number_from_1_to_65535(port: int) -> None:
    with pytest.raises(RequestError, match="is not a port"):
        await SshConfig().resolve("gpu01", "", port)


def test_an_answer_is_read_with_paths_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/run/agent")
    found = parse_answer(
        "hostname gpu01.lan\nport 2222\nuser ml\nidentityfile ~/.ssh/id_%r\nidentityfile /k/%h\nconnecttimeout none\n"
        "userknownhostsfile none\nproxycommand nc %h %p\n",
        "gpu01",
    )
    assert found.identity_files == (home() / ".ssh/id_ml", Path("/k/gpu01.lan"))
    assert found.user_known_hosts == ()
    assert found.connect_timeout is None
    assert found.identity_agent == "/run/agent"
    assert expand_command("nc %h %p %r %n %%", found) == "nc gpu01.lan 2222 ml gpu01 %"
