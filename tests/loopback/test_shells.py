"""Login shells and start-up files as people have them: the conversation opens, or says in bounded time why not.

The server runs what the client asks for in the shell of the test (`ForceCommand exec SHELL -c "$SSH_ORIGINAL_COMMAND"`)
and in a home of the test's own; that is what sshd does with the shell of /etc/passwd, without root.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from engine import conversation
from engine.conversation import converse
from engine.errors import ConnectionLost, MachineError, NodeRefused

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from engine.conversation import Conversation
    from engine.ssh.client import SshClient
    from tests.loopback.sshd import Lab

RC = {
    "sh": ".profile",
    "dash": ".profile",
    "bash": ".bashrc",
    "zsh": ".zshenv",
    "fish": ".config/fish/config.fish",
    "tcsh": ".tcshrc",
}
"""Each shell's file that a non-interactive session may read (bash does because sshd starts it)."""


@contextlib.asynccontextmanager
async def talk(lab: Lab, client: SshClient, shell: str, rc: str = "") -> AsyncIterator[Conversation]:
    """A conversation through a login shell with this start-up file."""
    program = shutil.which(shell)
    if program is None:
        pytest.skip(f"{shell} is not installed")
    if shell == "bash" and not pwd.getpwuid(os.getuid()).pw_shell.endswith("bash"):
        pytest.skip("bash reads .bashrc as the login shell only, and the user of the tests has another one")
    home = lab.folder / "home"
    (home / RC[shell]).parent.mkdir(parents=True)
    (home / RC[shell]).write_text(rc)
    start = "eval" if shell == "bash" else f"exec {program} -c"
    line = f'{start} "$SSH_ORIGINAL_COMMAND"'
    with lab.sshd(SetEnv=f"HOME={home} XDG_STATE_HOME={home}/state", ForceCommand=line) as sshd:
        transport = await client.connect("127.0.0.1", port=sshd.port)
        try:
            opened = await converse(transport, "gpu01")
        except BaseException:
            await transport.close()
            raise
        assert (home / "state" / "rankdeck" / "agent").is_dir()
        yield opened
        await opened.close()


@pytest.mark.parametrize("shell", RC)
async def test_every_login_shell_starts_our_program(lab: Lab, client: SshClient, shell: str) -> None:
    async with talk(lab, client, shell) as conversation:
        assert "t" in await conversation.ask("ping", timeout=10)


@pytest.mark.parametrize("shell", [shell for shell in RC if RC[shell] != ".profile"])
async def test_a_start_up_file_that_prints_sleeps_moves_and_fails_hurts_nothing(
    lab: Lab, client: SshClient, shell: str
) -> None:
    rc = "echo welcome; printf '\\033]0;title\\007'\nsleep 1\ncd /\nfalse\n"
    async with talk(lab, client, shell, rc) as conversation:
        assert "t" in await conversation.ask("ping", timeout=10)


@pytest.mark.parametrize(
    "rc",
    [
        "set -e; set -u; set -o pipefail",
        "echo oops >&2; head -c 100000 /dev/zero | tr '\\0' x >&2; echo >&2",
        "stty -echo; mesg n; bind 'set bell-style none'",
        "head -c 500000 /dev/zero | tr '\\0' '\\n'",
        "printf 'no newline at the end'",
        "export PYTHONSTARTUP=/nowhere PYTHONHOME=/nowhere PYTHONPATH=/nowhere PYTHONUNBUFFERED=x",
        "alias exec=false python3=false; command_not_found_handle() { exit 1; }",
        "cd /nowhere; false",
        "umask 777",
        "sleep 20 & disown",
    ],
)
async def test_a_strange_bashrc_hurts_nothing(lab: Lab, client: SshClient, rc: str) -> None:
    async with talk(lab, client, "bash", rc + "\n") as conversation:
        assert "t" in await conversation.ask("ping", timeout=10)


@pytest.mark.parametrize(
    ("rc", "words"),
    [
        ("exit 3", "ended with exit status 3 before our program could start"),
        ("echo 'quota exceeded for home' >&2; exit 1", "quota exceeded for home"),
        ("exec true", "ended with exit status 0 before our program could start"),
        ("kill -9 $$", "ended with exit status -9 before our program could start"),
        ("yes", "prints without end"),
        ("read answer", "read from its standard input"),
        ("exec cat", "within 2 s"),
        ("cat > /dev/null", "within 2 s"),
        ("exec bash", "before our program could start"),
        ("sleep 60", "within 2 s"),
    ],
)
async def test_a_start_up_file_that_stands_in_the_way_is_told(
    lab: Lab, client: SshClient, rc: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversation, "OPEN_TIMEOUT", 2.0)
    began = time.monotonic()
    with pytest.raises((NodeRefused, ConnectionLost)) as failed:
        async with talk(lab, client, "bash", rc + "\n"):
            pass
    assert words in failed.value.text
    assert "ssh gpu01 true" in failed.value.remedy
    assert failed.value.node == "gpu01"
    assert time.monotonic() - began < 15


async def test_a_login_shell_that_is_no_shell_is_told(lab: Lab, client: SshClient) -> None:
    with lab.sshd(ForceCommand="echo 'This account is currently not available.'; exit 1") as sshd:
        transport = await client.connect("127.0.0.1", port=sshd.port)
        with pytest.raises(MachineError, match="ended with exit status 1"):
            await converse(transport, "gpu01")
        await transport.close()
