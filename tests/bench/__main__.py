"""Measure Rankdeck beside what a user would use instead: python -m tests.bench [--rounds N] [NAME]…

Exit status 0 whatever the figures say: a busy machine is no failure. 2 for a name that is none.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time

from tests.bench.figures import Figure, table

NAMES = ("fanout", "many", "start", "logs", "node", "training", "engine", "unmodified", "dashboard", "logview")


def main() -> None:
    """Run the named measurements, by default all; print each one's figures as it ends, and the table of all."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}")
    figures: list[Figure] = []
    for name in options.names or NAMES:
        load, began = os.getloadavg()[0], time.monotonic()
        found: list[Figure] = importlib.import_module(f"tests.bench.{name}").measure(options.rounds)
        print(f"{name}: {time.monotonic() - began:.0f} s, load {load:.1f} before", flush=True)
        print(table(found), flush=True)
        figures += found
    print(f"\nall, on {os.cpu_count()} cores\n{table(figures)}")


if __name__ == "__main__":
    main()
