"""known_hosts: what is on file, what a presented key means, what is stored."""

from __future__ import annotations

import base64
import shutil
import stat
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from engine.ssh.known_hosts import HostName, KnownHosts, fingerprint, new_entry, parse, remember

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO = b"key one", b"key two"
ED, RSA = "ssh-ed25519", "ssh-rsa"
GPU = HostName("gpu01")


def line(names: str, key: bytes = ONE, kind: str = ED, marker: str = "") -> str:
    return f"{marker} {names} {kind} {base64.b64encode(key).decode()}".strip()


def known(*lines: str) -> KnownHosts:
    return KnownHosts(parse("\n".join(lines), "kh"))


@pytest.mark.parametrize(
    ("names", "host"),
    [
        ("gpu01", GPU),
        ("gpu01,10.0.0.1", GPU),
        ("GPU01", HostName("Gpu01")),
        ("gpu*", GPU),
        ("gpu0?", GPU),
        ("[gpu01]:2222", HostName("gpu01", 2222)),
        ("gpu01", HostName("gpu01", 2222)),
        ("cluster", HostName("gpu01", 2222, "cluster")),
        ("*,!login*", GPU),
    ],
)
def test_a_key_on_file_is_known(names: str, host: HostName) -> None:
    assert known(line(names)).judge(host, ED, ONE).verdict == "known"


@pytest.mark.parametrize(
    ("names", "host"),
    [
        ("gpu02", GPU),
        ("gpu01.lan", GPU),
        ("gpu*,!gpu01", GPU),
        ("[gpu01]:2222", GPU),
        ("[gpu01]:2223", HostName("gpu01", 2222)),
        ("gpu01", HostName("gpu01", 22, "cluster")),
        ("|1|damaged", GPU),
    ],
)
def test_another_name_says_nothing_about_a_host(names: str, host: HostName) -> None:
    assert known(line(names)).judge(host, ED, ONE).verdict == "unknown"


def test_a_hashed_entry_is_found() -> None:
    entry = new_entry(GPU, ED, ONE, hashed=True)
    assert "gpu01" not in entry
    assert known(entry).judge(GPU, ED, ONE).verdict == "known"
    assert known(entry).judge(HostName("gpu02"), ED, ONE).verdict == "unknown"
    assert known(entry).judge(GPU, ED, TWO).verdict == "changed"


def test_a_changed_key_names_the_line_that_says_otherwise() -> None:
    judgement = known("# comment", line("other"), line("gpu01", RSA.encode(), RSA), line("gpu01")).judge(GPU, ED, TWO)
    assert judgement.verdict == "changed"
    assert judgement.entry is not None
    assert judgement.entry.where == "kh:4"


def test_another_type_of_key_counts_as_changed() -> None:
    assert known(line("gpu01", ONE, RSA)).judge(GPU, ED, TWO).verdict == "changed"


def test_another_key_under_the_plain_name_says_nothing_about_another_port() -> None:
    assert known(line("gpu01")).judge(HostName("gpu01", 2222), ED, TWO).verdict == "unknown"


def test_a_revoked_key_is_refused_even_where_it_is_on_file() -> None:
    judgement = known(line("gpu01"), line("*", marker="@revoked")).judge(GPU, ED, ONE)
    assert judgement.verdict == "revoked"
    assert judgement.entry is not None
    assert judgement.entry.where == "kh:2"


def test_an_authority_is_no_host_key() -> None:
    hosts = known(line("gpu*", marker="@cert-authority"))
    assert [e.key for e in hosts.marked(GPU, "cert-authority")] == [ONE]
    assert hosts.marked(HostName("login"), "cert-authority") == []
    assert hosts.judge(GPU, ED, ONE).verdict == "unknown"


def test_the_types_on_file_come_first() -> None:
    assert known(line("gpu01", ONE, RSA), line("login")).key_types(GPU) == [RSA]
    hashed = known(new_entry(GPU, RSA, ONE, hashed=True), new_entry(HostName("login"), ED, TWO, hashed=True))
    assert set(hashed.key_types(GPU)) == {RSA, ED}
    assert hashed.all_key_types(GPU) == [RSA]


@pytest.mark.parametrize("text", ["", "gpu01", "gpu01 ssh-ed25519", "gpu01 ssh-ed25519 !!!", "@odd gpu01 ssh-rsa AAAA"])
def test_damaged_lines_are_passed_over(text: str) -> None:
    assert list(parse(text, "kh")) == []


def test_files_that_are_none_or_missing_are_empty(tmp_path: Path) -> None:
    paths = [tmp_path / "missing", tmp_path.__class__("none"), tmp_path.__class__("/dev/null")]
    assert KnownHosts.read(paths).judge(GPU, ED, ONE).verdict == "unknown"


@pytest.mark.skipif(shutil.which("ssh-keygen") is None, reason="needs ssh-keygen")
def test_fingerprints_and_hashed_entries_are_those_of_ssh_keygen(tmp_path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    public = (tmp_path / "key.pub").read_text().split()
    key = base64.b64decode(public[1])
    said = subprocess.run(["ssh-keygen", "-lf", str(tmp_path / "key")], capture_output=True, text=True, check=True)
    assert fingerprint(key) == said.stdout.split()[1]
    file = tmp_path / "known_hosts"
    remember(new_entry(HostName("gpu01", 2222), public[0], key, hashed=True), file)
    found = subprocess.run(["ssh-keygen", "-F", "[gpu01]:2222", "-f", str(file)], capture_output=True, text=True)
    assert found.returncode == 0
    file.write_text(f"[gpu01]:2222 {' '.join(public[:2])}\n")
    subprocess.run(["ssh-keygen", "-H", "-f", str(file)], capture_output=True, check=True)
    assert KnownHosts.read([file]).judge(HostName("gpu01", 2222), public[0], key).verdict == "known"


def test_remember_makes_a_private_file(tmp_path: Path) -> None:
    file = tmp_path / "dot_ssh" / "known_hosts"
    remember(line("gpu01"), file)
    assert file.read_text() == line("gpu01") + "\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_remember_starts_a_line_of_its_own_and_says_nothing_twice(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(line("login"))
    remember(line("gpu01"), file)
    remember(line("gpu01"), file)
    assert file.read_text() == f"{line('login')}\n{line('gpu01')}\n"


def test_many_may_remember_at_once(tmp_path: Path) -> None:
    file = tmp_path / "known_hosts"
    threads = [threading.Thread(target=remember, args=(line(f"gpu{n}"), file)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(file.read_text().splitlines()) == sorted(line(f"gpu{n}") for n in range(20))


@pytest.mark.parametrize("entry", ["", "gpu01", f"{line('a')}\n{line('b')}", line("a") + "\r"])
def test_remember_takes_one_entry_only(tmp_path: Path, entry: str) -> None:
    with pytest.raises(ValueError, match="not a known_hosts entry"):
        remember(entry, tmp_path / "known_hosts")


def test_remember_does_not_write_to_dev_null(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keeps nothing"):
        remember(line("gpu01"), tmp_path.__class__("/dev/null"))
