"""Parts of a YAML document to a Profile, by the types of its fields; every mistake is noted and reading goes on.

A part that cannot be read is stood in for, and its path remembered as broken, so that rules about the whole profile can
still be checked and nothing is said twice.
"""

from __future__ import annotations

import difflib
import math
import re
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import inspect

from engine.errors import RequestError
from engine.hosts import expand
from engine.profile.model import Node, Profile
from engine.profile.source import Entries, Items, Mistake, Place, Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from engine.profile.source import Value

_INT = re.compile(r"[+-]?[0-9]{1,15}")
_FLOAT = re.compile(r"[+-]?([0-9]{1,30}(\.[0-9]{0,30})?|\.[0-9]{1,30})([eE][+-]?[0-9]{1,3})?")
NULLS = ("", "~", "null", "Null", "NULL")
_BOOLS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}


class Reader:
    """Reads one document; `mistakes`, `places` (of every path read) and `broken` paths are filled on the way."""

    def __init__(self) -> None:
        self.mistakes: list[Mistake] = []
        self.places: dict[str, Place] = {}
        self.broken: set[str] = set()

    def profile(self, value: Value) -> Profile:
        profile = self._read(value, inspect.type_info(Profile), "")
        assert isinstance(profile, Profile)
        return profile

    def place(self, path: str) -> Place:
        """Where `path` is written, or else the nearest thing around it."""
        while path and path not in self.places:
            path = _parent(path)
        return self.places.get(path, Place("profile"))

    def is_broken(self, path: str) -> bool:
        """Whether this path, or something around it, could not be read."""
        while path:
            if path in self.broken:
                return True
            path = _parent(path)
        return "" in self.broken

    def _read(self, value: Value, kind: inspect.Type, path: str) -> Any:
        self.places[path] = value.place
        match kind:
            case inspect.StructType():
                return self._struct(value, kind, path)
            case inspect.VarTupleType():
                return self._tuple(value, kind, path)
            case inspect.DictType():
                return self._dict(value, path)
            case inspect.UnionType():
                return self._union(value, kind, path)
            case _:
                return self._scalar(value, kind, path)

    def _struct(self, value: Value, kind: inspect.StructType, path: str) -> Any:
        if not isinstance(value, Entries):
            keys = ", ".join(field.encode_name for field in kind.fields)
            return self._fail(value, kind, path, f"a mapping with the keys {keys}")
        fields = {field.encode_name: field for field in kind.fields}
        given: dict[str, Value] = {}
        for key, item in self._unique(value, path):
            if key.text in fields:
                given[key.text] = item
            else:
                self._note(key.place, _join(path, key.text[:60]), _unknown(key.text, fields))
        found: dict[str, Any] = {}
        for name, field in fields.items():
            at = _join(path, name)
            if name in given and isinstance(field.type, inspect.StrType) and _is_null(given[name], field.type):
                self.places[at] = given[name].place
                found[name] = ""
            elif name in given and (field.required or not _is_null(given[name], field.type)):
                found[name] = self._read(given[name], field.type, at)
                if at in self.broken and not field.required:
                    del found[name]
            elif field.required:
                self._note(value.place, at, f"missing; it takes {describe(field.type)}")
                self.broken.add(at)
                found[name] = _stand_in(field.type)
        return kind.cls(**found)

    def _tuple(self, value: Value, kind: inspect.VarTupleType, path: str) -> Any:
        if isinstance(kind.item_type, inspect.StructType) and kind.item_type.cls is Node:
            value = self._nodes(value, path)
        if not isinstance(value, Items):
            return self._fail(value, kind, path, describe(kind))
        return tuple(self._read(item, kind.item_type, f"{path}[{i}]") for i, item in enumerate(value.items))

    def _nodes(self, value: Value, path: str) -> Value:
        """The list of nodes, with what is a host list in it (a pasted hostfile, a Slurm node list) written out."""
        if not isinstance(value, Text | Items) or (isinstance(value, Text) and _is_no_host(value)):
            return value
        nodes: list[Value] = []
        for item in value.items if isinstance(value, Items) else (value,):
            if not isinstance(item, Text) or _is_no_host(item):
                nodes.append(item)
                continue
            try:
                hosts = expand(item.text)
            except RequestError as error:
                self._note(item.place, path, f"{error.text}; {error.remedy}" if error.remedy else error.text)
                self.broken.add(path)
                continue
            for host in hosts:
                said = {"host": host.host, "user": host.user, "port": host.port, "gpus": host.slots}
                keys = ((Text(item.place, name), said[name]) for name in said if said[name])
                nodes.append(Entries(item.place, tuple((key, Text(item.place, str(text))) for key, text in keys)))
        return Items(value.place, tuple(nodes))

    def _dict(self, value: Value, path: str) -> dict[str, str]:
        if not isinstance(value, Entries):
            self._note(value.place, path, f"found {_found(value)}; allowed: a mapping of names to values")
            self.broken.add(path)
            return {}
        return {
            key.text: self._read(item, inspect.StrType(), _join(path, key.text[:60]))
            for key, item in self._unique(value, path)
        }

    def _union(self, value: Value, kind: inspect.UnionType, path: str) -> Any:
        if _is_null(value, kind) and any(isinstance(option, inspect.NoneType) for option in kind.types):
            return None
        options = [option for option in kind.types if not isinstance(option, inspect.NoneType)]
        if isinstance(value, Text):
            for option in options:
                if isinstance(option, inspect.LiteralType) and value.text in option.values:
                    return value.text
        number = next(option for option in options if not isinstance(option, inspect.LiteralType))
        if len(options) == 1:
            return self._read(value, number, path)
        if isinstance(value, Text) and value.plain and _INT.fullmatch(value.text):
            return int(value.text)
        return self._fail(value, kind, path, describe(kind))

    def _scalar(self, value: Value, kind: inspect.Type, path: str) -> Any:
        if not isinstance(value, Text):
            return self._fail(value, kind, path, describe(kind))
        text = value.text
        match kind:
            case inspect.StrType():
                bad = next((c for c in text if c == "\0" or 0xD800 <= ord(c) < 0xE000), None)
                if bad is None:
                    return text
                return self._fail(value, kind, path, f"text without {bad!r}")
            case inspect.LiteralType():
                options = {str(option): option for option in kind.values}
                if text in options:
                    return options[text]
                close = difflib.get_close_matches(text, options, n=1)
                return self._fail(value, kind, path, describe(kind), f"; did you mean {close[0]}?" if close else "")
            case inspect.BoolType():
                if value.plain and text in _BOOLS:
                    return _BOOLS[text]
            case inspect.IntType():
                if value.plain and _INT.fullmatch(text):
                    return int(text)
            case inspect.FloatType():
                if value.plain and _FLOAT.fullmatch(text) and math.isfinite(float(text)):
                    return float(text)
            case _:
                raise AssertionError(f"a profile has no field of type {kind}")
        return self._fail(value, kind, path, describe(kind))

    def _unique(self, value: Entries, path: str) -> Iterable[tuple[Text, Value]]:
        first: dict[str, Text] = {}
        for key, item in value.entries:
            if key.text in first:
                before = first[key.text].place.where
                self._note(key.place, _join(path, key.text[:60]), f"written twice (first at {before}); keep one")
                continue
            first[key.text] = key
            yield key, item

    def _fail(self, value: Value, kind: inspect.Type, path: str, allowed: str, hint: str = "") -> Any:
        self._note(value.place, path, f"found {_found(value)}; allowed: {allowed}{hint}")
        self.broken.add(path)
        return _stand_in(kind)

    def _note(self, place: Place, path: str, text: str) -> None:
        self.mistakes.append(Mistake(place, path, text))


def describe(kind: inspect.Type) -> str:
    """What a field of this type takes, in a user's words."""
    match kind:
        case inspect.StrType():
            return "text"
        case inspect.IntType():
            return "a whole number, without quotes"
        case inspect.FloatType():
            return "a number such as 2.0e-4, without quotes"
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType():
            return ", ".join(str(value) for value in kind.values)
        case inspect.VarTupleType():
            return f"a list of {_PLURALS.get(type(kind.item_type), 'parts')}, such as {_example(kind.item_type)}"
        case inspect.DictType():
            return "a mapping of names to values"
        case inspect.StructType():
            return f"a mapping with the keys {', '.join(field.encode_name for field in kind.fields)}"
        case inspect.UnionType():
            return ", or ".join(describe(option) for option in kind.types if not isinstance(option, inspect.NoneType))
        case _:
            return "nothing"


_PLURALS = {inspect.StrType: "texts", inspect.IntType: "whole numbers", inspect.StructType: "nodes"}


def _example(kind: inspect.Type) -> str:
    examples = {inspect.StrType: '["--batch", "4"]', inspect.IntType: "[0, 1]", inspect.StructType: "`- host: gpu01`"}
    return next((text for option, text in examples.items() if isinstance(kind, option)), "[]")


def _stand_in(kind: inspect.Type) -> Any:
    """A harmless value of that type."""
    match kind:
        case inspect.StructType():
            found = {field.encode_name: _stand_in(field.type) for field in kind.fields if field.required}
            return kind.cls(**found)
        case inspect.LiteralType():
            return next(iter(kind.values))
        case inspect.VarTupleType():
            return ()
        case inspect.DictType():
            return {}
        case inspect.UnionType():
            if any(isinstance(option, inspect.NoneType) for option in kind.types):
                return None
            return _stand_in(kind.types[0])
        case inspect.IntType() | inspect.FloatType():
            return 1
        case inspect.BoolType():
            return False
        case _:
            return ""


def _unknown(key: str, fields: Iterable[str]) -> str:
    names = list(fields)
    if bad := next((c for c in key if not c.isprintable()), None):
        return f"unknown key; it contains {bad!r}, which only looks like a space or like nothing"
    close = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"unknown key; {hint}allowed: {', '.join(names)}"


def _found(value: Value) -> str:
    if isinstance(value, Items):
        return "a list"
    if isinstance(value, Entries):
        return "a mapping"
    if _is_null(value, inspect.StrType()):
        return "nothing"
    shown = value.text if len(value.text) <= 60 else value.text[:57] + "..."
    return repr(shown) if value.plain else f"the quoted text {shown!r}"


def _is_null(value: Value, kind: inspect.Type) -> bool:
    """Whether nothing is given. A lone `~` is YAML's null, and the home folder where text is wanted."""
    if not (isinstance(value, Text) and value.plain and value.text in NULLS):
        return False
    return value.text != "~" or not isinstance(kind, inspect.StrType)


def _is_no_host(value: Text) -> bool:
    """Whether this cannot be meant as a host: nothing, a number, true or false."""
    return value.plain and (value.text in (*NULLS, *_BOOLS) or _FLOAT.fullmatch(value.text) is not None)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _parent(path: str) -> str:
    return path[: max(path.rfind("."), path.rfind("["), 0)]


def plain_data(profile: Profile) -> dict[str, Any]:
    """The profile as builtins, without the fields that hold their default."""
    found = sparse(profile)
    assert isinstance(found, dict)
    return found


def sparse(value: Any) -> Any:
    """A struct, or what a field holds, as builtins without defaults."""
    if isinstance(value, msgspec.Struct):
        fields = msgspec.structs.fields(type(value))
        return {
            field.name: sparse(getattr(value, field.name))
            for field in fields
            if field.required or getattr(value, field.name) != field_default(field)
        }
    if isinstance(value, tuple):
        return [sparse(item) for item in value]
    return dict(value) if isinstance(value, dict) else value


def field_default(field: msgspec.structs.FieldInfo) -> Any:
    """The value of a field that is not written."""
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default
