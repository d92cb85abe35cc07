"""Profiles kept in files: saved with the user's comments and order, whole or not at all."""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import io
import os
import re
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import LiteralScalarString

from engine.errors import ProfileError, RequestError
from engine.hosts import expand_names
from engine.profile.codec import decode, fold_nodes, read_bytes, styled, to_yaml, writer
from engine.profile.layout import merged
from engine.profile.read import plain_data, sparse

if TYPE_CHECKING:
    from ruamel.yaml import YAML

    from engine.profile.model import Node, Profile


def fingerprint(path: str | Path) -> str:
    """What is in the file now, as a SHA-256; "" where there is none. Take it when loading, give it to `save`."""
    file = Path(path)
    return hashlib.sha256(read_bytes(file)).hexdigest() if file.exists() else ""


def save(path: str | Path, profile: Profile, *, seen: str | None = None) -> None:
    """Write `profile` to `path`, keeping the comments and the order of what is there. A symbolic link stays one.

    `seen` is the file's `fingerprint` when the caller last looked ("" = no file): RequestError when it is another now.
    ProfileError when what is there is no valid profile. The file is replaced by rename, so it is the old or the new.
    """
    target = Path(os.path.realpath(path))
    if seen is not None and fingerprint(target) != seen:
        raise RequestError(f"{path} has changed on disk", remedy="load it again, or save under another name")
    text = _saved_text(target, profile)
    try:
        _replace(target, text.encode())
    except OSError as error:
        raise RequestError(f"{path} cannot be written: {error.strerror or error}") from error


def difference(path: str | Path, profile: Profile) -> str:
    """What `save` would change, as a unified diff; "" for nothing."""
    target = Path(os.path.realpath(path))
    before = _current(target) or ""
    after = _saved_text(target, profile)
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), str(path), f"{path} (to be saved)"
    )
    return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)


def _current(target: Path) -> str | None:
    return read_bytes(target).decode("utf-8", "replace") if target.exists() else None


def _saved_text(target: Path, profile: Profile) -> str:
    text = _current(target)
    if text is None:
        return to_yaml(profile)
    old = decode(read_bytes(target), str(target))
    return text if old == profile else _updated(text, old, profile)


def _updated(text: str, old: Profile, new: Profile) -> str:
    """The user's own document with the differing parts replaced; where that goes wrong, whole sections are.

    What comes out is read back: RequestError rather than a file that says something else.
    """
    newline = "\r\n" if "\r\n" in text else "\n"
    mark = text[: text.startswith("\ufeff")]
    written = text.removeprefix(mark).replace("\r\n", "\n")
    yaml = _writer_like(written)
    for update, merge in ((_update_fields, merged), (_update_fields, _anew), (_update_sections, _anew)):
        with contextlib.suppress(YAMLError, ProfileError, ValueError, TypeError, KeyError, IndexError, AttributeError):
            document = yaml.load(written)
            before = _dumped(yaml, document)
            update(document, old, new)
            updated = merge(written, before, _dumped(yaml, document))
            if decode(updated, "") == new:
                return mark + updated.replace("\n", newline)
    raise RequestError("this file's YAML cannot be changed in place", remedy="save under another name")


def _anew(written: str, before: str, after: str) -> str:
    return after


def _dumped(yaml: YAML, document: CommentedMap) -> str:
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


def _writer_like(text: str) -> YAML:
    yaml = writer()
    dash = re.search(r"^( *)[\w-]+:[^\S\n]*(?:#[^\n]*)?\n(?:[^\S\n]*(?:#[^\n]*)?\n)*( *)- ", text, re.MULTILINE)
    if dash is not None and len(dash[2]) <= len(dash[1]):
        yaml.indent(mapping=2, sequence=2, offset=0)
    yaml.explicit_start = text.startswith("---")
    return yaml


def _update_sections(document: CommentedMap, old: Profile, new: Profile) -> None:
    data = plain_data(new)
    for key in (field.name for field in msgspec.structs.fields(new)):
        if getattr(old, key) == getattr(new, key):
            continue
        document.pop(key, None)
        if key in data:
            document[key] = styled(fold_nodes(new.nodes) if key == "nodes" else data[key], key)


def _update_fields(target: CommentedMap, old: msgspec.Struct, new: msgspec.Struct) -> None:
    """The fields that differ, in place; an empty value removes its key."""
    for field in msgspec.structs.fields(new):
        _update_key(target, field.name, getattr(old, field.name), getattr(new, field.name))


def _update_key(target: CommentedMap, key: str, old: Any, new: Any) -> None:
    inner = target.get(key)
    if old == new:
        return
    if new in (None, "", (), {}):
        target.pop(key, None)
    elif key == "nodes" and isinstance(inner, CommentedSeq):
        _update_nodes(inner, old, new)
    elif isinstance(inner, CommentedMap) and isinstance(new, msgspec.Struct) and old is not None:
        _update_fields(inner, old, new)
    elif isinstance(inner, CommentedMap) and isinstance(new, dict):
        for name in dict.fromkeys([*old, *new]):
            if name not in new:
                inner.pop(name, None)
            elif old.get(name) != new[name]:
                inner[name] = styled(new[name])
    elif isinstance(inner, CommentedSeq) and isinstance(new, tuple):
        del inner[len(new) :]
        for i, item in enumerate(new):
            if i >= len(inner):
                inner.append(styled(item))
            elif item != old[i]:
                inner[i] = styled(item)
    else:
        if isinstance(inner, LiteralScalarString):
            # The writer has no place for a comment behind "|" once there is none.
            target.ca.items.pop(key, None)
        target[key] = styled(fold_nodes(new) if key == "nodes" else sparse(new), key)


def _update_nodes(entries: CommentedSeq, old: tuple[Node, ...], new: tuple[Node, ...]) -> None:
    """Entries whose hosts stay keep their place and comments; from the first other host on, all is written anew."""
    start = 0
    for i, entry in enumerate(list(entries)):
        count = len(expand_names(str(entry["host"])))
        before, after = old[start : start + count], new[start : start + count]
        alike = len({msgspec.json.encode(msgspec.structs.replace(node, host="")) for node in after}) == 1
        if [node.host for node in before] != [node.host for node in after] or not alike:
            del entries[i:]
            break
        _update_fields(entry, before[0], after[0])
        start += count
    entries.extend(styled(fold_nodes(new[start:])))


def _replace(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else 0o600
    descriptor, beside = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(beside).replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(beside).unlink()
        raise
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
