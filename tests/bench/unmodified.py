"""Unmodified programs under Rankdeck: the loss and throughput that it shows live, beside what each program reports of
itself at its end.

python -m tests.bench unmodified

A transformers Trainer, Lightning, mmengine and a loop that prints as nanoGPT does, each on two local nodes of one rank.
Live means: from the events of `rankdeck launch --json`, as they come, of the rank that prints. Their rates are averaged
over the run as `rankdeck metrics` averages them. The environment of these trainers is that of the engine's bench.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.bench.desk import RANKDECK
from tests.bench.engine import REPOSITORY, foreign
from tests.bench.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Iterable

PROGRAMS = {"hf_trainer": "transformers' Trainer", "lightning_trainer": "Lightning", "mmengine_runner": "mmengine"}
PROGRAMS["nanogpt_loop"] = "a loop like nanoGPT's"
STEPS, READ = 300, 0.05  # seconds to read a sample: the machine's other work makes little difference
WITHIN = 0.02
LONGEST = 180.0
TRAINED = re.compile(r"trained at ([\d.]+) steps per second; the last loss was (\S+)")


class Told(NamedTuple):
    """Steps a second over the run, and the last loss."""

    rate: float
    loss: float


def measure(rounds: int) -> list[Figure]:
    """Each program once, whatever `rounds` says: it runs for half a minute."""
    return [figure for program in PROGRAMS for figure in beside(program)]


def beside(program: str) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="rankdeck-bench-") as name:
        env = {**os.environ, "HOME": name, "XDG_STATE_HOME": f"{name}/state", "LANG": "C.UTF-8"}
        records = launch(program, Path(name), env)
        nodes = sorted(Path(name).glob("state/rankdeck/runs/*/n*"))
        logs = [log for node in nodes for log in node.glob("ranks/*/attempt_0/*/std*.log")]
        live, reported = shown(records), own_report("".join(log.read_text() for log in logs))
        after = read_afterwards(nodes, env)
    return [
        Figure(
            f"{PROGRAMS[program]}: {what}",
            f"{told.rate:.3f} steps/s, loss {told.loss:.4g}",
            f"{reported.rate:.3f} steps/s, loss {reported.loss:.4g}",
            max(off(told.rate, reported.rate), off(told.loss, reported.loss)),
            WITHIN,
            unit="off",
        )
        for what, told in (("live", live), ("rankdeck metrics", after))
    ]


def off(ours: float, theirs: float) -> float:
    return abs(ours - theirs) / theirs


def launch(program: str, home: Path, env: dict[str, str]) -> list[dict[str, Any]]:
    """Run it to its end; the events that say what was measured."""
    path = home / "bench.yaml"
    words = [REPOSITORY / f"tests/bench/programs/{program}.py", STEPS, READ, home / "out", 2]
    asked = {
        "version": 1,
        "name": "bench",
        "nodes": [{"host": "localhost", "gpus": 1}, {"host": "localhost", "gpus": 1}],
        "rendezvous": {"master_port": "auto"},
        "program": {
            "kind": "command",
            "path": foreign(),
            "args": [str(word) for word in words],
            "activate": f"export PATH={sys.prefix}/bin:$PATH",
        },
        "env": {"OMP_NUM_THREADS": "1"},
    }
    path.write_text(json.dumps(asked))
    done = subprocess.run(
        [RANKDECK, "launch", str(path), "--json"], env=env, capture_output=True, text=True, timeout=LONGEST, check=False
    )
    events = [json.loads(line) for line in done.stdout.splitlines()]
    if done.returncode:
        raise RuntimeError(f"{program}: exit {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return [event for event in events if event.get("type") == "metric"]


def shown(events: Iterable[dict[str, Any]]) -> Told:
    """What the dashboard showed: the last loss; the mean of the step times, each for the steps since the one before."""
    spent, before, loss = 0.0, 0, float("nan")
    for event in events:
        if "loss" in event:
            loss = float(event["loss"])
        if "step" in event and "step_time" in event and event["step"] > before:
            spent += float(event["step_time"]) * (event["step"] - before)
            before = event["step"]
    return Told(before / spent, loss)


def own_report(log: str) -> Told:
    """What the program says at its end."""
    said = TRAINED.search(log)
    if said:
        return Told(float(said[1]), float(said[2]))
    rate = re.findall(r"'train_steps_per_second': '?([\d.]+)", log)[-1]
    return Told(float(rate), float(re.findall(r"'loss': '?([\d.e+-]+)", log)[-1]))


def read_afterwards(nodes: list[Path], env: dict[str, str]) -> Told:
    """What `rankdeck metrics` says of the logs of all nodes."""
    argv = [RANKDECK, "metrics", *map(str, nodes), "--json"]
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=True)
    summary = json.loads(done.stdout.splitlines()[-1])
    return Told(1 / summary["step_time_s"], summary["loss"])


if __name__ == "__main__":
    from tests.bench.figures import table

    print(table(measure(1)))
