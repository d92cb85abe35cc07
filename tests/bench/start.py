"""From the command to the last rank's first line, on 3 hosts × 2 ranks: `rankdeck launch` beside the same torchrun
commands in plain parallel `ssh`, which checks nothing and keeps nothing.

The hosts are network namespaces of this machine, so the work of the workstation and of all nodes shares its cores.
"""

from __future__ import annotations

import json
import os
import selectors
import shlex
import statistics
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.figures import Figure, spread
from tests.cluster.cluster import Cluster, obstacle
from tests.cluster.workstation import RANKDECK, Workstation

if TYPE_CHECKING:
    from collections.abc import Iterator

RATIO = 1.10
HERE = "rank {rank} of {size} is here"
RANKS = {
    "ranks that print": "import os\n",
    "ranks that import torch": "import os, torch\n",
}
SAY = f"print({HERE!r}.format(rank=os.environ['RANK'], size=os.environ['WORLD_SIZE']), flush=True)\n"
LOGS = ("--redirects", "--log_dir")  # where the ranks write to files, plain ssh shows nothing
LONGEST = 90.0


def until_all_are_here(commands: list[list[str]], env: dict[str, str], ranks: int) -> float:
    """Run commands side by side to their end; seconds from the start to the last rank's first line in any output."""
    waiting = {HERE.format(rank=rank, size=ranks).encode() for rank in range(ranks)}
    seen, took = b"", 0.0
    with selectors.DefaultSelector() as selector, tempfile.TemporaryFile() as errors:
        began = time.monotonic()
        started = [
            subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors)
            for argv in commands
        ]
        for process in started:
            assert process.stdout is not None
            selector.register(process.stdout, selectors.EVENT_READ)
        while selector.get_map() and time.monotonic() - began < LONGEST:
            for key, _ in selector.select(1.0):
                data = os.read(key.fd, 1 << 16)
                if not data:
                    selector.unregister(key.fileobj)
                seen += data
            if not took and all(line in seen for line in waiting):
                took = time.monotonic() - began
        codes = [process.wait(LONGEST) for process in started]
        errors.seek(0)
        if not took or any(codes):
            raise RuntimeError(f"{commands[0][:3]} …: exit {codes}\n{errors.read()[-3000:].decode()}")
    return took


def without_log_files(script: str) -> str:
    """A node's script without torchrun's log files: its ranks print where torchrun does."""
    return "\n".join(line for line in script.splitlines() if not line.strip().startswith(LOGS))


def plain_ssh(user: Workstation, profile: str) -> list[list[str]]:
    """What `rankdeck print` shows, for each node its `ssh`."""
    printed = json.loads(user.run("print", profile, "--format", "json").stdout)
    commands = []
    for node in printed["nodes"]:
        commands.append(
            user.cluster.ssh_argv(node["host"], shlex.join(["bash", "-c", without_log_files(node["script"])]))
        )
    return commands


def profiles(user: Workstation) -> Iterator[tuple[str, str]]:
    for name, text in RANKS.items():
        script = user.script(f"{name.split()[-1]}.py", text + SAY)
        yield name, user.profile(name.split()[-1], "python3", script, hosts=user.cluster.hosts)


def measure(rounds: int) -> list[Figure]:
    """Rounds of both in turn, after one that is not counted."""
    if reason := obstacle():
        print(f"start: not measured ({reason})")
        return []
    cluster = Cluster()
    try:
        with tempfile.TemporaryDirectory(prefix="rankdeck-bench-") as folder:
            user = Workstation(cluster, cluster.user_env(Path(folder)))
            return [one(user, name, profile, rounds) for name, profile in profiles(user)]
    finally:
        cluster.close()


def one(user: Workstation, name: str, profile: str, rounds: int) -> Figure:
    ranks = 2 * len(user.cluster.hosts)
    ours: list[float] = []
    plain: list[float] = []
    for number in range(rounds + 1):
        times = (
            until_all_are_here([[RANKDECK, "launch", profile]], user.env, ranks),
            until_all_are_here(plain_ssh(user, profile), user.env, ranks),
        )
        if number:
            ours.append(times[0])
            plain.append(times[1])
    ratio = statistics.median(ours) / statistics.median(plain)
    return Figure(f"launch to the last rank's first line, {name}", spread(ours), spread(plain), ratio, RATIO)
