"""`python -m engine.train [CONFIG] [--launcher none|pytorch|slurm] [--set KEY=VALUE]…`; exit status 2: bad request."""

from __future__ import annotations

import argparse
import os
import sys
import traceback

from engine.train.config import load
from engine.train.errors import ConfigError, RanksError


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m engine.train",
        description="Trains a small byte-level GPT with DDP, by default on Python's own standard library.",
        allow_abbrev=False,
    )
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="YAML or JSON")
    parser.add_argument(
        "--launcher",
        choices=("none", "pytorch", "slurm"),
        help="who started the ranks (default: pytorch under torchrun, else none)",
    )
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="KEY=VALUE", help="one key; may be repeated"
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="PATH",
        help="go on from the newest checkpoint in out, or from PATH: a checkpoint or the out of another run",
    )
    asked = parser.parse_args()
    try:
        config = load(asked.config, asked.settings)
        # torch is imported after the configuration is known to be right: a typo is answered at once.
        from engine.train.loop import train
        from engine.train.world import default_launcher, from_launcher

        world = from_launcher(asked.launcher or default_launcher(os.environ), os.environ)
        code = train(config, world, asked.resume)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except RanksError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 1
    except Exception:
        traceback.print_exc()
        code = 1
    # gloo's and autograd's threads may still run, and tearing C++ statics down under them aborts a rank that has
    # succeeded ("terminate called without an active exception", seen under load), or hangs one that has failed.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
