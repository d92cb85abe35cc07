"""The training engine's samples/s beside the same training by other loops, and its gradient hooks on slow links.

python -m tests.bench engine

loops   two ranks on this machine, in turn: a DDP loop written by hand, transformers' Trainer, Lightning, mmengine.
        Those three live in an environment of the bench's own, $RANKDECK_BENCH_ENV or ~/.cache/rankdeck-bench, which
        is made with pip at the first use.
scale   one, two and four ranks, each with the same batch.
links   two and four hosts (network namespaces; root) on links of 100 Mbit/s and 1 Gbit/s, by each hook.
"""

from __future__ import annotations

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
LOOPS = {"bare": 1.0, "transformers": 1.2, "lightning": 1.2, "mmengine": 1.2}  # least ratio of ours to each
STEPS, WARM = 120, 20
HOOKS = {"none": [], "fp16": [], "bf16": [], "int8": [], "powersgd": ["powersgd_start=2"]}
LINK_WORK = ["data=synthetic", "layers=4", "width=256", "context=32", "per_device_batch=2", "log_every=1"]
LINK_STEPS, LINK_WARM = 12, 5
REACH = 0.9  # of the ratio of bytes


class Paces(NamedTuple):
    """Of one run: samples/s of all ranks over the counted steps, seconds of a median step, share of exposed
    communication."""

    samples_per_s: float
    step: float
    exposed: float


def measure(rounds: int) -> list[Figure]:
    figures = loops(rounds) + scale(rounds)
    reason = obstacle()
    if reason:
        print(f"links: not measured ({reason})", flush=True)
        return figures
    return figures + links()


def ours(settings: list[str], steps: int, warm: int, hosts: tuple[Host, ...] | int) -> Paces:
    """Runs the engine with one rank a host, or so many ranks here."""
    share = None if isinstance(hosts, int) else hosts[0].cluster.share  # the hosts have a /tmp each
    with tempfile.TemporaryDirectory(dir=share) as folder:
        Path(folder).chmod(0o777)
        pairs = [*settings, f"steps={steps}", f"out={folder}"]
        run(["-m", "engine.train", *(word for pair in pairs for word in ("--set", pair))], hosts)
        lines = Path(folder, "metrics", "rank0.jsonl").read_text().splitlines()
    said = [json.loads(line) for line in lines][warm:]
    spent = sum(step["step_time"] for step in said)
    return Paces(
        samples_per_s=sum(step["samples"] for step in said) / spent,
        step=statistics.median(step["step_time"] for step in said),
        exposed=sum(step["comm_time"] for step in said) / spent,
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
        said = [process.communicate(timeout=150) for process in ranks]
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
    python = folder / "bin/python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        here = [path for path in sys.path if path.endswith("site-packages")]
        (folder / "lib" / version / "site-packages/bench.pth").write_text("\n".join(here) + "\n")
        subprocess.run([python, "-m", "pip", "install", "-q", *PACKAGES], check=True)
    return str(python)


def loops(rounds: int) -> list[Figure]:
    """In turn, the first of a round being the last of the next; a loop that cannot run here is named and left out."""
    seen: dict[str, list[float]] = {"ours": [], **{kind: [] for kind in LOOPS}}
    python = {"bare": sys.executable}
    for number in range(rounds):
        for kind in sorted(seen, reverse=bool(number % 2)):
            try:
                if kind == "ours":
                    seen[kind].append(ours(WORK, STEPS, WARM, 2).samples_per_s)
                else:
                    argv = ["-m", "tests.bench.loops", kind, str(STEPS), str(WARM)]
                    out = run(argv, 2, python.get(kind) or foreign())
                    seen[kind].append(json.loads(out.splitlines()[-1])["samples_per_s"])
            except (RuntimeError, subprocess.SubprocessError) as error:
                print(f"{kind}: {error}", flush=True)
    middle = statistics.median(seen["ours"])
    return [
        Figure(
            f"engine.train beside {kind}, 2 ranks",
            spread(seen["ours"], 0, "samples/s"),
            spread(seen[kind], 0, "samples/s"),
            middle / statistics.median(seen[kind]),
            least,
            "least",
        )
        for kind, least in LOOPS.items()
        if seen[kind]
    ]


def scale(rounds: int) -> list[Figure]:
    """Weak scaling: samples/s a rank beside one rank's, as far as there are cores for the ranks."""
    seen = {count: [ours(WORK, STEPS, WARM, count) for _ in range(rounds)] for count in (1, 2, 4)}
    each = {count: [paces.samples_per_s / count for paces in of] for count, of in seen.items()}
    figures = []
    for count in (2, 4):
        exposed = statistics.median(paces.exposed for paces in seen[count])
        fair = min(1.0, (os.cpu_count() or 1) / count)
        figures.append(
            Figure(
                f"weak scaling, {count} ranks on {os.cpu_count()} cores, {exposed:.0%} exposed communication",
                spread(each[count], 0, "samples/s a rank"),
                spread(each[1], 0, "alone"),
                statistics.median(each[count]) / statistics.median(each[1]),
                0.8 * fair,
                "least",
            )
        )
    return figures


def links() -> list[Figure]:
    """The speed-up by each hook over none, and what the ratio of bytes allows: the part of a step without a hook that
    is not exposed communication stays."""
    figures = []
    for count in (2, 4):
        cluster = Cluster(count)
        try:
            for rate in ("100mbit", "1gbit"):
                for host in cluster.hosts:
                    host.slow(rate=rate)
                figures += link(cluster.hosts, rate)
        finally:
            cluster.close()
    return figures


def link(hosts: tuple[Host, ...], rate: str) -> list[Figure]:
    seen = {
        hook: ours([*LINK_WORK, f"hook={hook}", *more], LINK_STEPS, LINK_WARM, hosts) for hook, more in HOOKS.items()
    }
    plain = seen.pop("none")
    return [
        Figure(
            f"{hook} on {len(hosts)} hosts at {rate}, step",
            f"{paces.step * 1e3:.0f} ms",
            f"{plain.step * 1e3:.0f} ms",
            plain.step / paces.step,
            REACH * plain.step / (plain.step * (1 - plain.exposed * (1 - PART[hook]))),
            "least",
        )
        for hook, paces in seen.items()
    ]


PART = {"fp16": 1 / 2, "bf16": 1 / 2, "int8": 1 / 4, "powersgd": 0.03}  # of the bytes of no hook


if __name__ == "__main__":
    from tests.bench.figures import table

    print(table(measure(int(sys.argv[1]) if len(sys.argv) > 1 else 3)))
