"""Measure Rankdeck beside what a user would use instead: python -m tests.bench [--rounds N] [--readme] [NAME]…

Exit status 0 whatever the figures say: a busy machine is no failure. 2 for a name that is none.
"""

from __future__ import annotations

import argparse
import importlib
import os
import time
from pathlib import Path

from tests.bench.figures import Figure, markdown, table

README = Path(__file__).parents[2] / "README.md"
NAMES = (
    "fanout",
    "many",
    "start",
    "logs",
    "node",
    "training",
    "engine",
    "unmodified",
    "verdicts",
    "dashboard",
    "logview",
)


def main() -> None:
    """Run the named measurements, by default all; print each one's figures as it ends, and the table of all."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--readme", action="store_true", help="write them where README.md has a place for them")
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
        if options.readme:
            write_down(name, markdown(found))
    print(f"\nall, on {os.cpu_count()} cores\n{table(figures)}")


def write_down(name: str, rows: str) -> None:
    """Puts a measurement's table between its marks in README.md, where it has any."""
    text = README.read_text()
    before, mark, rest = text.partition(f"<!-- {name} -->\n")
    if mark:
        README.write_text(before + mark + rows + rest[rest.index(f"<!-- /{name} -->") :])


if __name__ == "__main__":
    main()
