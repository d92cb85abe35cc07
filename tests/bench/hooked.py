"""A program that the bench starts as ranks: one training of the engine after the other, so that torch is loaded once.

    python -m tests.bench.hooked PORT RUNS      RUNS: JSON, a list of lists of KEY=VALUE settings

Training N meets at the port PORT + N of rank 0's address. What it measures is in the `out` of each.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys

from engine.train.config import load
from engine.train.loop import train
from engine.train.world import from_launcher


def main() -> None:
    world = from_launcher("pytorch", os.environ)
    for number, settings in enumerate(json.loads(sys.argv[2])):
        code = train(load(None, settings), dataclasses.replace(world, port=int(sys.argv[1]) + number))
        if code:
            os._exit(code)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
