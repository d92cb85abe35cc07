"""The signs on the screen, one set for Unicode and one for `--ascii`: each is one cell wide."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Glyphs:
    """`levels` go from low to high; `marks` are those of a finding's or a node's state."""

    ok: str
    error: str
    warning: str
    info: str
    pending: str
    running: str
    stopped: str
    lost: str
    silent: str
    bullet: str
    separator: str
    ellipsis: str
    times: str
    levels: str
    spinner: str
    bar: str
    track: str
    thumb: str


UNICODE = Glyphs(
    ok="✓",
    error="✗",
    warning="!",
    info="·",
    pending="·",
    running="▶",
    stopped="■",
    lost="?",
    silent="~",
    bullet="•",
    separator="·",
    ellipsis="…",
    times="×",
    levels="▁▂▃▄▅▆▇█",
    spinner="◐◓◑◒",
    bar="━",
    track="─",
    thumb="┃",
)
ASCII = Glyphs(
    ok="+",
    error="x",
    warning="!",
    info=".",
    pending=".",
    running=">",
    stopped="#",
    lost="?",
    silent="~",
    bullet="*",
    separator="-",
    ellipsis="~",
    times="x",
    levels="_.:-=+*#",
    spinner="|/-\\",
    bar="=",
    track="-",
    thumb="|",
)
