"""What being launched and watched by Rankdeck costs a training run, in tokens/s of engine.train.

    whole runs   `rankdeck launch` beside the same torchrun without it, in turn
    held         one run, whose supervisor, tail and viewer are held (SIGSTOP) every other two seconds: the neighbours
                 in time share whatever else the machine does, so a difference of less than a percent can be seen

Two ranks train on this machine, which is the node and the workstation at once: what the viewer does is paid here too.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from engine.node import journal
from tests.bench.desk import RANKDECK, wait_until
from tests.bench.figures import Figure, spread
from tests.bench.start import without_log_files
from tests.loopback.sshd import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARE = 0.99
RANKS = 2
STEPS = 150
WARM = 20  # steps that are not counted
LONGEST = 180.0
WINDOW = 2.0  # seconds
PAIRS = 6  # windows of each kind, a round
REPOSITORY = Path(__file__).resolve().parents[2]
_STEP = re.compile(r"step (\d+)/.* tokens/s ([\d,]+)")


def measure(rounds: int) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="rankdeck-bench-") as name:
        home = Path(name)
        env = {
            "HOME": name,
            "LANG": "C.UTF-8",
            "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}",
            "XDG_STATE_HOME": str(home / "state"),
        }
        return [whole_runs(home, env, rounds), held(home, env, rounds)]


def profile(home: Path, steps: int) -> str:
    path = home / "bench.yaml"
    path.write_text(
        f"version: 1\nname: bench\nnodes: [{{host: localhost, gpus: {RANKS}}}]\n"
        f"rendezvous: {{master_port: {free_port()}}}\nenv: {{OMP_NUM_THREADS: '1'}}\n"
        f"program: {{kind: module, path: engine.train, args: [--set, steps={steps}]}}\n"
    )
    return str(path)


def paces(log: str) -> dict[int, float]:
    """Tokens/s of rank 0 by step."""
    return {int(step): float(pace.replace(",", "")) for step, pace in _STEP.findall(log)}


def tokens_per_second(argv: list[str], env: dict[str, str]) -> float:
    """Run a training to its end; the median over its steps."""
    with tempfile.TemporaryFile() as log:
        done = subprocess.run(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, timeout=LONGEST, check=False
        )
        log.seek(0)
        said = log.read().decode()
    counted = [pace for step, pace in paces(said).items() if step > WARM]
    if done.returncode or len(counted) != STEPS - WARM:
        raise RuntimeError(f"{argv[0]}: exit {done.returncode}, {len(counted)} steps\n{said[-3000:]}")
    return statistics.median(counted)


def whole_runs(home: Path, env: dict[str, str], rounds: int) -> Figure:
    """Rounds of both, the first of a round being the last of the next, after a round that is not counted."""
    asked = profile(home, STEPS)
    shown = subprocess.run([RANKDECK, "print", asked, "--format", "json"], env=env, capture_output=True, check=True)
    script = without_log_files(json.loads(shown.stdout)["nodes"][0]["script"])
    kinds = {
        "with": ([RANKDECK, "launch", asked], env),
        "without": (["bash", "-c", script], {**env, "PYTHONPATH": str(REPOSITORY)}),
    }
    seen: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(rounds + 1):
        for kind in sorted(kinds, reverse=bool(number % 2)):
            pace = tokens_per_second(*kinds[kind])
            if number:
                seen[kind].append(pace)
    ratio = statistics.median(seen["with"]) / statistics.median(seen["without"])
    ours, plain = (spread(seen[kind], 0, "tokens/s") for kind in ("with", "without"))
    return Figure("training of 2 ranks, whole runs with / without", ours, plain, ratio, SHARE, "least")


def held(home: Path, env: dict[str, str], rounds: int) -> Figure:
    """The median over windows that run, each over the mean of the held ones before and after it."""
    seen: dict[bool, list[float]] = {True: [], False: []}
    with watched_run(home, env) as (ours, log), log.open("rb") as file:
        for number in range(2 * PAIRS * rounds + 1):
            running = bool(number % 2)
            for process in ours:
                process.send_signal(signal.SIGCONT if running else signal.SIGSTOP)
            file.seek(0, os.SEEK_END)
            time.sleep(WINDOW)
            seen[running].append(statistics.median(paces(file.read().decode()).values()))
        for process in ours:
            process.send_signal(signal.SIGCONT)
    ratios = [2 * pace / sum(seen[False][n : n + 2]) for n, pace in enumerate(seen[True])]
    about = (spread(seen[running], 0, "tokens/s") for running in (True, False))
    what = "training of 2 ranks, Rankdeck running / held"
    return Figure(what, next(about), next(about), statistics.median(ratios), SHARE, "least")


@contextlib.contextmanager
def watched_run(home: Path, env: dict[str, str]) -> Iterator[tuple[list[psutil.Process], Path]]:
    """A long run that is watched: Rankdeck's processes, all on this machine, and the log of rank 0."""
    before = set((home / "state/rankdeck/runs").glob("*"))
    viewer = psutil.Popen(
        [RANKDECK, "launch", profile(home, 1_000_000)], env=env,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        logs = "n0/ranks/*/attempt_0/0/stdout.log"
        wait_until(
            lambda: any(f"step {WARM}/" in log.read_text() for run in new(home, before) for log in run.glob(logs))
        )
        (run,) = new(home, before)
        records, _ = journal.read(str(run / "n0/journal.jsonl"))
        supervisor = psutil.Process(next(record["pid"] for record in records if record["type"] == "supervisor"))
        yield [supervisor, viewer, *viewer.children()], next(run.glob(logs))
        subprocess.run([RANKDECK, "stop", run.name, "--grace", "5"], env=env, capture_output=True, check=True)
    finally:
        viewer.terminate()
        viewer.wait(30)


def new(home: Path, before: set[Path]) -> set[Path]:
    return set((home / "state/rankdeck/runs").glob("*")) - before
