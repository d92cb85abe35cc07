"""YAML text to plain parts that know where they stand, so that every mistake can name its line.

Scalars stay the text that the user wrote: what a value means is up to the field it is for. So `NCCL_IB_DISABLE: 1`,
`SEED: 007` and `args: [--flag, true]` arrive as written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from engine.errors import ProfileError
from engine.text import clean

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node

MAX_BYTES = 256 * 1024
_PREFIX = "tag:yaml.org,2002:"
_TAGS = {_PREFIX + name for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "seq", "map")}


@dataclass(frozen=True)
class Place:
    """Where something is written: `where` for humans ("lab.yaml:12", "--set env.A=1"), `line` for the order."""

    where: str
    line: int = 0


@dataclass(frozen=True)
class Mistake:
    """What is wrong at a place; `path` is the key that it concerns, "" where there is none."""

    place: Place
    path: str
    text: str

    def __str__(self) -> str:
        # A key is the user's own text: one that a terminal would obey, or nobody would see, is shown in ASCII.
        path = self.path if self.path.isprintable() else ascii(self.path)
        return f"{self.place.where}:{path and f' {path}:'} {clean(self.text)}"


@dataclass(frozen=True)
class Text:
    place: Place
    text: str
    plain: bool = True


@dataclass(frozen=True)
class Items:
    place: Place
    items: tuple[Value, ...]


@dataclass(frozen=True)
class Entries:
    place: Place
    entries: tuple[tuple[Text, Value], ...]


Value: TypeAlias = Text | Items | Entries


def parse(data: str | bytes, source: str) -> tuple[Value, list[Mistake]]:
    """The parts of one YAML document, and the YAML in it that no profile needs. ProfileError for what is no YAML."""
    text = _text(data, source)
    try:
        # The pure loader stops at nodes: no tag is ever constructed.
        root = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        raise ProfileError(source, [_syntax_mistake(error, text, source)]) from None
    except RecursionError:
        raise ProfileError(source, [f"{source}: nested too deeply to be a profile"]) from None
    except (YAMLError, ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ProfileError(source, [f"{source}: this is not YAML: {reason}"]) from None
    if root is None:
        raise ProfileError(source, [f"{source}:1: the file is empty; a profile starts with `version: 1`"])
    converter = _Converter(source)
    return converter.convert(root), converter.mistakes


def _text(data: str | bytes, source: str) -> str:
    if len(data) > MAX_BYTES:
        raise ProfileError(source, [f"{source}: {len(data):,} bytes; a profile has at most {MAX_BYTES:,}"])
    text = data if isinstance(data, str) else _utf8(data, source)
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    for number, line in enumerate(text.split("\n"), start=1):
        bad = next((c for c in line if (ord(c) < 32 and c != "\t") or ord(c) == 127 or 0xD800 <= ord(c) < 0xE000), None)
        if bad is not None:
            raise ProfileError(source, [f"{source}:{number}: the control character {bad!r} has no place in a profile"])
    return text


def _utf8(data: bytes, source: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{data[error.start]:02x} at offset {error.start}"
        raise ProfileError(source, [f"{source}:{line}: this is not UTF-8 text ({found})"]) from None


def _syntax_mistake(error: MarkedYAMLError, text: str, source: str) -> str:
    problem = error.problem or ""
    # What is never finished is looked for where it begins; everything else where it goes wrong.
    unfinished = "could not find expected ':'" in problem or "end of stream" in problem
    mark = (error.context_mark if unfinished else None) or error.problem_mark or error.context_mark
    line = mark.line + 1 if mark is not None else 1
    problem = " ".join(part for part in (error.context, error.problem) if part)[:200]
    lines = text.split("\n")
    written = lines[line - 1] if line <= len(lines) else ""
    hint = ""
    unseen = next((c for c in written if c != "\t" and not c.isprintable()), None)
    if unseen is not None:
        hint = f"; the line contains {unseen!r}, which only looks like a space or like nothing"
    elif "\t" in problem or "'\\t'" in problem:
        hint = "; YAML indents with spaces, not tabs"
    elif "[" in problem and "[" in written:
        hint = '; between { } a range is put in quotes: "gpu[01-08]"'
    elif "mapping values" in problem:
        hint = "; text with ': ' in it is put in quotes"
    elif "another document" in problem:
        hint = "; a profile is one document, without a second '---'"
    return f"{source}:{line}: this is not YAML: {problem}{hint}"


class _Converter:
    """Each node is converted once, so aliases cost nothing however they are nested."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.mistakes: list[Mistake] = []
        self._done: dict[int, Value] = {}
        self._open: set[int] = set()

    def convert(self, node: Node) -> Value:
        known = self._done.get(id(node))
        if known is not None:
            return known
        place = Place(f"{self.source}:{node.start_mark.line + 1}", node.start_mark.line + 1)
        if id(node) in self._open:
            self._mistake(place, "an alias that contains itself")
            return Text(place, "")
        # A tag that is written has a handle; one that the loader resolved has none.
        if str(node.tag) not in _TAGS or node.ctag.handle is not None:
            self._mistake(place, f"the tag {str(node.tag)[:60]!r} is not read; remove it")
        self._open.add(id(node))
        value = self._parts(node, place)
        self._open.discard(id(node))
        self._done[id(node)] = value
        return value

    def _parts(self, node: Node, place: Place) -> Value:
        if isinstance(node, SequenceNode):
            return Items(place, tuple(self.convert(item) for item in node.value))
        if isinstance(node, MappingNode):
            entries = (self._entry(key, item) for key, item in node.value)
            return Entries(place, tuple(entry for entry in entries if entry is not None))
        assert isinstance(node, ScalarNode)
        return Text(place, str(node.value), plain=not node.style)

    def _entry(self, key: Node, item: Node) -> tuple[Text, Value] | None:
        left, right = self.convert(key), self.convert(item)
        if not isinstance(left, Text):
            self._mistake(left.place, "a key is a name, not a list or a mapping")
            return None
        if left.text == "<<" and left.plain:
            self._mistake(left.place, "the merge key '<<' is not read; write the keys out, or use host: gpu[01-08]")
            return None
        if isinstance(right, Text) and right.plain and not right.text:
            # Nothing stands there; the parser finds that out at what comes next, lines below.
            right = Text(left.place, "")
        return left, right

    def _mistake(self, place: Place, text: str) -> None:
        self.mistakes.append(Mistake(place, "", text))
