"""A run that is tried and taken away again: what its ranks said, how they ended, and its folder removed."""

from __future__ import annotations

import json
import os
import time
from typing import Any, Callable, Dict

from engine.node import proc, sweep

TAIL = 16 << 10
POLL = 0.05

Json = Dict[str, Any]


def attend(run_dir: str, seconds: float, stop: Callable[[], Any]) -> Json:
    """Wait for the end of a run that is started, `stop` it when its time is up, and take its folder away.

    {stopped, code, signal, ranks: {LOCAL_RANK: {code, signal, out, err}}, log}: the ends of the logs, None and "" where
    there is nothing.
    """
    until = time.monotonic() + seconds
    while sweep.alive(run_dir) and time.monotonic() < until:
        time.sleep(POLL)
    late = sweep.alive(run_dir)
    if late:
        stop()
    answer = dict(collect(run_dir), stopped=late)
    remove(run_dir)
    return answer


def collect(run_dir: str) -> Json:
    answer: Json = {"code": None, "signal": None, "ranks": {}, "log": _tail(os.path.join(run_dir, "torchrun.log"))}
    try:
        lines = proc.read(os.path.join(run_dir, "journal.jsonl")).splitlines()
    except OSError:
        lines = []
    for line in lines:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record.get("type") == "finished":
            answer.update(code=record.get("code"), signal=record.get("signal"))
        elif record.get("type") in ("stream", "worker_exit"):
            rank = answer["ranks"].setdefault(str(record["local_rank"]), {"code": None, "signal": None})
            if record["type"] == "worker_exit":
                rank.update(code=record.get("code"), signal=record.get("signal"))
            else:
                short = {"stdout": "out", "stderr": "err"}.get(str(record["stream"]), "")
                rank[short] = _tail(os.path.join(run_dir, str(record["path"])))
    return answer


def _tail(path: str) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL))
            return file.read(TAIL).decode("utf-8", "replace")
    except OSError:
        return ""


def remove(run_dir: str) -> None:
    """The folder of the run on this node, and that of the whole run where nothing else is in it."""
    import shutil

    shutil.rmtree(run_dir, ignore_errors=True)
    try:
        os.rmdir(os.path.dirname(run_dir))
    except OSError:
        pass
