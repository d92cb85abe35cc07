"""What the program on a node does when it is called: `supervise RUN_DIR`, by srun `step FOLDER COMMAND…` or `sample`,
or `xtuner WORDS…` for XTuner's command.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import List, Optional

USAGE = "usage: python3 -I -S agent.zip supervise RUN_DIR | step RUN_FOLDER COMMAND... | sample | xtuner WORDS..."


def main(argv: Optional[List[str]] = None) -> None:
    """Run one verb; SystemExit 2 for anything else. (`serve` is entered from engine/node/boot.py.)"""
    words = sys.argv[1:] if argv is None else argv
    if len(words) == 2 and words[0] == "supervise":
        from engine.node.supervise import supervise

        supervise(words[1])
    elif len(words) > 2 and words[0] == "step":
        from engine.node.step import step

        step(words[1], words[2:])
    elif words == ["sample"]:
        from engine.node.overlap import sample

        sample()
    elif len(words) > 1 and words[0] == "xtuner":
        from engine.node.xtuner import run

        end_as(run(words))
    else:
        sys.stderr.write(USAGE + "\n")
        raise SystemExit(2)


def end_as(code: int) -> None:
    """Exit with a status, or by the signal -N."""
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    raise SystemExit(code)


if __name__ == "__main__":
    main()
