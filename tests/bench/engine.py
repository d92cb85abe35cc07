"""The training engine's samples/s beside the same training by other loops, and its gradient hooks on slow links.

python -m tests.bench engine [--readme]

loops   two ranks on this machine, in turn: a DDP loop written by hand, transformers' Trainer, Lightning, mmengine.
        Those three live in an environment of the bench's own, $RANKDECK_BENCH_ENV or ~/.cache/rankdeck-bench, which
        is made with pip at the first use.
scale   one, two and four ranks, each with the same batch.
links   two and four hosts (network namespaces; root) on links of 100 Mbit/s and 1 Gbit/s, by each hook.
losses  the loss after equal steps by each hook, on two hosts at 1 Gbit/s.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.bench.figures import Figure, spread
from tests.bench.loops import WORK
from tests.cluster.cluster import Cluster, obstacle
from tests.loopback.sshd import free_port

if TYPE_CHECKING:
    from tests.cluster.hosts import Host

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("transformers<5", "accelerate", "lightning", "mmengine")


class Loop(NamedTuple):
    """What it is called, and the least ratio of ours to it."""

    name: str
    least: float


LOOPS = {
    "bare": Loop("a DDP loop written by hand", 1.0),
    "transformers": Loop("transformers' Trainer", 1.2),
    "lightning": Loop("Lightning", 1.2),
    "mmengine": Loop("mmengine", 1.2),
}
STEPS, WARM = 120, 20
SIZES = {
    "": [f"steps={STEPS}"],
    "70,000 parameters: ": ["layers=1", "width=64", "context=32", "per_device_batch=4", f"steps={5 * STEPS}"],
}
HOOKS = {"none": [], "fp16": [], "bf16": [], "int8": [], "powersgd": ["powersgd_start=2"]}
LINK_WORK = ["data=synthetic", "layers=4", "width=256", "context=32", "per_device_batch=2", "log_every=1"]
LINK_STEPS, LINK_WARM = 10, 4
REACH = 0.9  # of the ratio of bytes
LOSS_WORK = ["log_every=10", "powersgd_start=50"]  # the engine's own model and text
LOSS_STEPS, LOSS_COUNTED = 150, 20
LOSS_APART = 0.01
LOSS_RANKS = (8,)  # of PowerSGD, beside the engine's default


class Paces(NamedTuple):
    """Of one run: samples/s of all ranks over the counted steps, seconds of a median step, share of exposed
    communication, mean loss of the last steps."""

    samples_per_s: float
    step: float
    exposed: float
    loss: float


def measure(rounds: int) -> list[Figure]:
    figures = loops(rounds) + scale(rounds)
    reason = obstacle()
    if reason:
        print(f"links: not measured ({reason})", flush=True)
        return figures
    return figures + links()


def ours(runs: list[list[str]], warm: int, hosts: tuple[Host, ...] | int) -> list[Paces]:
    """One training of the engine after the other, with one rank a host, or so many ranks here."""
    share = None if isinstance(hosts, int) else hosts[0].cluster.share  # the hosts have a /tmp each
    with tempfile.TemporaryDirectory(dir=share) as folder:
        Path(folder).chmod(0o777)
        asked = [[*settings, f"out={folder}/{number}"] for number, settings in enumerate(runs)]
        port = free_port() if isinstance(hosts, int) else 29600
        run(["-m", "tests.bench.hooked", str(port), json.dumps(asked)], hosts)
        return [paces(Path(folder, str(number), "metrics", "rank0.jsonl"), warm) for number in range(len(runs))]


def paces(metrics: Path, warm: int) -> Paces:
    said = [json.loads(line) for line in metrics.read_text().splitlines()][warm:]
    spent = sum(step["step_time"] for step in said)
    return Paces(
        samples_per_s=sum(step["samples"] for step in said) / spent,
        step=statistics.median(step["step_time"] for step in said),
        exposed=sum(step["comm_time"] for step in said) / spent,
        loss=statistics.mean(step["loss"] for step in said[-LOSS_COUNTED:]),
    )


def run(argv: list[str], hosts: tuple[Host, ...] | int, python: str = sys.executable) -> str:
    """Starts `argv` as every rank; what rank 0 printed. RuntimeError where a rank fails."""
    count = hosts if isinstance(hosts, int) else len(hosts)
    address, port = ("127.0.0.1", str(free_port())) if isinstance(hosts, int) else (hosts[0].address, "29600")
    ranks = []
    for rank in range(count):
        env = {"RANK": str(rank), "LOCAL_RANK": "0", "WORLD_SIZE": str(count), "MASTER_ADDR": address}
        env |= {"MASTER_PORT": port, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
        env |= {"TORCHELASTIC_RUN_ID": "bench"}  # by which Lightning knows torchrun
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        if isinstance(hosts, int):
            env |= {**os.environ, **env, "LOCAL_RANK": str(rank)}
            ranks.append(subprocess.Popen([python, *argv], env=env, cwd=REPOSITORY, **pipes))
        else:
            ranks.append(hosts[rank].start([python, *argv], env=env, **pipes))
    try:
        said = [process.communicate(timeout=300) for process in ranks]
    finally:
        for process in ranks:
            process.kill()
    for process, (_, err) in zip(ranks, said, strict=True):
        if process.returncode:
            raise RuntimeError(f"{argv}: exit {process.returncode}\n{err[-2000:]}")
    return str(said[0][0])


def foreign() -> str:
    """The Python of the environment that holds the other loops, and sees this one's packages, torch among them."""
    folder = Path(os.environ.get("RANKDECK_BENCH_ENV", "~/.cache/rankdeck-bench")).expanduser()
    python, whole = folder / "bin/python", folder / "whole"
    if not whole.exists():
        venv.create(folder, with_pip=True, clear=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        here = [path for path in sys.path if path.endswith("site-packages")]
        (folder / "lib" / version / "site-packages/bench.pth").write_text("\n".join(here) + "\n")
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
        whole.touch()
    return str(python)


def loops(rounds: int) -> list[Figure]:
    """By the size of the model, in turn, the first of a round being the last of the next; a loop that cannot run here
    is named and left out."""
    seen: dict[tuple[str, str], list[float]] = {}
    for number in range(rounds):
        for kind, size in sorted(itertools.product(["ours", *LOOPS], SIZES), reverse=bool(number % 2)):
            work = [*WORK, *SIZES[size]]
            try:
                if kind == "ours":
                    pace = ours([work], WARM, 2)[0].samples_per_s
                else:
                    argv = ["-m", "tests.bench.loops", kind, str(WARM), *work]
                    out = run(argv, 2, sys.executable if kind == "bare" else foreign())
                    pace = json.loads(out.splitlines()[-1])["samples_per_s"]
                seen.setdefault((kind, size), []).append(pace)
            except (RuntimeError, subprocess.SubprocessError) as error:
                print(f"{kind}: {error}", flush=True)
    return [
        Figure(
            f"{size}engine.train beside {LOOPS[kind].name}, 2 ranks",
            spread(seen["ours", size], 0, "samples/s"),
            spread(seen[kind, size], 0, "samples/s"),
            statistics.median(seen["ours", size]) / statistics.median(seen[kind, size]),
            LOOPS[kind].least,
            "least",
        )
        for size, kind in itertools.product(SIZES, LOOPS)
        if (kind, size) in seen
    ]


def scale(rounds: int) -> list[Figure]:
    """Weak scaling: samples/s a rank beside one rank's, as far as there are cores for the ranks."""
    work = [*WORK, f"steps={STEPS}"]
    seen = {count: ours([work] * rounds, WARM, count) for count in (1, 2, 4)}
    each = {count: [paces.samples_per_s / count for paces in of] for count, of in seen.items()}
    figures = []
    for count in (2, 4):
        exposed = statistics.median(paces.exposed for paces in seen[count])
        fair = min(1.0, (os.cpu_count() or 1) / count)
        figures.append(
            Figure(
                f"weak scaling, {count} ranks on {os.cpu_count()} cores, {exposed:.0%} exposed communication",
                spread(each[count], 0, "samples/s a rank"),
                f"alone {spread(each[1], 0, 'samples/s')}",
                statistics.median(each[count]) / statistics.median(each[1]),
                0.8 * fair,
                "least",
            )
        )
    return figures


def links() -> list[Figure]:
    """The speed-up by each hook over none, and what the ratio of bytes allows: the part of a step without a hook that
    is not exposed communication stays. And the losses."""
    figures = []
    for count in (2, 4):
        cluster = Cluster(count)
        try:
            for rate in ("100mbit", "1gbit"):
                for host in cluster.hosts:
                    host.slow(rate=rate)
                figures += link(cluster.hosts, rate)
            if count == 2:
                figures += losses(cluster.hosts)
        finally:
            cluster.close()
    return figures


def link(hosts: tuple[Host, ...], rate: str) -> list[Figure]:
    work = [[*LINK_WORK, f"steps={LINK_STEPS}", f"hook={hook}", *more] for hook, more in HOOKS.items()]
    seen = dict(zip(HOOKS, ours(work, LINK_WARM, hosts), strict=True))
    plain = seen.pop("none")
    return [
        Figure(
            f"{hook} on {len(hosts)} hosts at {rate}, {PART[hook]:.0%} of the bytes, step",
            f"{paces.step * 1e3:.0f} ms",
            f"none {plain.step * 1e3:.0f} ms, {plain.exposed:.0%} exposed",
            plain.step / paces.step,
            REACH / (1 - plain.exposed * (1 - PART[hook])),
            "least",
        )
        for hook, paces in seen.items()
    ]


PART = {"fp16": 1 / 2, "bf16": 1 / 2, "int8": 1 / 4, "powersgd": 0.03}  # of the bytes of no hook


def losses(hosts: tuple[Host, ...]) -> list[Figure]:
    """After equal steps, the mean over the last of them."""
    kinds = [*HOOKS, *(f"powersgd powersgd_rank={rank}" for rank in LOSS_RANKS)]
    work = [[*LOSS_WORK, f"steps={LOSS_STEPS}", *f"hook={kind}".split()] for kind in kinds]
    seen = {kind: paces.loss for kind, paces in zip(kinds, ours(work, 0, hosts), strict=True)}
    plain = seen.pop("none")
    return [
        Figure(
            f"loss after {LOSS_STEPS} steps by {kind}",
            f"{loss:.4f}",
            f"none {plain:.4f}",
            abs(loss / plain - 1) * 100,
            LOSS_APART * 100,
            unit="%",
        )
        for kind, loss in seen.items()
    ]


if __name__ == "__main__":
    from tests.bench.figures import markdown

    # one part alone, as README.md shows it: python -m tests.bench.engine loops|scale|links [ROUNDS]
    part, count = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 3
    print(markdown(links() if part == "links" else {"loops": loops, "scale": scale}[part](count)))
