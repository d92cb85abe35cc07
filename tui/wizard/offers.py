"""Hosts that the nodes step offers: those of the ssh configuration, and those of the profiles on this workstation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from engine import profile, shelf
from engine.errors import ProfileError
from engine.hosts import LOCAL
from engine.ssh.config import SshConfig

if TYPE_CHECKING:
    from collections.abc import Iterable


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """A host, and where it is known from."""

    host: str
    origin: str


def offers() -> list[Offer]:
    """Hosts by name, each once: this machine, the ssh configuration's, the profiles'. Reads files."""
    found = {LOCAL: "this machine, without ssh"}
    for host in SshConfig().named_hosts():
        found.setdefault(host, "ssh config")
    for host, name in _of_profiles():
        found.setdefault(host, f"profile {name}")
    return [Offer(host=host, origin=origin) for host, origin in found.items()]


def _of_profiles() -> Iterable[tuple[str, str]]:
    for shelved in shelf.listing():
        if shelved.error is None:
            try:
                nodes = profile.load(shelved.path).nodes
            except ProfileError:
                continue
            yield from ((node.host, shelved.name) for node in nodes)
