"""What a rule is: a text that programs print, what it means, and what to do about it."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

Role = Literal["root", "victim", "advice"]
Where = Literal["raised", "line", "node"]

SURE = 95
"""Weight of a root that yields to no other; of a lower weight the higher ones come first."""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of the table. The `id` is stable: programs may depend on it.

    role      root: can be what went wrong first; victim: says that something elsewhere did; advice: no failure at all
    texts     patterns of what is printed, tolerant of versions, the more telling first; named groups are for `says` and
              `remedy`, and `suspect` names the rank that the text accuses
    where     raised: an exception, or what a C++ program said as it ended; line: any line of a rank or of torchrun that
              failed without saying why; node: such a line ends what runs on the node, whoever wrote it
    says      what happened, to be read after “rank 3 on node 1 …”; `[…]` is left out where a name in it has no value
    remedy    a command or a change of the profile
    sure      how sure the verdict is, 0 to 1
    weight    roots below SURE are roots only where no heavier one is; of victims the heavier tells more
    unless    no line of the same rank may say so
    also      other lines of the same rank that are evidence
    """

    id: str
    role: Role = "root"
    texts: tuple[str, ...]
    where: tuple[Where, ...] = ("raised",)
    says: str
    remedy: str
    sure: float = 0.9
    weight: int = SURE
    unless: str = ""
    also: str = ""

    def search(self, text: str) -> re.Match[str] | None:
        """The first of the texts that is found."""
        for pattern in self.texts:
            if found := compiled(pattern).search(text):
                return found
        return None


@functools.cache
def compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


OPTIONAL = re.compile(r"\[([^\[\]]*)\]")
NAME = re.compile(r"\{(\w+)\}")


def fill(template: str, values: Mapping[str, str | None]) -> str:
    """`template` with its {names}; a part in [brackets] is left out where a name in it has no value."""

    def put(text: str) -> str:
        return NAME.sub(lambda name: values.get(name[1]) or "…", text)

    def part(found: re.Match[str]) -> str:
        return put(found[1]) if all(values.get(name) for name in NAME.findall(found[1])) else ""

    # Values may hold brackets of their own: the optional parts are decided before anything is put in.
    pieces: list[str] = []
    end = 0
    for found in OPTIONAL.finditer(template):
        pieces += [put(template[end : found.start()]), part(found)]
        end = found.end()
    return "".join([*pieces, put(template[end:])])
