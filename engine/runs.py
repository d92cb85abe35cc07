"""The runs that this workstation knows: one folder each, with the plan, our observations and the log mirrors.

    <state>/watched/<run>/
        run.json           what was launched (no secrets): profile, plan
        session.jsonl      what this workstation observed, append-only
        summary.json       the last known outcome, for lists
        n<node_rank>/…     mirrors of the node's run folder: each file a byte-identical prefix of the node's own

A mirror's size is the offset to resume from. Several viewers may write the same mirror at once: the same bytes go to
the same offsets. Files are written beside and renamed, or appended to; never edited. A node keeps its own run folders
in <state>/runs, so that this machine can be a node of its own runs.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import tempfile
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from engine import events
from engine.errors import RequestError
from engine.node.tail import FINGERPRINT, STREAM
from engine.plan import Plan
from engine.profile import Profile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

RUN = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
"""What a run is called; the name of a folder here and on the nodes."""


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What was launched. `created` in unix seconds; `max_restarts` as torchrun understands it."""

    version: int = 1
    run: str
    created: float
    profile: Profile
    plan: Plan


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The last known outcome: `outcome` is running, succeeded, failed or stopped; `seen` in unix seconds.

    `rate` is the throughput in words, with its unit.
    """

    outcome: str
    seen: float
    text: str = ""
    step: int | None = None
    total: int | None = None
    loss: float | str | None = None
    rate: str = ""
    elapsed: float = 0.0


def new_name(profile_name: str) -> str:
    """A name for a run: profile, local time, four random characters."""
    tail = "".join(secrets.choice("abcdefghijkmnpqrstuvwxyz23456789") for _ in range(4))
    return f"{_stem(profile_name)}-{time.strftime('%Y%m%d-%H%M%S')}-{tail}"


def _stem(profile_name: str) -> str:
    """How the names of a profile's runs begin."""
    return re.sub(r"[^a-z0-9]+", "-", profile_name.lower())[:40].strip("-") or "run"


def state_home() -> Path:
    """`$RANKDECK_STATE`, or rankdeck in the user's state folder (XDG Base Directory Specification)."""
    if asked := os.environ.get("RANKDECK_STATE"):
        return Path(asked).expanduser()
    return Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "rankdeck"


def watched() -> Path:
    """The folder of all runs that this workstation knows."""
    return state_home() / "watched"


def write_beside(path: Path, data: bytes) -> None:
    """Replace `path` as a whole or not at all: temporary file, fsync, rename."""
    fd, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


class Mirror:
    """The local copy of one stream. `size` is the number of bytes that are there, and the offset to ask for next."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self.size = os.fstat(self._fd).st_size

    def position(self) -> tuple[int, int]:
        """(offset, CRC-32 of the last 4 KiB before it): by it the node sees that we hold a prefix of its file."""
        tail = min(self.size, FINGERPRINT)
        return self.size, zlib.crc32(os.pread(self._fd, tail, self.size - tail))

    def write(self, offset: int, data: bytes) -> None:
        """Store `data` at `offset`, which must be the end of what is there: no gap, nothing twice."""
        if offset != self.size:
            raise ValueError(f"bytes for offset {offset} where {self.size} comes next")
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, self.size)
            self.size += written
            view = view[written:]

    def restart(self) -> None:
        """The copy is not a prefix of the node's file: set it aside, begin a new one."""
        os.close(self._fd)
        self.path.replace(self.path.with_name(self.path.name + ".damaged"))
        self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.size = 0

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._fd, size, offset)

    def close(self) -> None:
        os.close(self._fd)


class RunFolder:
    """One run on this workstation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = path.name

    @classmethod
    def create(cls, record: Record) -> RunFolder:
        folder = cls(watched() / record.run)
        folder.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.path.mkdir(mode=0o700)
        write_beside(folder.path / "run.json", msgspec.json.format(msgspec.json.encode(record)) + b"\n")
        return folder

    def record(self) -> Record:
        try:
            return msgspec.json.decode((self.path / "run.json").read_bytes(), type=Record)
        except (OSError, msgspec.MsgspecError) as error:
            raise RequestError(
                f"{self.path / 'run.json'} cannot be read: {error}", remedy=f"the logs are still in {self.path}"
            ) from None

    def mirror_path(self, node_rank: int, stream: str) -> Path:
        if not STREAM.fullmatch(stream):
            raise ValueError(f"not a stream of a run: {stream!r}")
        return self.path / f"n{node_rank}" / stream

    def mirror(self, node_rank: int, stream: str) -> Mirror:
        return Mirror(self.mirror_path(node_rank, stream))

    def mark_complete(self, node_rank: int, sizes: dict[str, int]) -> None:
        """These streams of an ended node are here to their last byte, besides those that earlier viewers marked."""
        write_beside(
            self.path / f"n{node_rank}" / "complete.json", msgspec.json.encode({**self.sizes(node_rank), **sizes})
        )

    def sizes(self, node_rank: int) -> dict[str, int]:
        """The streams of a node that are here to their last byte, with their sizes in bytes."""
        try:
            marks = (self.path / f"n{node_rank}" / "complete.json").read_bytes()
            return msgspec.json.decode(marks, type=dict[str, int])
        except (OSError, msgspec.MsgspecError):
            return {}

    def complete(self, node_rank: int, streams: Iterable[str]) -> bool:
        """Are these streams, and the journal, here to their last byte?"""
        sizes = self.sizes(node_rank)
        try:
            return all(
                self.mirror_path(node_rank, name).stat().st_size == sizes[name] for name in ("journal.jsonl", *streams)
            )
        except (OSError, KeyError):
            return False

    def forget(self) -> None:
        """Remove what this workstation keeps of the run. The nodes keep their own folders."""
        shutil.rmtree(self.path)

    def note(self, event: events.Event) -> None:
        """Append what the workstation observed; one write a line, so that viewers side by side tear nothing."""
        fd = os.open(self.path / "session.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, events.encode(event))
        finally:
            os.close(fd)

    def history(self, sizes: Mapping[int, int] | None = None) -> Iterator[events.AnyEvent]:
        """Every event that is on this workstation: our observations, then each node's journal.

        `sizes` by node_rank are the bytes of the journals that count: other viewers may be writing on.
        """
        record = self.record()
        for line in _lines(self.path / "session.jsonl"):
            if (event := events.decode(line)) is not None:
                yield event
        for node in record.plan.nodes:
            size = None if sizes is None else sizes.get(node.node_rank, 0)
            for line in _lines(self.mirror_path(node.node_rank, "journal.jsonl"), size):
                if (journal := events.decode_record(line, node.node_rank)) is not None:
                    yield journal

    def summarise(self, summary: Summary) -> None:
        write_beside(self.path / "summary.json", msgspec.json.encode(summary))

    def summary(self) -> Summary | None:
        try:
            return msgspec.json.decode((self.path / "summary.json").read_bytes(), type=Summary)
        except (OSError, msgspec.MsgspecError):
            return None


def _lines(path: Path, size: int | None = None) -> Iterator[bytes]:
    """The whole lines of a file, or of its first `size` bytes; a torn last line is not one."""
    try:
        with path.open("rb") as file:
            seen = 0
            for line in file:
                seen += len(line)
                if not line.endswith(b"\n") or (size is not None and seen > size):
                    return
                yield line
    except FileNotFoundError:
        return


def listing() -> list[RunFolder]:
    """All runs, the newest first."""
    root = watched()
    folders = [RunFolder(path) for path in root.iterdir() if (path / "run.json").is_file()] if root.is_dir() else []
    return sorted(folders, key=lambda folder: (folder.path / "run.json").stat().st_mtime, reverse=True)


def find(name: str = "") -> RunFolder:
    """The run whose name is or begins so; of a profile's name its newest run; without a name the newest of all."""
    folders = listing()
    if not folders:
        raise RequestError("there are no runs yet", remedy="start one: rankdeck launch PROFILE")
    if not name:
        return folders[0]
    stamped = re.compile(re.escape(_stem(name)) + r"-\d{8}-\d{6}-[a-z0-9]{4}")
    for folder in folders:
        if folder.run == name:
            return folder
    for folder in folders:
        if stamped.fullmatch(folder.run):
            return folder
    near = [folder for folder in folders if folder.run.startswith(name)]
    if len(near) == 1:
        return near[0]
    if near:
        some = ", ".join(folder.run for folder in near[:5])
        raise RequestError(f"“{name}” names {len(near)} runs: {some}", remedy="give more of the name")
    raise RequestError(f"no run is called “{name}”", remedy="see them: rankdeck runs")
