"""A program on a real pseudo-terminal: what it wrote, and what a user would see of that."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pyte

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

TERM = {"TERM": "xterm-256color", "LANG": "C.UTF-8", "COLORTERM": "truecolor"}
RANKDECK = str(Path(sys.executable).with_name("rankdeck"))


class Terminal:
    """`rankdeck ARGUMENTS` on a terminal of `columns` × `lines`; `raw` is every byte that it wrote.

    `environ` is added to our own environment; with `only`, it is the whole.
    """

    def __init__(
        self,
        *arguments: str,
        columns: int = 100,
        lines: int = 30,
        environ: Mapping[str, str] | None = None,
        before: Callable[[], None] | None = None,
        command: Sequence[str] = (RANKDECK,),
        folder: str | None = None,
        only: bool = False,
    ) -> None:
        self.raw = bytearray()
        self.screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self.screen)
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process = subprocess.Popen(
            [*command, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**({} if only else os.environ), **TERM, **(environ or {})},
            cwd=folder,
            start_new_session=True,
            preexec_fn=lambda: _take_terminal(before),
        )
        os.close(slave)
        os.set_blocking(self._master, False)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.hang_up()

    def take(self, seconds: float) -> bytes:
        """The next bytes that the program writes, if any come within this time; the screen is left as it is."""
        if self._master < 0 or not select.select([self._master], [], [], seconds)[0]:
            return b""
        with contextlib.suppress(OSError):
            data = os.read(self._master, 1 << 16)
            self.raw += data
            return data
        return b""

    def read(self, seconds: float = 0.05) -> None:
        """Take what the program writes within this time, and draw it."""
        self._stream.feed(self.take(seconds))

    def settle(self, quiet: float = 0.5, seconds: float = 10.0) -> None:
        """Until nothing has been written for a while."""
        deadline = last = time.monotonic()
        deadline += seconds
        while time.monotonic() < min(deadline, last + quiet):
            size = len(self.raw)
            self.read()
            last = time.monotonic() if len(self.raw) > size else last

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.screen.display)

    def wait_for(self, text: str, seconds: float = 20.0) -> None:
        """Until the text is on the screen; AssertionError with the screen when it does not come."""
        deadline = time.monotonic() + seconds
        while text not in self.text:
            assert time.monotonic() < deadline, f"no {text!r} within {seconds} s on:\n{self.text}"
            assert self.process.poll() is None or self._left(), f"ended before {text!r} came, with:\n{self.text}"
            self.read()

    def _left(self) -> bool:
        return bool(select.select([self._master], [], [], 0.2)[0])

    def press(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def type(self, *pieces: str) -> None:
        """Press keys as a hand does: what one piece changes is on the screen before the next."""
        for piece in pieces:
            self.press(piece)
            self.settle(seconds=3.0)

    def resize(self, columns: int, lines: int) -> None:
        self.screen.resize(lines, columns)
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def wait(self, seconds: float = 15.0) -> int:
        """The exit code, everything read."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"still there after {seconds} s:\n{self.text}"
            self.read()
        self.read(0.1)
        return self.process.returncode

    def hang_up(self) -> None:
        """The terminal goes away, as when its window is closed."""
        if self._master >= 0:
            os.close(self._master)
            self._master = -1


def _take_terminal(before: Callable[[], None] | None) -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if before is not None:
        before()
