"""Profiles in and out of YAML, and changed from the command line."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString

from engine.errors import ProfileError
from engine.hosts import expand_names, fold
from engine.profile import rules
from engine.profile.read import NULLS, Reader, plain_data
from engine.profile.source import MAX_BYTES, Entries, Items, Mistake, Place, Text, parse

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from engine.profile.model import Node, Profile
    from engine.profile.source import Value

Data: TypeAlias = Any

MAX_MISTAKES = 500

_STEP = re.compile(r"([^.\[\]=]+)|\[([0-9]{1,6})\]")
# What may stand without quotes wherever it is; the writer itself quotes `true`, `1` and the like.
_PLAIN = re.compile(r"(?:[A-Za-z0-9_./]|--?[A-Za-z0-9])(?:[A-Za-z0-9_./~+=@% -]*[A-Za-z0-9_./~+=@%-])?", re.ASCII)
_BLOCK = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?\n)+", re.ASCII)
_FLOW_KEYS = frozenset({"args", "devices", "secrets", "extra", "srun_extra"})


def load(path: str | Path) -> Profile:
    """The profile in a file. Raises ProfileError with every mistake, or with why the file cannot be read."""
    return decode(read_bytes(Path(path)), str(path))


def decode(text: str | bytes, source: str) -> Profile:
    """The profile in `text`; `source` names it in messages. Host ranges become one node each.

    Raises ProfileError with every mistake at once, each as `source:line: key: what was found; what is allowed`.
    """
    value, mistakes = parse(text, source)
    return _judged(value, source, mistakes)


def to_yaml(profile: Profile) -> str:
    """YAML that `decode` reads back to the same profile; what holds its default is left out."""
    data = plain_data(profile)
    if "nodes" in data:
        data["nodes"] = fold_nodes(profile.nodes)
    stream = io.StringIO()
    writer().dump(styled(data), stream)
    return stream.getvalue()


def override(profile: Profile, settings: Sequence[str]) -> Profile:
    """`profile` with `KEY=VALUE` settings applied in order: `batch.per_device=8`, `nodes[1].gpus=4`, `env.A=1`.

    A list or mapping is written as YAML flow: `program.args=["--epochs", "3"]`. Raises ProfileError; each mistake names
    its flag.
    """
    if not settings:
        return profile
    flags = " ".join(f"--set {setting}" for setting in settings)
    root = _value(plain_data(profile), Place(f"with {flags[:200]}"))
    mistakes: list[Mistake] = []
    for setting in settings:
        place = Place(f"--set {setting[:120]}")
        try:
            steps, text = _setting(setting)
            value, found = _flag_value(text, steps, place)
            mistakes += [Mistake(place, "", mistake.text) for mistake in found]
            root = _changed(root, steps, value, place)
        except ProfileError as error:
            mistakes += [Mistake(place, "", mistake.partition(": ")[2]) for mistake in error.mistakes]
        except ValueError as error:
            mistakes.append(Mistake(place, "", str(error)))
    return _judged(root, "--set", mistakes)


def judge(data: Mapping[str, Data]) -> tuple[Profile, dict[str, str]]:
    """What `decode` says of a profile that is still being written: mappings, lists, and the text of every value.

    The profile, with something harmless where it cannot be read, and every mistake by its path (`batch.per_device`).
    Host ranges stay as they are.
    """
    profile, found = _read(_value(data, Place("")))
    mistakes: dict[str, str] = {}
    for mistake in sorted(found, key=_line):
        earlier = mistakes.get(mistake.path)
        mistakes[mistake.path] = f"{earlier}; {mistake.text}" if earlier else mistake.text
    return profile, mistakes


def read_bytes(path: Path) -> bytes:
    """The bytes of a profile file; ProfileError where it is missing, no plain file, unreadable or far too big."""
    try:
        if path.is_dir():
            raise ProfileError(str(path), [f"{path}: this is a folder; name the file in it"])
        if path.exists() and not path.is_file():
            raise ProfileError(str(path), [f"{path}: this is not a plain file"])
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ProfileError(str(path), [f"{path}: cannot be read: {reason}"]) from None


def fold_nodes(nodes: Sequence[Node]) -> list[dict[str, Data]]:
    """Nodes as data; neighbours that differ in their host's number alone become one entry with a range."""
    entries: list[tuple[Node, list[str]]] = []
    for node in nodes:
        if entries and _same_but_host(entries[-1][0], node) and "[" in fold([*entries[-1][1], node.host]):
            folded = fold([*entries[-1][1], node.host])
            if "," not in re.sub(r"\[[^\]]*\]", "", folded):
                entries[-1][1].append(node.host)
                continue
        entries.append((node, [node.host]))
    return [{**_node_data(node), "host": fold(hosts)} for node, hosts in entries]


def _same_but_host(left: Node, right: Node) -> bool:
    return not left.addr and msgspec.structs.replace(left, host=right.host) == right


def _node_data(node: Node) -> dict[str, Data]:
    return {
        field.name: list(value) if isinstance(value, tuple) else value
        for field in msgspec.structs.fields(node)
        if (value := getattr(node, field.name)) != field.default
    }


def _read(value: Value) -> tuple[Profile, list[Mistake]]:
    """The profile as written, with something harmless where it cannot be read; and every mistake in it."""
    reader = Reader()
    profile = reader.profile(value)
    for path, text in rules.problems(profile):
        if not reader.is_broken(path):
            reader.mistakes.append(Mistake(reader.place(path), path, text))
    return profile, reader.mistakes


def _line(mistake: Mistake) -> int:
    return mistake.place.line


def _judged(value: Value, source: str, earlier: Sequence[Mistake] = ()) -> Profile:
    profile, mistakes = _read(value)
    if mistakes or earlier:
        said = [str(mistake) for mistake in sorted([*earlier, *mistakes], key=_line)]
        more = len(said) - MAX_MISTAKES
        raise ProfileError(source, said if more <= 0 else [*said[:MAX_MISTAKES], f"and {more:,} more"])
    nodes = [msgspec.structs.replace(node, host=host) for node in profile.nodes for host in expand_names(node.host)]
    return msgspec.structs.replace(profile, nodes=tuple(nodes))


def _value(data: Data, place: Place) -> Value:
    if isinstance(data, dict):
        return Entries(place, tuple((Text(place, key), _value(item, place)) for key, item in data.items()))
    if isinstance(data, list):
        return Items(place, tuple(_value(item, place) for item in data))
    if isinstance(data, str):
        return Text(place, data, plain=data not in NULLS)
    text = {True: "true", False: "false"}[data] if isinstance(data, bool) else repr(data)
    return Text(place, text)


def _setting(setting: str) -> tuple[list[str | int], str]:
    key, equals, text = setting.partition("=")
    if not equals:
        raise ValueError("no '='; write KEY=VALUE, such as batch.per_device=8")
    steps: list[str | int] = []
    position = 0
    while position < len(key):
        match = _STEP.match(key, position)
        if match is None:
            raise ValueError(f"{key[:60]!r} is no key; write it as batch.per_device or nodes[1].gpus")
        steps.append(match[1] if match[2] is None else int(match[2]))
        position = match.end() + (key[match.end() : match.end() + 1] == "." and match.end() + 1 < len(key))
    if not steps or isinstance(steps[0], int):
        raise ValueError("no key before '='; write KEY=VALUE, such as batch.per_device=8")
    return steps, text


def _flag_value(text: str, steps: Sequence[str | int], place: Place) -> tuple[Value, list[Mistake]]:
    """The value of a flag: a YAML flow list or mapping where the key takes one, otherwise text as it stands."""
    takes_text = (len(steps) > 1 and steps[0] == "env") or (isinstance(steps[-1], int) and steps[0] != "nodes")
    if text[:1] in ("[", "{") and not takes_text:
        value, mistakes = parse(text, "--set")
        return _placed(value, place), mistakes
    return Text(place, text), []


def _placed(value: Value, place: Place) -> Value:
    if isinstance(value, Entries):
        return Entries(place, tuple((Text(place, key.text), _placed(item, place)) for key, item in value.entries))
    if isinstance(value, Items):
        return Items(place, tuple(_placed(item, place) for item in value.items))
    return Text(place, value.text, plain=value.plain)


def _changed(value: Value | None, steps: list[str | int], new: Value, place: Place) -> Value:
    if not steps:
        return new
    step, rest = steps[0], steps[1:]
    if isinstance(step, int):
        items = value.items if isinstance(value, Items) else ()
        if step >= len(items):
            raise ValueError(f"there is no [{step}]; the list has {len(items)} (counted from 0)")
        return Items(place, (*items[:step], _changed(items[step], rest, new, place), *items[step + 1 :]))
    if value is not None and not isinstance(value, Entries):
        raise ValueError(f"{step!r} is a key of nothing: a single value or a list stands before it")
    entries = value.entries if value is not None else ()
    inner = next((item for key, item in entries if key.text == step), None)
    changed = (Text(place, step), _changed(inner, rest, new, place))
    if inner is None:
        return Entries(place, (*entries, changed))
    return Entries(value.place if value else place, tuple(changed if e[0].text == step else e for e in entries))


def writer() -> YAML:
    """A round-trip writer in the house's layout."""
    yaml = YAML()
    yaml.width = 4096
    yaml.preserve_quotes = True
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def styled(data: Data, key: str = "") -> Data:
    """Data for the writer: lists of words on one line, everything else in blocks."""
    if isinstance(data, dict):
        return CommentedMap((name, styled(value, name)) for name, value in data.items())
    if isinstance(data, (list, tuple)):
        items = CommentedSeq(styled(item) for item in data)
        if key in _FLOW_KEYS:
            items.fa.set_flow_style()
        return items
    if isinstance(data, str) and "\n" in data and _BLOCK.fullmatch(data):
        return LiteralScalarString(data)
    if isinstance(data, str) and not _PLAIN.fullmatch(data):
        return DoubleQuotedScalarString(data)
    return data
