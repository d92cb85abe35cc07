"""The processes of one pid namespace, read from outside it."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Process(NamedTuple):
    """A process of a host. `pid` and `parent` count as the host does; `outer` is its pid on the machine itself."""

    pid: int
    cmdline: tuple[str, ...]
    environ: dict[str, str]
    name: str
    state: str
    parent: int
    outer: int

    @property
    def job(self) -> str:
        """The run marker that Rankdeck puts into the environment of everything that it starts; "" without one."""
        return self.environ.get("RANKDECK_JOB", "")

    def __repr__(self) -> str:
        job = f" of {self.job}" if self.job else ""
        return f"<{self.pid} {self.state} {' '.join(self.cmdline)[:120] or self.name}{job}>"


def _status(folder: Path) -> dict[str, str]:
    lines = (line.partition(":") for line in (folder / "status").read_text(errors="replace").splitlines())
    return {key: value.strip() for key, _, value in lines}


def _strings(path: Path) -> list[str]:
    try:
        return path.read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return []


def child_of(parent: int) -> int:
    """The first child of a process of this machine; 0 while it has none."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int(_status(folder)["PPid"]) == parent:
                return int(folder.name)
        except (OSError, KeyError):
            continue
    return 0


def processes_of(init: int) -> list[Process]:
    """Every process in the pid namespace of `init`, by pid: zombies too, where it is the host's own to reap them.

    What is started in a host from outside (`Host.start`) has its parent outside, and so has its zombie.
    """
    try:
        namespace = Path(f"/proc/{init}/ns/pid").readlink()
    except OSError:
        return []
    found: list[tuple[dict[str, str], Path]] = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if (folder / "ns/pid").readlink() == namespace:
                found.append((_status(folder), folder))
        except OSError:
            continue
    inner = {folder.name: int(status["NSpid"].split()[-1]) for status, folder in found}
    return sorted(
        Process(
            pid=inner[folder.name],
            cmdline=tuple(_strings(folder / "cmdline")[:-1]),
            environ=dict(text.split("=", 1) for text in _strings(folder / "environ") if "=" in text),
            name=status["Name"],
            state=status["State"][:1],
            parent=inner.get(status["PPid"], 0),
            outer=int(folder.name),
        )
        for status, folder in found
        if status["State"][:1] != "Z" or status["PPid"] in inner
    )
