"""The part of YAML that configuration needs, read the same on every node: torch brings no YAML reader.

Known: mappings nested by indentation, plain and quoted text, numbers, true and false, null, `[a, b]`, `{a: 1}`,
comments. A number may be written 3e-4, 1.0e-3 or 65_536. All else (anchors, tags, block text, `- item`, tabs) is
refused with its line, never guessed at. JSON on one or more lines is read as JSON.
"""

from __future__ import annotations

import json
import re
from typing import Any

KEY = r"(?:\"[^\"]*\"|'[^']*'|[A-Za-z_][\w.-]*)"
ENTRY = re.compile(rf"({KEY})\s*:(?:\s+(.*))?$")
WORDS = {"true": True, "false": False, "null": None, "~": None, "": None}
# Quoted text may hold a #; a quote or a # inside a word is a part of it.
BEFORE_COMMENT = re.compile(r"""(?:[^"'#]|"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|(?<=[^\s\[{,])["'#])*""")
TOKEN = re.compile(r"\s*(\"(?:[^\"\\]|\\.)*\"|'(?:[^']|'')*'|[\[\]{},]|[^\[\]{},#]+)")


class YamlError(ValueError):
    """Text that is no YAML, or YAML that is not known here; the message begins with the line."""


def parse(text: str) -> Any:
    """The value that `text` holds: a mapping, in a configuration file; None for an empty one."""
    if text.lstrip().startswith(("{", "[")):
        try:
            return json.loads(text)
        except ValueError as error:
            raise YamlError(str(error)) from None
    lines = [
        (number, len(line) - len(line.lstrip()), bare)
        for number, line in enumerate(text.splitlines(), 1)
        if (bare := without_comment(line, number)) and bare != "---"
    ]
    values, rest = mapping(lines, 0)
    if rest:
        raise YamlError(f"line {rest[0][0]}: indented otherwise than the lines above it")
    return values or None


def without_comment(line: str, number: int) -> str:
    if "\t" in line:
        raise YamlError(f"line {number}: a tab; YAML indents with spaces")
    before = BEFORE_COMMENT.match(line)
    comment = before and line[before.end() :].startswith("#")
    return (before.group() if before and comment else line).strip()


def mapping(lines: list[tuple[int, int, str]], indent: int) -> tuple[dict[str, Any], list[tuple[int, int, str]]]:
    """The entries at `indent` and what they hold, and the lines behind them."""
    values: dict[str, Any] = {}
    while lines and lines[0][1] == indent:
        number, _, line = lines[0]
        found = ENTRY.match(line)
        if not found:
            raise YamlError(f"line {number}: {line[:60]!r} is no `key: value`")
        key, text = found.group(1).strip("\"'"), found.group(2) or ""
        if key in values:
            raise YamlError(f"line {number}: {key} is there twice")
        lines = lines[1:]
        if not text and lines and lines[0][1] > indent:
            values[key], lines = mapping(lines, lines[0][1])
        else:
            values[key] = value(text, number)
    return values, lines


def value(text: str, number: int = 1) -> Any:
    """What stands behind a key, or behind `=` on a command line."""
    text = text.strip()
    if text[:1] in ("[", "{"):
        tokens = [token.strip() for token in TOKEN.findall(text) if token.strip()]
        found, rest = flow(tokens, number)
        if rest:
            raise YamlError(f"line {number}: {rest[0]!r} behind the closing bracket")
        return found
    if text[:1] in ("&", "*", "!", "|", ">", "%", "@", "`") or text.startswith("- "):
        raise YamlError(
            f"line {number}: {text[:20]!r} is YAML that is not known here; put text in quotes, lists in [ ]"
        )
    return scalar(text, number)


def scalar(text: str, number: int) -> Any:
    if text[:1] in ("'", '"'):
        if len(text) < 2 or text[-1] != text[0]:
            raise YamlError(f"line {number}: the quote of {text[:20]} does not end")
        if text[0] == "'":
            return text[1:-1].replace("''", "'")
        try:
            return json.loads(text)
        except ValueError as error:
            raise YamlError(f"line {number}: {error}") from None
    if text in WORDS:
        return WORDS[text]
    if re.fullmatch(r"[-+]?\d[\d_]*", text):
        return int(text.replace("_", ""))
    if re.fullmatch(r"[-+]?(\d[\d_]*)?\.?\d+([eE][-+]?\d+)?|[-+]?\d+\.([eE][-+]?\d+)?", text):
        return float(text.replace("_", ""))
    return text


def flow(tokens: list[str], number: int) -> tuple[Any, list[str]]:
    """The list or mapping that the tokens begin with, and the tokens behind it."""
    opening, tokens = tokens[0], tokens[1:]
    items: list[Any] = []
    pairs: dict[str, Any] = {}
    closing = {"[": "]", "{": "}"}[opening]
    while tokens and tokens[0] != closing:
        if opening == "{":
            key, colon, text = tokens[0].partition(":")
            if not colon:
                raise YamlError(f"line {number}: {tokens[0]!r} is no `key: value`")
            tokens = ([text.strip()] if text.strip() else []) + tokens[1:]
        if tokens and tokens[0] in ("[", "{"):
            item, tokens = flow(tokens, number)
        elif tokens:
            item, tokens = scalar(tokens[0], number), tokens[1:]
        else:
            break
        if opening == "{":
            pairs[key.strip().strip("\"'")] = item
        else:
            items.append(item)
        if tokens and tokens[0] == ",":
            tokens = tokens[1:]
        elif tokens and tokens[0] != closing:
            raise YamlError(f"line {number}: a comma is missing before {tokens[0]!r}")
    if not tokens:
        raise YamlError(f"line {number}: {opening} does not end")
    return (items if opening == "[" else pairs), tokens[1:]
