"""Host lists as people write and paste them, expanded to one entry a host; and folded again for display. Pure.

    gpu[01-08]   10.0.0.[1-8]   gpu[01-03,07]   r[1-2]n[1-4]     ranges; a leading zero fixes the width
    gpu01,gpu02   node[1-3],login                                comma lists, Slurm node lists
    gpu01 slots=8   # comment                                    DeepSpeed hostfile
    gpu01:8   gpu01 slots=4 max_slots=8                          MPI hostfiles
    ml@gpu01   gpu01 port=2222   ssh://ml@gpu01:2222             user and ssh port

A number after `:` is a slot count, as MPI means it. Where it could as well be a port (`ml@gpu01:8`, `gpu01:22`, above
1,024) it is refused, and `slots=` or `port=` asked for. An IPv6 address is written bare, or in brackets before `:N`.
"""

from __future__ import annotations

import ipaddress
import math
import re
from typing import TYPE_CHECKING, NoReturn

import msgspec

from engine.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_HOSTS = 16_384
MAX_TEXT = 1 << 20
MAX_SLOTS = 1_024
LOCAL = "localhost"

_REFUSED = frozenset("'`\"$\\;&<>|(){},“”„‘’‚«»–—…")  # noqa: RUF001  as word processors write them
_TOKEN = re.compile(r"(?:\[[^\[\]\n]*\]|[^\s,\[\]])+|[\[\]]")
_OPTION = re.compile(r"(slots|max_slots|max-slots|port)=(.*)", re.IGNORECASE | re.DOTALL)
_COMMA = re.compile(r",(?![^\[]*\])")
_BRACKET = re.compile(r"\[([^\]]*)\]")
_DOTTED = re.compile(r"[0-9]+(\.[0-9]+){3}", re.ASCII)
_SPAN = re.compile(r"([0-9]{1,12})(?:-([0-9]{1,12}))?", re.ASCII)


class HostEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One host of a list; `slots` (ranks), `user` and `port` are None or "" where the list is silent."""

    host: str
    slots: int | None = None
    user: str = ""
    port: int | None = None


def is_address(host: str) -> bool:
    """Whether this is an IPv4 or IPv6 literal (a zone such as `fe80::1%eth0` included)."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def host_mistake(host: str) -> str:
    """Why this cannot be a host name, or "": OpenSSH's rule for its command line, and neither `user@` nor `:port`."""
    if host in ("", "~"):  # YAML's null
        return "it is empty"
    if host.startswith("-"):
        return "it starts with '-', which ssh would read as an option"
    bad = next((c for c in host if c in _REFUSED or c.isspace() or not c.isprintable()), None)
    if bad is not None:
        return f"it contains {bad!r}"
    if "@" in host:
        return "it contains '@': the user goes under `user`"
    if "[" in host or "]" in host:
        return "it contains an unmatched bracket"
    if "/" in host:
        return "it contains '/'"
    if ":" in host and not is_address(host):
        return "it contains ':' and is no IPv6 address: the port goes under `port`"
    if _DOTTED.fullmatch(host) and not is_address(host):
        return "it is no IPv4 address"
    if len(host) > 255:
        return "it is longer than 255 characters"
    return ""


def user_mistake(user: str) -> str:
    """Why this cannot be a login name, or "": OpenSSH's rule for a user on its command line, a little stricter."""
    if user.startswith("-"):
        return "it starts with '-', which ssh would read as an option"
    bad = next((c for c in user if c in "'`\"$;&<>|(){}" or c.isspace() or not c.isprintable()), None)
    if bad is not None:
        return f"it contains {bad!r}"
    if user.endswith("\\"):
        return "it ends with a backslash"
    return ""


def expand(text: str) -> list[HostEntry]:
    """Every host that `text` names, in order.

    Raises RequestError with line and column: a malformed range, a number out of bounds, a name that ssh would refuse,
    more than 16,384 hosts, the same host twice (`localhost` may repeat: several nodes on one machine).
    """
    if len(text) > MAX_TEXT:
        raise RequestError(f"the host list is longer than {MAX_TEXT:,} characters")
    entries: list[tuple[HostEntry, tuple[int, int]]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        entries += _expand_line(line.split("#", 1)[0], number, len(entries))
    seen: dict[tuple[str, str, int | None], int] = {}
    for entry, (number, column) in entries:
        key = (entry.host, entry.user, entry.port)
        if entry.host != LOCAL and key in seen:
            _refuse(
                number,
                column,
                f"{entry.host} is named twice (first on line {seen[key]})",
                "name each host once; slots=2 gives it two ranks",
            )
        seen.setdefault(key, number)
    return [entry for entry, _ in entries]


def expand_names(patterns: str) -> list[str]:
    """The names of `gpu[01-08]` or `gpu[01-08],login`, without options. Raises RequestError as `expand` does."""
    names: list[str] = []
    for pattern in _COMMA.split(patterns):
        names += _names(pattern, 1, 1, len(names))
    return names


def fold(hosts: Iterable[str]) -> str:
    """A short text for display that `expand` reads back to the same hosts in the same order: `gpu[01-08],login`."""
    folded: list[str] = []
    run: list[str] = []
    shape: tuple[str, str] | None = None
    for host in hosts:
        if run and shape is None:
            shape = _shape(run[0], host)
        if run and shape is not None and _middle(host, shape) is not None:
            run.append(host)
            continue
        folded.append(_folded(run, shape))
        run, shape = [host], None
    folded.append(_folded(run, shape))
    return ",".join(text for text in folded if text)


def _expand_line(line: str, number: int, already: int) -> list[tuple[HostEntry, tuple[int, int]]]:
    found: list[tuple[HostEntry, tuple[int, int]]] = []
    last: slice | None = None
    for match in _TOKEN.finditer(line):
        token, column = match[0], match.start() + 1
        if token in "[]":
            _refuse(number, column, f"an unmatched '{token}'", "a range is written gpu[01-08]")
        option = _OPTION.fullmatch(token)
        if option is None and "=" in token:
            _refuse(number, column, f"unknown option {_shown(token)}", "known: slots=N, max_slots=N, port=N")
        if option is not None:
            if last is None:
                _refuse(number, column, f"{_shown(token)} without a host before it", "write: gpu01 slots=8")
            changes = _option(option[1].lower(), option[2], number, column)
            found[last] = [(msgspec.structs.replace(entry, **changes), where) for entry, where in found[last]]
            continue
        start = len(found)
        found += [(entry, (number, column)) for entry in _entries(token, number, column, already + start)]
        last = slice(start, len(found))
    return found


def _entries(token: str, number: int, column: int, already: int) -> list[HostEntry]:
    rest, port, slots = token, None, None
    is_url = rest.startswith("ssh://")
    rest = rest.removeprefix("ssh://").rstrip("/") if is_url else rest
    user, at, rest = rest.rpartition("@")
    if at and (not user or user_mistake(user)):
        _refuse(number, column, f"{_shown(token)}: the user is wrong: {user_mistake(user) or 'it is empty'}")
    if rest.startswith("[") and ":" in rest.partition("]")[0]:
        rest, _, count = rest[1:].partition("]")
        count = count.removeprefix(":")
    elif not is_address(rest):
        rest, _, count = rest.partition(":")
        if ":" in count:
            _refuse(number, column, f"{_shown(token)} is no IPv6 address")
    else:
        count = ""
    if count and is_url:
        port = _number(count, 1, 65_535, "a port", number, column)
    elif count:
        value = _number(count, 1, 65_535, "a slot count", number, column)
        if user or value == 22 or value > MAX_SLOTS:
            _refuse(
                number,
                column,
                f"{_shown(token)}: {value} may be slots or the ssh port",
                f"write {rest} slots={value}, or {rest} port={value}",
            )
        slots = value
    names = _names(rest, number, column, already)
    return [HostEntry(host=name, slots=slots, user=user, port=port) for name in names]


def _option(name: str, text: str, number: int, column: int) -> dict[str, int]:
    if name == "port":
        return {"port": _number(text, 1, 65_535, "a port", number, column)}
    value = _number(text, 1, MAX_SLOTS, "a slot count", number, column)
    return {"slots": value} if name == "slots" else {}


def _number(text: str, low: int, high: int, what: str, number: int, column: int) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text) or not low <= int(text) <= high:
        _refuse(number, column, f"{_shown(text)} is not {what}", f"allowed: {low} to {high}")
    return int(text)


def _names(pattern: str, number: int, column: int, already: int) -> list[str]:
    """All names of a pattern; counted before any is made, so that `[1-999999999]` costs nothing."""
    if is_address(pattern):
        return [pattern]
    parts = _BRACKET.split(pattern)
    spans = [_spans(part, pattern, number, column) for part in parts[1::2]]
    count = math.prod(sum(high - low + 1 for low, high, _ in span) for span in spans)
    if already + count > MAX_HOSTS:
        _refuse(number, column, f"{_shown(pattern)} makes {already + count:,} hosts; at most {MAX_HOSTS:,} are allowed")
    names = [parts[0]]
    for span, suffix in zip(spans, parts[2::2], strict=True):
        values = [str(value).zfill(width) for low, high, width in span for value in range(low, high + 1)]
        names = [name + value + suffix for name in names for value in values]
    for name in (names[0], names[-1]):
        if mistake := host_mistake(name):
            _refuse(number, column, f"{_shown(name)} is no host name: {mistake}")
    if len(names) > 1 and ":" in names[0]:
        _refuse(number, column, f"{_shown(pattern)}: a range in an IPv6 address is not read", "name each address")
    return names


def _spans(text: str, pattern: str, number: int, column: int) -> list[tuple[int, int, int]]:
    """(low, high, width) of each item between brackets; width 0 means unpadded."""
    spans = []
    for item in text.split(","):
        match = _SPAN.fullmatch(item.strip())
        if match is None:
            _refuse(number, column, f"{_shown(pattern)}: {_shown(item)} is no range", "write [01-08] or [1,3,5-7]")
        low, high = match[1], match[2] or match[1]
        padded = any(text.startswith("0") and len(text) > 1 for text in (low, high))
        if padded and len(low) != len(high):
            _refuse(
                number, column, f"{_shown(pattern)}: {low} and {high} differ in width", "write both as wide: [01-10]"
            )
        if int(low) > int(high):
            _refuse(number, column, f"{_shown(pattern)}: {low}-{high} runs backwards", f"write [{high}-{low}]")
        spans.append((int(low), int(high), len(low) if padded else 0))
    return spans


def _shape(first: str, second: str) -> tuple[str, str] | None:
    """(prefix, suffix) around the one number in which two hosts differ, or None."""
    if ":" in first or ":" in second:
        return None
    left, right = re.split(r"([0-9]+)", first), re.split(r"([0-9]+)", second)
    if len(left) != len(right):
        return None
    differing = [i for i, (a, b) in enumerate(zip(left, right, strict=True)) if a != b]
    if len(differing) != 1 or differing[0] % 2 == 0:
        return None
    at = differing[0]
    return "".join(left[:at]), "".join(left[at + 1 :])


def _middle(host: str, shape: tuple[str, str]) -> str | None:
    """The number of `host` in that shape, or None where it does not fit."""
    prefix, suffix = shape
    if len(host) <= len(prefix) + len(suffix) or not host.startswith(prefix) or not host.endswith(suffix):
        return None
    middle = host[len(prefix) : len(host) - len(suffix)]
    return middle if _SPAN.fullmatch(middle) and "-" not in middle else None


def _folded(run: Sequence[str], shape: tuple[str, str] | None) -> str:
    if shape is None:
        return ",".join(run)
    numbers = [middle for host in run if (middle := _middle(host, shape)) is not None]
    spans: list[list[str]] = []
    for number in numbers:
        if spans and _follows(spans[-1], number):
            spans[-1] = [spans[-1][0], number]
        else:
            spans.append([number])
    return f"{shape[0]}[{','.join('-'.join(span) for span in spans)}]{shape[1]}"


def _follows(span: list[str], number: str) -> bool:
    if int(number) != int(span[-1]) + 1:
        return False
    padded = any(text.startswith("0") and len(text) > 1 for text in (span[0], number))
    return len(span[0]) == len(number) if padded else True


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _refuse(number: int, column: int, text: str, remedy: str = "") -> NoReturn:
    raise RequestError(f"host list, line {number}, column {column}: {text}", remedy=remedy)
