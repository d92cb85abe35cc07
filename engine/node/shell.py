"""A program run within bounds: time, bytes kept, and nothing left of its process group afterwards."""

from __future__ import annotations

import os
from typing import Dict, List, Optional

KEPT = 256 * 1024


class Result:
    """How it ended: `code` is the exit status (negative: a signal), None after a timeout; text is decoded loosely."""

    def __init__(self, code: Optional[int], out: str, err: str, seconds: float) -> None:
        self.code = code
        self.out = out
        self.err = err
        self.seconds = seconds


class Command:
    """Started at once, collected by `finish`; stdin is empty. OSError if it cannot be started."""

    def __init__(self, argv: List[str], timeout: float, env: Optional[Dict[str, str]] = None) -> None:
        import subprocess
        import time

        self._clock = time.monotonic
        self._began = self._clock()
        self._timeout = timeout
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            start_new_session=True,
        )

    def finish(self) -> Result:
        """Waits for the end, at most the timeout, then kills what is left of the process group."""
        import selectors
        import signal

        pid = self._process.pid
        kept: Dict[int, bytearray] = {}
        ended = False
        with selectors.DefaultSelector() as selector:
            for stream in (self._process.stdout, self._process.stderr):
                assert stream is not None
                os.set_blocking(stream.fileno(), False)
                kept[stream.fileno()] = bytearray()
                selector.register(stream, selectors.EVENT_READ)
            while True:
                left = self._began + self._timeout - self._clock()
                if left <= 0:
                    break
                # A child that outlives the program may hold the pipes open: the end of the program decides.
                ended = ended or _has_ended(pid)
                if ended and not selector.get_map():
                    break
                if not selector.get_map():
                    ready = []
                    _nap(min(0.002, left))
                else:
                    ready = selector.select(0 if ended else min(0.02, left))
                for key, _ in ready:
                    data = _read(key.fd)
                    if data == b"":
                        selector.unregister(key.fileobj)
                    elif data:
                        buffer = kept[key.fd]
                        buffer += data
                        # The tail says why something failed; a flood costs no memory.
                        del buffer[:-KEPT]
                if ended and not ready:
                    break
        # The program is not reaped yet, so its process group id cannot belong to anyone else.
        try:
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
        code = self._process.wait()
        texts = [bytes(buffer).decode("utf-8", "replace") for buffer in kept.values()]
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()
        return Result(code if ended else None, texts[0], texts[1], self._clock() - self._began)


def run(argv: List[str], timeout: float, env: Optional[Dict[str, str]] = None) -> Result:
    """Start, wait, collect; see `Command`."""
    return Command(argv, timeout, env).finish()


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _nap(seconds: float) -> None:
    import time

    time.sleep(seconds)


def _read(fd: int) -> Optional[bytes]:
    """b"" at the end, None where nothing has come yet."""
    try:
        return os.read(fd, 65536)
    except (BlockingIOError, InterruptedError):
        return None
