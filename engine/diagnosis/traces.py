"""Python tracebacks in log lines: the exceptions of each, in the order of the text, and how one led to the next.

Read are plain tracebacks, chained ones, exception groups, the “Original Traceback” of a DataLoader worker, tracebacks
that torchrun sums up (indented), boxes drawn by rich, and those glued to the end of a progress bar. Lines of other
ranks that stand between the lines of one are passed over where a label tells them apart.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import msgspec

from engine.diagnosis.lines import Line

if TYPE_CHECKING:
    from collections.abc import Sequence


HEAD = "Traceback (most recent call last)"
CAUSE = "The above exception was the direct cause of the following exception"
CONTEXT = "During handling of the above exception, another exception occurred"
FRAME = re.compile(r'\s{0,80}(?:>\s{0,8})?File "(?P<file>[^"]+)", line (?P<line>\d+)(?:, in (?P<function>.+))?')
RICH_FRAME = re.compile(r"│ (?P<file>/[^:│]+\.py):(?P<line>\d+) in (?P<function>\S+)")
GROUP = re.compile(r"(?:  )*(?:\| ?|\+ (?=Exception Group))")
SEPARATOR = re.compile(r"\s*\+[-+]{3,}")
EXCEPTION = re.compile(r"(?P<type>[A-Za-z_][\w.]*)(?:: (?P<message>.*)|:?\s*)$")
NAMED = re.compile(
    r"(?:[A-Za-z_]\w*\.)+[A-Za-z_]\w*(?::|$)|[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Group|Warning)(?::|$)"
)
LOGGED = re.compile(
    r"(?i:step|epoch|iter|loss)\b.{0,4}\d|\[?[IWEF]\d{4} \d\d:\d\d:\d\d|\[?\d{4}-\d\d-\d\d[ T]\d\d:\d\d"
    r"|[=\-─]{20,}|\[rank\d+\]:"
)
HERE = re.compile(r"/(?:site|dist)-packages/|/lib(?:64)?/python[\d.]+/|^<|/bin/(?:torchrun|accelerate|deepspeed)$")

IGNORED = re.compile(r"Exception ignored in|Error in (?:atexit|sys\.\w+hook)")
"""What Python says of an exception that ends nothing."""
MESSAGE_LINES = 30
MESSAGE = 4000
STRAYS = 40


class Frame(msgspec.Struct, frozen=True):
    """One frame of a traceback: file, line number, function, and the log line that says so."""

    file: str
    number: int
    function: str
    line: Line

    @property
    def own(self) -> bool:
        """Is it the user's code, as far as the path tells?"""
        return HERE.search(self.file) is None


class Raised(msgspec.Struct, frozen=True):
    """One exception: `how` it follows on the one before it in its trace."""

    type: str
    message: str
    line: Line
    frames: tuple[Frame, ...]
    how: Literal["", "cause", "context", "worker", "group"] = ""

    @property
    def text(self) -> str:
        """`ValueError: bad sample`, over several lines where the message is."""
        return f"{self.type}: {self.message}" if self.message else self.type

    @property
    def place(self) -> Frame | None:
        """The innermost frame in the user's own code; without one, the innermost of all."""
        own = [frame for frame in self.frames if frame.own]
        return own[-1] if own else self.frames[-1] if self.frames else None


class Trace(msgspec.Struct, frozen=True):
    """One traceback with all it is chained to."""

    raised: tuple[Raised, ...]
    head: Line
    end: Line
    aside: bool = False
    """Of a thread: the process lives on."""

    @property
    def last(self) -> Raised:
        """What the process died of: of a group the first of its parts, of a DataLoader's the worker's own."""
        final = self.raised[-1]
        if final.how == "group":
            return next(one for one in self.raised if one.how == "group")
        return final

    @property
    def final(self) -> tuple[Raised, ...]:
        """The exceptions that belong to the last one: itself, and what it was raised from."""
        kept = [self.raised[-1]]
        for one, before in zip(self.raised[:0:-1], self.raised[-2::-1], strict=True):
            if one.how == "context":
                break
            kept.append(before)
        return tuple(kept)

    @property
    def agents(self) -> bool:
        """Is it torchrun's own, rather than a rank's?"""
        return any(AGENT.search(frame.file) for one in self.raised for frame in one.frames)


AGENT = re.compile(
    r"torch/distributed/(?:run|launch)\.py$|torch/distributed/launcher/|/elastic/(?:agent|rendezvous)/"
    r"|/bin/torchrun$|accelerate/commands/launch"
)


def traces(lines: Sequence[Line]) -> list[Trace]:
    """Every traceback in the lines of one stream."""
    found: list[list[Raised]] = []
    heads: list[Line] = []
    asides: list[bool] = []
    ends: list[Line] = []
    how: Literal["", "cause", "context", "worker", "group"] = ""
    at = 0
    while at < len(lines):
        text = lines[at].text
        if HEAD not in text:
            if CAUSE in text:
                how = "cause"
            elif CONTEXT in text:
                how = "context"
            at += 1
            continue
        if "Original Traceback" in text:
            how = "worker"
        head = lines[at]
        before = lines[at - 1].text if at else ""
        ignored = IGNORED.match(before)
        raised, at = _one(lines, at, how)
        if raised is None or ignored:
            continue
        linked = how and found and ends[-1].rank == raised.line.rank
        if (not linked and found and GROUP.match(text) and found[-1][-1].type.endswith("Group")) or (
            not linked and found and found[-1][-1].how == "group" and GROUP.match(text)
        ):
            raised, linked = msgspec.structs.replace(raised, how="group"), True
        if linked:
            found[-1].append(raised)
            ends[-1] = lines[at - 1]
        else:
            found.append([msgspec.structs.replace(raised, how="")])
            heads.append(head)
            asides.append(before.startswith("Exception in thread"))
            ends.append(lines[at - 1])
        how = ""
    told = zip(found, heads, ends, asides, strict=True)
    return [Trace(tuple(one), head, end, aside) for one, head, end, aside in told]


def _plain(text: str) -> str:
    """A line without the drawing of exception groups."""
    found = GROUP.match(text)
    return text[found.end() :] if found else text


def _one(lines: Sequence[Line], head: int, how: str) -> tuple[Raised | None, int]:
    """The traceback that begins at `head`, and where to read on; None where its exception is missing."""
    first = lines[head]
    text = _plain(first.text)
    before = text[: text.index(HEAD)]
    boxed = "╭" in before
    base = 2 if before.strip() == "traceback :" else 0 if before.strip() else len(before)
    frames: list[Frame] = []
    strays = 0
    at = head + 1
    while at < len(lines):
        line = lines[at]
        text = _plain(line.text)
        if HEAD in text or strays > STRAYS:
            return None, at
        if line.rank != first.rank and text.strip():
            at += 1
            strays += 1
            continue
        at += 1
        if not text.strip() or SEPARATOR.match(line.text) or text.startswith(("│", "╰")):
            if boxed and (drawn := RICH_FRAME.match(text)):
                frames.append(Frame(drawn["file"], int(drawn["line"]), drawn["function"], line))
            continue
        if framed := FRAME.match(text):
            frames.append(Frame(framed["file"], int(framed["line"]), framed["function"] or "", line))
            continue
        indent = len(text) - len(text.lstrip())
        if indent > base or text.startswith("> "):
            continue
        named = EXCEPTION.match(text[base:]) if indent == base else None
        if named is None or (not NAMED.match(text[base:]) and strays):
            strays += 1
            continue
        if not NAMED.match(text[base:]) and not frames:
            strays += 1
            continue
        message, at = _message(lines, at, named["message"] or "", first, base)
        return Raised(named["type"], message, line, tuple(frames), how or ""), at  # type: ignore[arg-type]
    return None, at


def _message(lines: Sequence[Line], at: int, message: str, first: Line, base: int) -> tuple[str, int]:
    """A message with the lines that it goes on over."""
    parts = [message]
    labelled = first.rank is not None
    blank = 0
    for count in range(at, min(len(lines), at + MESSAGE_LINES)):
        line = lines[count]
        text = _plain(line.text)
        if not text.strip():
            blank += 1
            if blank > 1 or not labelled:
                break
            continue
        if HEAD in text or CAUSE in text or CONTEXT in text or LOGGED.match(text) or SEPARATOR.match(line.text):
            break
        if labelled and line.rank != first.rank:
            break
        if not labelled and line.rank is not None:
            break
        parts.append(text[base:] if text[:base].strip() == "" else text)
        at = count + 1
    return "\n".join(parts)[:MESSAGE], at
