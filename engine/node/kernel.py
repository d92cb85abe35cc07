"""What the kernel says about ends that no program can tell of: killed for want of memory, a GPU that fell off the bus.

Sources: cgroup-v2 (`memory.events`, field oom_kill), cgroup-v1 (`memory.oom_control`, field oom_kill), and the records
of dev-kmsg, where this user may read them (sysctl kernel.dmesg_restrict).
"""

from __future__ import annotations

import os
import re
from typing import Iterator, List, NamedTuple, Optional, Tuple

from engine.node import proc

RECORD_BYTES = 8192  # dev-kmsg: a record is read whole or not at all
MOST_RECORDS = 2000  # of one look
MOST_CLUES = 20
CGROUPS = "/sys/fs/cgroup"
TELLING = re.compile(
    r"[Oo]ut of memory: Kill|oom-kill:|invoked oom-killer|Memory cgroup out of memory|NVRM: Xid|fallen off the bus"
    r"|Uncorrected|Hardware Error|I/O error|nfs: server \S+ not responding|link is (?:down|not ready)|Link is Down"
)


class Clue(NamedTuple):
    """One thing that the kernel said; `source` is where: memory.events or kernel log."""

    source: str
    text: str


class Kernel:
    """Remembers how things are at its making; `look` tells what has happened since, each thing once."""

    def __init__(self, kmsg: str = "/dev/kmsg", cgroups: str = CGROUPS) -> None:
        self._file, self._kills = next(_oom_files(cgroups), ("", 0))
        self._told = 0
        self._kmsg: Optional[int] = None
        try:
            self._kmsg = os.open(kmsg, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            os.lseek(self._kmsg, 0, os.SEEK_END)
        except OSError:
            pass  # most users may not; memory.events tells of the worst

    def look(self) -> List[Clue]:
        """The clues since the last look; bounded, and never waits."""
        found = []
        kills = _oom_kills(self._file) if self._file else None
        if kills is not None and kills > self._kills:
            text = "%s: oom_kill %d (%d before)" % (self._file, kills, self._kills)
            self._kills = kills
            found.append(Clue("memory.events", text))
        for text in self._records():
            if TELLING.search(text) and self._told < MOST_CLUES:
                self._told += 1
                found.append(Clue("kernel log", text[:1000]))
        return found

    def _records(self) -> Iterator[str]:
        for _ in range(MOST_RECORDS if self._kmsg is not None else 0):
            try:
                assert self._kmsg is not None
                record = os.read(self._kmsg, RECORD_BYTES)
            except BrokenPipeError:
                continue  # overwritten before it was read: the next read goes on behind it
            except OSError:
                return
            yield record.decode("utf-8", "replace").partition(";")[2].partition("\n")[0]


def _oom_files(root: str) -> Iterator[Tuple[str, int]]:
    """The files that count kills in the cgroup of this process, with their count."""
    for line in _lines("/proc/self/cgroup"):
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        names = {"": ("memory.events", ("", "unified")), "memory": ("memory.oom_control", ("memory",))}
        name, places = names.get(controllers, ("", ()))
        for place in places:
            # In a container the path may be the host's, and the mount begins at the container's own group.
            for inside in (path, "/"):
                file = os.path.normpath(os.path.join(root, place, inside.lstrip("/"), name))
                kills = _oom_kills(file)
                if kills is not None:
                    yield file, kills


def _oom_kills(file: str) -> Optional[int]:
    for line in _lines(file):
        words = line.split()
        if len(words) == 2 and words[0] == "oom_kill" and words[1].isdigit():
            return int(words[1])
    return None


def _lines(file: str) -> List[str]:
    try:
        return proc.read(file, 65536).decode("utf-8", "replace").splitlines()
    except OSError:
        return []
