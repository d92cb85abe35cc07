"""Conversations with the real program of a node, on this machine: the greeting, questions, and following files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pwd
import stat
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engine.conversation import Conversation, converse
from engine.errors import ConnectionLost, MachineError, NodeRefused, NoPython
from engine.node import sweep
from engine.transport import LocalLink, LocalTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

    from engine.transport import Link

    Opener = Callable[..., Awaitable[Conversation]]

RUN = "lab-1"
LOG = "ranks/none_x1/attempt_0/0/stdout.log"


class Shell(LocalTransport):
    """This machine with a start-up file before our program, or without any python3; `sent` counts bytes to it."""

    def __init__(self, start_up: str = "", python: bool = True) -> None:
        super().__init__()
        self.sent = 0
        self._start_up = start_up
        self._python = python

    async def open(self, command: str) -> Link:
        if not self._python:
            command = command.replace("in python3 /usr/bin/python3 /usr/local/bin/python3;", "in no-python3;")
        link = await super().open(f"{self._start_up}\n{command}")
        send = link.send

        async def counted(data: bytes) -> None:
            self.sent += len(data)
            await send(data)

        link.send = counted  # type: ignore[method-assign]
        return link


class Collected:
    """A sink that keeps everything."""

    def __init__(self) -> None:
        self.bytes: dict[str, bytearray] = {}
        self.first: dict[str, int] = {}
        self.resets: list[str] = []
        self.lives: list[bool] = []
        self.drains: list[int] = []
        self.news = asyncio.Event()

    def reset(self, stream: str) -> None:
        self.resets.append(stream)

    def frame(self, stream: str, end: int, more: bool) -> None:
        pass

    def data(self, stream: str, offset: int, data: bytes) -> None:
        at = self.first.setdefault(stream, offset) + len(self.bytes.setdefault(stream, bytearray()))
        assert offset == at, "a gap, or something twice"
        self.bytes[stream] += data

    def alive(self, alive: bool) -> None:
        self.lives.append(alive)

    def drained(self, streams: int) -> None:
        self.drains.append(streams)
        self.news.set()

    async def until_drained(self) -> None:
        await asyncio.wait_for(self.news.wait(), 30)
        self.news.clear()


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opener]:
    """Opens conversations with a state folder of the test's own."""
    made: list[Conversation] = []

    async def open_one(transport: LocalTransport | None = None, state: Path | None = None) -> Conversation:
        made.append(await converse(transport or LocalTransport(), "localhost", str(state or tmp_path / "state")))
        return made[-1]

    yield open_one
    for conversation in made:
        await conversation.close()


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """The folder of a run on the node, as if its supervisor had gone."""
    folder = tmp_path / "state" / "runs" / RUN / "n0"
    (folder / LOG).parent.mkdir(parents=True)
    (folder / "journal.jsonl").write_text('{"t":1.0,"type":"warning","text":"x"}\n')
    return folder


async def refused(transport: LocalTransport, state: Path) -> MachineError:
    try:
        with pytest.raises(MachineError) as caught:
            await converse(transport, "localhost", str(state))
    finally:
        await transport.close()
    return caught.value


# ---- the greeting -------------------------------------------------------------------------------------------------


async def test_a_node_is_sent_the_program_once(opened: Opener, tmp_path: Path) -> None:
    cold, warm = Shell(), Shell()
    await opened(cold)
    await opened(warm)
    program, _ = sorted((tmp_path / "state" / "agent").iterdir(), key=lambda path: path.stat().st_size)
    assert cold.sent - warm.sent == program.stat().st_size
    assert stat.S_IMODE(program.stat().st_mode) == 0o600
    assert stat.S_IMODE(program.parent.stat().st_mode) == 0o700


async def test_a_damaged_program_is_sent_again(opened: Opener, tmp_path: Path) -> None:
    await opened()
    program, compiled = sorted((tmp_path / "state" / "agent").iterdir(), key=lambda path: path.stat().st_size)
    compiled.unlink()
    whole = program.read_bytes()
    program.write_bytes(whole[:-10] + b"0123456789")
    assert (await (await opened()).ask("ping", timeout=20))["t"]
    assert program.read_bytes() == whole


async def test_four_viewers_may_greet_a_new_node_at_once(opened: Opener, tmp_path: Path) -> None:
    await asyncio.gather(*(opened() for _ in range(4)))
    sources, compiled = sorted(path.name for path in (tmp_path / "state" / "agent").iterdir())[::-1]
    assert (sources.count("."), compiled.count(".")) == (1, 2)


async def test_the_account_is_that_of_the_password_database(opened: Opener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOGNAME", raising=False)
    monkeypatch.setenv("USER", "somebody-else")
    assert (await opened()).hello.user == pwd.getpwuid(os.getuid()).pw_name


async def test_what_start_up_files_print_does_no_harm(opened: Opener) -> None:
    noise = "echo Welcome to gpu01; printf 'no end of line'; printf '\\377\\000{\"ok\":true}\\n'; echo trouble >&2"
    conversation = await opened(Shell(noise))
    assert conversation.hello.protocol == 1


async def test_a_start_up_file_that_prints_without_end_is_told(tmp_path: Path) -> None:
    error = await refused(Shell("while :; do echo 0123456789012345678901234567890123456789; done"), tmp_path)
    assert isinstance(error, NodeRefused)
    assert "prints without end" in error.text


async def test_a_start_up_file_that_ends_the_shell_is_told_with_its_last_words(tmp_path: Path) -> None:
    error = await refused(Shell("echo 'quota \033[31mexceeded' >&2; exit 3"), tmp_path)
    assert isinstance(error, NodeRefused)
    assert "exit status 3" in error.text
    assert error.text.endswith("quota exceeded")


async def test_a_node_without_python_is_told_what_to_install(tmp_path: Path) -> None:
    error = await refused(Shell(python=False), tmp_path)
    assert isinstance(error, NoPython)
    assert "install Python 3.8" in error.remedy


STANDIN_PYTHON_3_7 = f"""#!/bin/sh
exec {sys.executable} "$1" "$2" -c "import sys; sys.version_info = (3, 7, 16, 'final', 0); $4"
"""


async def test_a_python_that_is_too_old_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "bin" / "python3"
    old.parent.mkdir()
    old.write_text(STANDIN_PYTHON_3_7)
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{old.parent}:{os.environ['PATH']}")
    error = await refused(LocalTransport(), tmp_path)
    assert isinstance(error, NoPython)
    assert "is Python 3.7; 3.8 or later is needed" in error.text


OLD_PYTHONS = sorted(path for path in Path.home().glob(".pyenv/versions/*/bin/python") if "/3." not in str(path))
OLD_PYTHONS += sorted(Path.home().glob(".pyenv/versions/3.[67].*/bin/python3"))


@pytest.mark.skipif(not OLD_PYTHONS, reason="no Python older than 3.8 below ~/.pyenv")
@pytest.mark.parametrize("python", OLD_PYTHONS, ids=lambda path: path.parts[-3])
async def test_a_real_old_python_says_so(python: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "python3").symlink_to(python)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    error = await refused(LocalTransport(), tmp_path)
    assert isinstance(error, NoPython)
    assert "3.8 or later is needed" in error.text


@contextlib.contextmanager
def tmpfs(folder: Path, options: str) -> Iterator[Path]:
    """A small file system of the test's own; the test is skipped where none can be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "rankdeck-test", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs needs root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


async def test_a_full_disk_is_told_with_its_path(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "full", "size=8k") as folder:
        error = await refused(LocalTransport(), folder / "state")
    assert isinstance(error, NodeRefused)
    assert error.code == "ENOSPC"
    assert str(folder) in error.text
    assert "free space there" in error.remedy


async def test_a_read_only_disk_is_told_with_what_to_set(tmp_path: Path) -> None:
    with tmpfs(tmp_path / "fixed", "ro") as folder:
        error = await refused(LocalTransport(), folder / "state")
    assert isinstance(error, NodeRefused)
    assert error.code == "EROFS"
    assert "state_dir" in error.remedy


async def test_a_state_folder_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent").chmod(0o777)
    error = await refused(LocalTransport(), tmp_path)
    assert isinstance(error, NodeRefused)
    assert "others may write to it" in error.text
    assert "chmod 700" in error.remedy


# ---- questions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verb", "fields", "code"),
    [
        ("dance", {}, "verb"),
        ("watch", {"run": "no-such-run", "node_rank": 0, "streams": {}}, "no-run"),
        ("watch", {"run": "../../etc", "node_rank": 0, "streams": {}}, "name"),
        ("stop", {"run": "x/../y", "node_rank": 0, "grace": 1}, "name"),
        ("launch", {"run": RUN, "node_rank": -1, "job": {}}, "name"),
        ("watch", {"run": RUN, "node_rank": 0, "streams": {"../job.json": [0, 0]}}, "fault"),
        ("watch", {}, "fault"),
    ],
)
async def test_a_request_that_cannot_be_done_is_refused_and_the_conversation_goes_on(
    opened: Opener, run_dir: Path, verb: str, fields: dict[str, object], code: str
) -> None:
    conversation = await opened()
    with pytest.raises(NodeRefused) as caught:
        await conversation.ask(verb, timeout=20, **fields)
    assert caught.value.code == code
    assert (await conversation.ask("ping", timeout=20))["t"]


async def test_a_killed_program_ends_every_question(opened: Opener) -> None:
    transport = Shell("echo $$")  # the shell becomes our program
    conversation = await opened(transport)
    (link,) = transport._links
    assert isinstance(link, LocalLink)
    asking = [asyncio.ensure_future(conversation.ask("sample", timeout=20)) for _ in range(3)]
    link._process.kill()
    for answer in asking:
        with pytest.raises(ConnectionLost):
            await answer
    assert "exit status -9" in (await conversation.ended).text
    with pytest.raises(ConnectionLost):
        await conversation.ask("ping", timeout=20)


async def test_leaving_ends_the_program_on_the_node(tmp_path: Path) -> None:
    transport = LocalTransport()
    conversation = await converse(transport, "localhost", str(tmp_path))
    (link,) = transport._links
    await conversation.close()
    assert link.exit_status == 0


# ---- following ----------------------------------------------------------------------------------------------------


async def test_a_follow_goes_on_where_the_copy_ends(opened: Opener, run_dir: Path) -> None:
    text = b"".join(b"line %d\n" % k for k in range(3000))
    (run_dir / LOG).write_bytes(text)
    sink, conversation = Collected(), await opened()
    await conversation.watch(RUN, 0, {LOG: (10_000, zlib.crc32(text[10_000 - 4096 : 10_000]))}, sink, False)
    await sink.until_drained()
    assert sink.resets == []
    assert sink.first == {LOG: 10_000}
    assert sink.bytes[LOG] == text[10_000:]
    assert (sink.drains, sink.lives) == ([1], [False])


@pytest.mark.parametrize("position", [(6, 12345), (999, zlib.crc32(b"hello world\n"))], ids=["other", "longer"])
async def test_a_copy_that_is_no_prefix_is_begun_again(
    opened: Opener, run_dir: Path, position: tuple[int, int]
) -> None:
    (run_dir / LOG).write_bytes(b"hello world\n")
    sink, conversation = Collected(), await opened()
    await conversation.watch(RUN, 0, {LOG: position}, sink, False)
    await sink.until_drained()
    assert sink.resets == [LOG]
    assert sink.bytes[LOG] == b"hello world\n"


async def test_a_living_run_is_drained_when_its_supervisor_has_gone(opened: Opener, run_dir: Path) -> None:
    sink, conversation = Collected(), await opened()
    lock = sweep.take_lock(str(run_dir))
    with (run_dir / LOG).open("wb", buffering=0) as log:
        await conversation.watch(RUN, 0, {LOG: (0, 0)}, sink, False)
        while not sink.lives:
            log.write(b"still here\n")
            await asyncio.sleep(0.01)
        assert sink.drains == []
        log.write(b"last words\n")
        os.close(lock)
    await sink.until_drained()
    assert sink.lives == [True, False]
    assert sink.bytes[LOG] == (run_dir / LOG).read_bytes()


async def test_a_single_look_waits_for_nothing(opened: Opener, run_dir: Path) -> None:
    (run_dir / LOG).write_bytes(b"so far\n")
    lock = sweep.take_lock(str(run_dir))
    try:
        sink, conversation = Collected(), await opened()
        await conversation.watch(RUN, 0, {LOG: (0, 0), "torchrun.log": (0, 0)}, sink, True)
        await sink.until_drained()
    finally:
        os.close(lock)
    assert sink.bytes == {LOG: b"so far\n"}


async def test_a_stream_that_is_added_later_is_read_to_its_end_too(opened: Opener, run_dir: Path) -> None:
    (run_dir / LOG).write_bytes(b"hello\n")
    sink, conversation = Collected(), await opened()
    number = await conversation.watch(RUN, 0, {"journal.jsonl": (0, 0)}, sink, False)
    await sink.until_drained()
    await conversation.watch_more(number, RUN, 0, {LOG: (0, 0)})
    await sink.until_drained()
    assert sink.drains == [1, 2]
    assert json.loads(bytes(sink.bytes["journal.jsonl"]))["text"] == "x"
    assert sink.bytes[LOG] == b"hello\n"


async def test_a_link_in_the_place_of_a_log_is_not_followed(opened: Opener, run_dir: Path) -> None:
    (run_dir / LOG).symlink_to("/etc/passwd")
    os.mkfifo(run_dir / "torchrun.log")
    sink, conversation = Collected(), await opened()
    await conversation.watch(RUN, 0, {LOG: (0, 0), "torchrun.log": (0, 0)}, sink, False)
    await sink.until_drained()
    assert sink.bytes == {}


MIB = 1 << 20


def memory(pid: int | str, field: str) -> int:
    """A field of /proc/PID/status, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field))


async def test_memory_stays_flat_on_both_sides_while_200_mb_come(opened: Opener, run_dir: Path) -> None:
    size = 200_000_000
    with (run_dir / LOG).open("wb") as log:
        log.truncate(size)

    class Counted(Collected):
        seen = most = 0

        def data(self, stream: str, offset: int, data: bytes) -> None:
            assert offset == self.seen
            before, self.seen = self.seen, offset + len(data)
            if before // (4 * MIB) != self.seen // (4 * MIB):
                self.most = max(self.most, memory("self", "VmRSS:"))

    transport = LocalTransport()
    sink, conversation = Counted(), await opened(transport)
    (link,) = transport._links
    began = memory("self", "VmRSS:")
    await conversation.watch(RUN, 0, {LOG: (0, 0)}, sink, False)
    await sink.until_drained()
    assert sink.seen == size
    assert sink.most - began < 24 * MIB
    assert memory(link._process.pid, "VmHWM:") < 48 * MIB
