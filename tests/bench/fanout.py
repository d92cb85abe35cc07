"""64 nodes: log in, shake hands, ask a question of each, against clush and pdsh running `true`.

The Rankdeck side is a program of its own, imports included, as the others are. All 64 addresses are one sshd on this
machine, so what the nodes do (a Python each for Rankdeck) competes with the client for the same cores.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import sys
from pathlib import Path

from tests.bench.figures import Figure, spread
from tests.bench.machine import Cost, cost, loopback

NODES = 64
CPU_SHARE = 0.35
PARTS = ["system", "addresses", "ports"]


async def visit(config: Path, hosts: list[str]) -> None:
    """Open a conversation with every host, ask each one what it is, leave."""
    from engine.errors import RankdeckError
    from engine.fleet import Fleet, close_all
    from engine.profile import Node
    from engine.transport import Connector

    connector = Connector(config=config)
    conversations = await Fleet([Node(host=host) for host in hosts], "", connector).dial_all()
    opened = []
    for conversation in conversations.values():
        if isinstance(conversation, RankdeckError):
            raise conversation
        opened.append(conversation)
    answers = await asyncio.gather(*(c.ask("probe", timeout=60.0, ask={"parts": PARTS}) for c in opened))
    assert all(answer["system"]["boot"] for answer in answers)
    await close_all(conversations)
    await connector.close()


def measure(rounds: int) -> list[Figure]:
    """Rounds of all clients in turn, after one that is not counted."""
    seen: dict[str, list[Cost]] = {}
    with loopback(NODES) as (lab, _, hosts):
        targets = ",".join(hosts)
        clients: dict[str, tuple[list[str], dict[str, str]]] = {
            "Rankdeck": ([sys.executable, "-m", "tests.bench.fanout", str(lab.config), *hosts], {})
        }
        if shutil.which("clush"):
            argv = ["clush", "-q", "-S", "-f", str(NODES), "-o", f"-F {lab.config}", "-w", targets, "true"]
            clients["clush"] = (argv, {})
        if shutil.which("pdsh"):
            argv = ["pdsh", "-R", "ssh", "-S", "-f", str(NODES), "-w", targets, "true"]
            clients["pdsh"] = (argv, {"PDSH_SSH_ARGS_APPEND": f"-F {lab.config}"})
        for number in range(rounds + 1):
            for name, (argv, env) in clients.items():
                spent = cost(argv, env)
                if number:
                    seen.setdefault(name, []).append(spent)
    wall = {name: statistics.median(c.wall for c in costs) for name, costs in seen.items()}
    cpu = {name: statistics.median(c.cpu for c in costs) for name, costs in seen.items()}
    figures = []
    for name in seen:
        if name != "Rankdeck":
            about = [
                spread([getattr(c, kind) for c in seen[n]]) for kind in ("wall", "cpu") for n in ("Rankdeck", name)
            ]
            figures += [
                Figure(f"{NODES} nodes, wall / {name}", about[0], about[1], wall["Rankdeck"] / wall[name], 1.0),
                Figure(
                    f"{NODES} nodes, client CPU / {name}", about[2], about[3], cpu["Rankdeck"] / cpu[name], CPU_SHARE
                ),
            ]
    return figures


if __name__ == "__main__":
    asyncio.run(visit(Path(sys.argv[1]), sys.argv[2:]))
