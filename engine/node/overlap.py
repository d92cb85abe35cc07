"""What the nodes of a running Slurm job do: a sampler beside the ranks of each, as one step of the job.

Rules:
- One step (`srun --overlap`) for as long as somebody looks, not one a look: Slurm's controller is everybody's.
- It ends with its reader: srun passes on the end of its standard input, which is ours.
- Where Slurm refuses it, the run is watched without.

Sources: srun(1) of 20.11 and later, --overlap and --input
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
import time
from typing import Any, Dict, List, Optional, Tuple

Json = Dict[str, Any]

SAMPLE_SECONDS = 2.0
AGAIN_SECONDS = 30.0
"""Until a step that Slurm refused, or that ended before the job, is asked for again."""
LINE_LIMIT = 1 << 16
START = (
    "for p in python3 /usr/bin/python3 /usr/local/bin/python3; do "
    'command -v "$p" >/dev/null 2>&1 && exec "$p" -I -S "$0" sample; done'
)


class Overlap:
    """The step, read by one client. `program` is our zip, on storage that the compute nodes see."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._step: Optional["subprocess.Popen[bytes]"] = None
        self._asked: Tuple[str, List[int]] = ("", [])
        self._begun = -AGAIN_SECONDS
        self._newest: Json = {}

    def take(self, job: str, parts: List[int]) -> Json:
        """The samples that have come since the last call, by node of the job: {NODE_RANK: sample}.

        `parts` are the numbers of nodes, several of a heterogeneous job. The first call starts the step.
        """
        if self._asked != (job, parts):
            self.close()
            self._asked, self._begun = (job, parts), -AGAIN_SECONDS
        ended = self._step is None or self._step.poll() is not None
        if ended and time.monotonic() - self._begun >= AGAIN_SECONDS:
            self._begun = time.monotonic()
            self._step = self._start(job, parts)
        found, self._newest = self._newest, {}
        return found

    def close(self) -> None:
        if self._step is not None and self._step.stdin is not None:
            self._step.stdin.close()

    def _start(self, job: str, parts: List[int]) -> Optional["subprocess.Popen[bytes]"]:
        argv = ["srun"]
        for group, nodes in enumerate(parts):
            argv += [":"] if group else []
            argv += ["--overlap", "--quiet", "--jobid=" + job, "--job-name=rankdeck", "--ntasks-per-node=1"]
            argv += ["--nodes=%d" % nodes, "--ntasks=%d" % nodes]
            argv += ["--het-group=%d" % group] if len(parts) > 1 else []
            argv += ["sh", "-c", START, self._program]
        env = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SRUN_"))}
        if "SLURM_CONF" in os.environ:
            env["SLURM_CONF"] = os.environ["SLURM_CONF"]
        try:
            step = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
                cwd="/",
                env=env,
            )
        except OSError:
            return None
        threading.Thread(target=self._read, args=(step,), daemon=True).start()
        return step

    def _read(self, step: "subprocess.Popen[bytes]") -> None:
        assert step.stdout is not None
        for line in iter(lambda: step.stdout.readline(LINE_LIMIT), b""):  # type: ignore[union-attr]
            try:
                node, sample = json.loads(line)
                self._newest[str(int(node))] = sample
            except (ValueError, TypeError):
                continue  # a node's own words, or two lines in one
        step.wait()


def sample() -> None:
    """On a node: a line [NODE_RANK, sample] now and then, until standard input ends or nobody reads."""
    from engine.node.sample import Sampler

    sampler = Sampler()
    node = int(os.environ.get("SLURM_NODEID", "0"))
    while True:
        sys.stdout.write(json.dumps([node, sampler.take()]) + "\n")
        sys.stdout.flush()
        readable, _, _ = select.select([0], [], [], SAMPLE_SECONDS)
        if readable and not os.read(0, 4096):
            return
