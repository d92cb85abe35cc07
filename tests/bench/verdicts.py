"""From a rank's failure to the verdict on the screen, failure after failure, on two hosts of the test cluster.

The failures are those of tests/cluster/test_verdicts.py, each in the dashboard of a launch on a pseudo-terminal. It
counts from the moment at which the first rank ended badly, by the node's journal, to the picture that holds the cause
and the remedy; hosts and workstation share a clock.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from pathlib import Path

from tests.bench.figures import Figure, spread
from tests.cluster.cluster import Cluster, obstacle
from tests.cluster.test_verdicts import FAILING, PROGRAMS
from tests.cluster.workstation import Workstation
from tests.tui.pty_of import Terminal

LONGEST = 90.0
WITHIN = 3.0
COLUMNS, LINES = 160, 50


def measure(rounds: int) -> list[Figure]:
    """Each failure once, whatever `rounds` says: a launch takes some ten seconds."""
    if reason := obstacle():
        print(f"verdicts: not measured ({reason})")
        return []
    cluster = Cluster()
    try:
        with tempfile.TemporaryDirectory(prefix="rankdeck-bench-") as folder:
            user = Workstation(cluster, cluster.user_env(Path(folder)))
            took = {" ".join(argv): until_verdict(user, argv, words) for argv, _, words in PROGRAMS}
    finally:
        cluster.close()
    for how, seconds in took.items():
        print(f"verdicts: {how}: {seconds:.2f} s")
    worst = max(took.values())
    return [
        Figure(
            f"a failing rank to the verdict on the screen, {len(took)} failures, the slowest",
            spread(list(took.values())), "", worst, WITHIN, unit="s",
        )
    ]  # fmt: skip


def until_verdict(user: Workstation, argv: list[str], words: str) -> float:
    """Seconds from the first rank's bad end to its cause and a remedy on the screen."""
    profile = user.profile("failing", "python3", FAILING, *argv, hosts=user.cluster.hosts[:2], ranks=1)
    wanted = ("firstfailure:", "whattodo:", "".join(words.split()))
    home = str(user.home)
    with Terminal("launch", profile, columns=COLUMNS, lines=LINES, environ=user.env, only=True, folder=home) as screen:
        deadline = time.monotonic() + LONGEST
        while not all(word in squeezed(screen.text) for word in wanted):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{argv}: no verdict with {words!r} within {LONGEST} s on:\n{screen.text}")
            screen.read()
        seen = time.time()
        screen.settle(quiet=2.0)
    told = [json.loads(line) for line in user.run("attach", "--json").stdout.splitlines()]
    ends: list[float] = [
        one["t"] for one in told if one["type"] == "worker_exit" and (one.get("code") or one.get("signal"))
    ]
    return seen - min(ends)


def squeezed(text: str) -> str:
    """What the left half of the screen says, without frames and spaces: a sentence is broken where its line ends."""
    return re.sub(r"[\s│─]+", "", "".join(line[: COLUMNS // 2] for line in text.split("\n")))
