"""The bash text that one node runs: the only place where data is quoted for a shell. Pure.

`bash -c SCRIPT` is what the supervisor starts; `pasteable` wraps the same bytes for a terminal. A leading `~/` is the
node's home folder, in paths, arguments and values alike, as a shell would have it; everything else is literal.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# Set by the supervisor; a pasted script writes below its working folder instead.
LOG_DIR = '"${RANKDECK_RUN_DIR:-.}/ranks"'

_SIMPLE_LINE = re.compile(r"""[A-Za-z0-9_./~:@%+=,"'$ -]+""")
_SPELLED = str.maketrans({"\t": r"\t", "\n": r"\n", "\\": r"\\", "'": r"\'", "!": r"\x21"})
_CONTINUED = " \\\n  "


def quote(word: str) -> str:
    """One word for bash. Raises ValueError for NUL, which no argument can hold."""
    if "\0" in word:
        raise ValueError("an argument cannot hold a NUL character")
    if word == "~":
        return word
    if word.startswith("~/"):
        return "~/" + (_quoted(word[2:]) if word[2:] else "")
    return _quoted(word)


def script(
    *, workdir: str, activate: str, exports: Mapping[str, str], exported_raw: Mapping[str, str], argv: Sequence[str]
) -> str:
    """Change folder, activate, export, and become the program; the first step that fails ends it.

    `argv` is a list of lines, each already quoted. `exported_raw` holds variables whose value is bash text of ours.
    """
    steps = [f"cd {quote(workdir or '~')}"]
    if activate.strip():
        steps.append(_activation(activate))
    steps += [f"export {name}={quote(value)}" for name, value in exports.items()]
    steps += [f"export {name}={value}" for name, value in exported_raw.items()]
    return " &&\n".join([*steps, "exec " + _CONTINUED.join(argv)]) + "\n"


def pasteable(text: str) -> str:
    """The same script for a terminal: bash reads it from a here-document, so the user's own shell is not replaced."""
    mark = "RANKDECK"
    while mark in text.split("\n"):
        mark += "_"
    return f"bash <<'{mark}'\n{text}{mark}\n"


def words(*items: str) -> str:
    """A line of quoted words."""
    return " ".join(quote(item) for item in items)


def _quoted(word: str) -> str:
    """A tab pasted into a terminal asks the shell to complete a word: it is spelled out."""
    return "$'" + word.translate(_SPELLED) + "'" if "\t" in word else shlex.quote(word)


def _activation(activate: str) -> str:
    """The user's own shell text; in braces where `&&` after it would bind to a part or vanish in a comment."""
    text = activate.strip()
    return text if _SIMPLE_LINE.fullmatch(text) else "{ " + text.replace("\n", "\n  ") + "\n}"
