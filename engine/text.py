"""Remote text is hostile: the one place that makes it safe to show.

What comes out of `clean` is one line of printable text: no escape sequence, no control character (C0, DEL, C1), no
bidirectional control, no lone surrogate, never longer than the limit. The raw bytes stay in the files.
Escape sequences follow ECMA-48 (CSI, and the strings DCS, SOS, OSC, PM, APC with ST, or BEL as xterm ends them).
"""

from __future__ import annotations

import re

LINE_LIMIT = 4096
TAB = 8

# A string sequence stops at its terminator; one without a terminator loses its introducer alone, so that nothing
# written after it is hidden. No class holds a character that opens a sequence: the scan stays linear.
_SEQUENCE = re.compile(
    r"(?:\x1b[PX\]^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x90\x98\x9c\x9d\x9e\x9f]*(?:\x07|\x1b\\|\x9c)"
    r"|(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]?"
    r"|\x1b[ -/]*[0-~]?"
)
_SGR = re.compile(r"(?:\x1b\[|\x9b)([0-9;:]*)m")
_BREAKS = re.compile(r"[\n\v\f\x85\u2028\u2029]+")
_UNSEEN = re.compile(
    "[\x00-\x08\x0a-\x1f\x7f-\x9f"
    "\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")


def clean(text: str, limit: int = LINE_LIMIT) -> str:
    """`text` as one safe line of at most `limit` characters; line breaks become spaces, a cut ends in "…".

    Of a line that overwrites itself with carriage returns (tqdm) the last state stays.
    """
    if len(text) <= limit and text.isprintable():
        return text
    text, cut = _one_line(text, limit)
    text = _safe(text).expandtabs(TAB)
    if cut or len(text) > limit:
        return text[: max(limit - 1, 0)] + "…"
    return text


def coloured(text: str, limit: int = LINE_LIMIT) -> list[tuple[str, str]]:
    """`clean(text)` in pieces, each with the SGR parameters (ECMA-48 8.3.117) that stand before it, "" for none.

    The pieces joined are safe as `clean` makes it; what the parameters mean is for who draws them.
    """
    if "\x1b" not in text and "\x9b" not in text:
        return [("", clean(text, limit))]
    text, cut = _one_line(text, limit)
    parts = ["", *_SGR.split(text)]
    pieces, column = [], 0
    for parameters, part in zip(parts[::2], parts[1::2], strict=True):
        margin = " " * (column % TAB)
        shown = (margin + _safe(part)).expandtabs(TAB)[len(margin) :]
        column += len(shown)
        if column > limit:
            shown, cut = shown[: len(shown) - (column - limit)], True
        if shown or parameters:
            pieces.append((parameters, shown))
        if column > limit:
            break
    if cut and pieces:
        parameters, last = pieces[-1]
        pieces[-1] = (parameters, (last[:-1] if column >= limit else last) + "…")
    return pieces or [("", "")]


def clean_lines(text: str, most: int = 200, limit: int = LINE_LIMIT) -> tuple[str, ...]:
    """The last `most` lines of `text`, each made safe, without the empty ones at the end."""
    lines = text.rstrip().split("\n")
    return tuple(clean(line, limit) for line in lines[-most:]) if text.strip() else ()


def _one_line(text: str, limit: int) -> tuple[str, bool]:
    """The last state of each line of `text`, joined, as much of it as can matter; was something cut off?"""
    # A carriage return overwrites its own line only.
    lines = text[: 8 * limit].split("\n") if "\n" in text else [text]
    text = " ".join(map(_last_state, lines))
    return text[: 8 * limit], len(text) > 8 * limit


def _safe(text: str) -> str:
    """`text` without what a terminal obeys; tabs stay."""
    text = _UNSEEN.sub("", _BREAKS.sub(" ", _SEQUENCE.sub("", text)))
    return _SURROGATE.sub("\ufffd", text)


def _last_state(line: str) -> str:
    return line.rstrip("\r").rpartition("\r")[2]
