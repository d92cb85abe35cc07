"""The terminal under the screen: how often to repaint, whether it is still there, its clipboard.

What Textual keeps to itself is read here and nowhere else, each with what happens without it.
"""

from __future__ import annotations

import base64
import codecs
import contextlib
import os
import sys
import termios
from functools import partial
from typing import TYPE_CHECKING, Any

from textual._callback import invoke

if TYPE_CHECKING:
    from collections.abc import Mapping

    from textual.app import App
    from textual.events import Event
    from textual.widget import Widget

CLIPBOARD_LIMIT = 74_994
"""Bytes of text that terminals take by OSC 52 (100,000 bytes of base64 with its frame, xterm's limit)."""
LOCAL_RATE, REMOTE_RATE = 10.0, 4.0


def repaint_rate(environ: Mapping[str, str]) -> float:
    """Repaints a second that the way to the eyes can carry: `RANKDECK_FPS`, or 10 here and 4 over ssh or in tmux."""
    asked = environ.get("RANKDECK_FPS", "")
    if asked.isdigit() and int(asked) > 0:
        return float(min(int(asked), 30))
    remote = environ.get("SSH_CONNECTION") or environ.get("TMUX") or environ.get("STY")
    return REMOTE_RATE if remote else LOCAL_RATE


def keep_alt_digits() -> None:
    """Let alt and a digit be that: Textual takes them for what a Mac's option key types (alt+2 for ™)."""
    with contextlib.suppress(ImportError, AttributeError):
        from textual._ansi_sequences import ANSI_SEQUENCES_KEYS

        sequences: Any = ANSI_SEQUENCES_KEYS
        for digit in "0123456789":
            sequences.pop(f"\x1b{digit}", None)


def take_any_bytes() -> None:
    """Let what is typed or pasted be no UTF-8: Textual ends the program then."""
    with contextlib.suppress(ImportError, AttributeError):
        from textual.drivers import linux_driver

        driver: Any = linux_driver
        if driver.getincrementaldecoder is codecs.getincrementaldecoder:
            driver.getincrementaldecoder = lambda name: partial(codecs.getincrementaldecoder(name), errors="replace")


def measure_anew() -> None:
    """Ask the terminal how large it is: COLUMNS and LINES of the environment say how large it was once, at most."""
    for name in ("COLUMNS", "LINES"):
        os.environ.pop(name, None)


def congested(app: App[Any]) -> bool:
    """Is the terminal behind with what it was given? Another frame would only delay the next key's echo."""
    writer = getattr(getattr(app, "_driver", None), "_writer_thread", None)
    queue = getattr(writer, "_queue", None)
    return queue is not None and queue.qsize() > 1


async def deliver(event: Event, to: Widget) -> None:
    """Let a widget and what it is in do with the event what they do with it, and come back when it is done.

    Textual lays it into the widget's queue, and takes the key after it before a binding for this one is found: of
    “ab”, backspace, “c” typed ahead over a slow line comes “a”.
    """
    event._set_forwarded()
    for node in to.ancestors_with_self:
        with node._context():
            for _, handler in node._get_dispatch_methods(event.handler_name, event):
                await invoke(handler, event)
        if event._stop_propagation:
            return


def lost() -> bool:
    """Has the terminal gone away, without a signal that says so (nohup, some shells)?"""
    try:
        termios.tcgetattr(sys.__stdin__.fileno() if sys.__stdin__ is not None else 0)
    except (termios.error, ValueError, OSError):
        return True
    return False


def copy(app: App[Any], text: str) -> str:
    """Send text to the clipboard of the terminal that the user sits at, by OSC 52; what was done, in words."""
    data = text.encode()
    cut = len(data) > CLIPBOARD_LIMIT
    if cut:
        data = data[:CLIPBOARD_LIMIT].decode("utf-8", "ignore").encode()
    driver = getattr(app, "_driver", None)
    if driver is None:
        return "there is no terminal to copy to"
    sequence = f"\x1b]52;c;{base64.b64encode(data).decode()}\a"
    if os.environ.get("TMUX"):
        # Inside tmux both ways: by its own set-clipboard, and passed through where that is off.
        sequence += "\x1bPtmux;" + sequence.replace("\x1b", "\x1b\x1b") + "\x1b\\"
    driver.write(sequence)
    size = f"{len(data):,} bytes"
    return f"the first {size} sent to the terminal's clipboard" if cut else f"{size} sent to the terminal's clipboard"
