"""Commands for remedies, as a user types them at the workstation, and settings that take what a node has. Pure."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from engine.hosts import LOCAL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine.preflight.findings import Seen
    from engine.profile import Node, Profile


def login(node: Node) -> str:
    """What ssh is called with: `-p 2222 ml@gpu02`."""
    return f"{f'-p {node.port} ' if node.port else ''}{f'{node.user}@' if node.user else ''}{node.host}"


def there(node: Node, command: str) -> str:
    """A command of a shell, run on a node."""
    return command if node.host == LOCAL else f"ssh {login(node)} {shlex.quote(command)}"


def copied(profile: Profile, source: int, to: int, names: Sequence[str]) -> str:
    """Copy files of the program, named from the working folder or absolutely, from one node to another."""
    ends = [profile.nodes[source], profile.nodes[to]]
    root = next((root for root in ("/", "~/") if names[0].startswith(root)), "")
    from_, into = (_quoted(root or node.workdir or profile.program.workdir or "~") for node in ends)
    files = shlex.join(name.removeprefix(root) for name in names)
    pack, unpack = f"cd {from_} && tar -cf - {files}", f"mkdir -p {into} && cd {into} && tar -xf -"
    return f"{there(ends[0], pack)} | {there(ends[1], unpack)}"


def _quoted(path: str) -> str:
    """For a shell, which still finds the home folder for a tilde."""
    if path == "~" or path.startswith("~/"):
        return "~/" + shlex.quote(path[2:]) if path[2:] else "~"
    return shlex.quote(path)


def activation(seen: Seen, rank: int, wanted: str = "") -> list[str]:
    """The setting that activates an environment that a node has, if need be with this torch; [] where it has none."""
    observed = seen.node(rank)
    line = seen.profile.nodes[rank].activate or seen.profile.program.activate
    there = observed.python.environments if observed is not None else ()
    fitting = [e for e in there if e.activate != line and (e.torch == wanted if wanted else True)]
    fitting.sort(key=lambda environment: not environment.torch)
    return [f"nodes[{rank}].activate={fitting[0].activate}"] if fitting else []
