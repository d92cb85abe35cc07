"""What the program on a node does when it is called: `supervise RUN_DIR`, or `step RUN_FOLDER COMMAND…` by srun."""

from __future__ import annotations

import sys
from typing import List, Optional

USAGE = "usage: python3 -I -S agent.zip supervise RUN_DIR | step RUN_FOLDER COMMAND..."


def main(argv: Optional[List[str]] = None) -> None:
    """Run one verb; SystemExit 2 for anything else. (`serve` is entered from engine/node/boot.py.)"""
    words = sys.argv[1:] if argv is None else argv
    if len(words) == 2 and words[0] == "supervise":
        from engine.node.supervise import supervise

        supervise(words[1])
    elif len(words) > 2 and words[0] == "step":
        from engine.node.step import step

        step(words[1], words[2:])
    else:
        sys.stderr.write(USAGE + "\n")
        raise SystemExit(2)


if __name__ == "__main__":
    main()
