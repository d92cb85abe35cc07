"""The demo's profile: two nodes × two ranks on this machine, a small GPT on the standard library's own text."""

from __future__ import annotations

import importlib.util
import shlex
import sys
from pathlib import Path

from engine.errors import RequestError
from engine.profile import Batch, Node, Profile, Program, Rendezvous

STEPS_AS_TEXT, STEPS_ON_SCREEN = 60, 1000
"""A few seconds for a log; long enough on a screen to look around, search and stop."""


def demo_profile(steps: int) -> Profile:
    """RequestError when this Python has no torch, or for a senseless number of steps."""
    if importlib.util.find_spec("torch") is None:
        raise RequestError(
            f"the demo trains with torch, and {sys.executable} has none",
            remedy=f"install it: {sys.executable} -m pip install torch; or run: make demo",
        )
    if not 1 <= steps <= 100_000:
        raise RequestError(f"--steps {steps}: between 1 and 100000")
    folder = shlex.quote(str(Path(sys.executable).parent))
    node = Node(host="localhost", gpus=2)
    return Profile(
        version=1,
        name="demo",
        nodes=(node, node),
        rendezvous=Rendezvous(master_port="auto"),
        program=Program(
            kind="module",
            path="engine.train",
            args=("--launcher", "pytorch", "--set", f"steps={steps}", "--set", "per_device_batch={per_device_batch}"),
            activate=f"export PATH={folder}:$PATH",
        ),
        env={"OMP_NUM_THREADS": "1"},
        batch=Batch(per_device=8, base_lr=3e-4, base_batch=32),
    )
