"""Runs on this workstation that never ran: their folders are real, what is in them is made up."""

from __future__ import annotations

import msgspec

from engine import events
from engine.runs import Record, RunFolder
from tests.unit.runs_made_up import NodeStory, made_plan, made_profile

STARTED = 1_795_500_000.0


def stdout_of(node_rank: int, local_rank: int) -> str:
    return f"ranks/x_{node_rank}/attempt_0/{local_rank}/stdout.log"


def made_run(
    *, nodes: int = 2, nproc: int = 2, failing: int | None = None, run: str = "lab-20261124-120000-abcd", lines: int = 5
) -> RunFolder:
    """A finished run, every byte of it here: `failing` is the rank that died first, by SIGKILL."""
    record = Record(run=run, created=STARTED, profile=made_profile(nodes, nproc), plan=made_plan(nodes, nproc, run))
    folder = RunFolder.create(record)
    for node_rank in range(nodes):
        story = NodeStory(node_rank, nproc).starts(STARTED)
        for local_rank in range(nproc):
            path = stdout_of(node_rank, local_rank)
            story.add(events.Stream, STARTED, path=path, attempt=0, local_rank=local_rank, stream="stdout")
        for step in range(1, 21):
            for local_rank in range(nproc):
                story.add(
                    events.Metric,
                    STARTED + step,
                    attempt=0,
                    local_rank=local_rank,
                    step=step,
                    total=20,
                    loss=4.0 / step,
                    step_time=0.5 if (node_rank, local_rank) == (0, 1) else 0.25,
                    rate=1000.0,
                    rate_unit="tokens/s",
                )
        for local_rank in range(nproc):
            if failing is None:
                story.exits(STARTED + 30, local_rank, code=0)
            elif failing == node_rank * nproc + local_rank:
                story.exits(STARTED + 25, local_rank, signal=9)
            else:
                story.exits(STARTED + 26, local_rank, signal=15)
        story.ends(STARTED + 31, code=0 if failing is None else 1)
        written = {"torchrun.log": b"", "journal.jsonl": b"".join(map(journal_line, story.told))}
        for local_rank in range(nproc):
            text = "".join(f"rank {node_rank * nproc + local_rank} line {i}\n" for i in range(lines))
            written[stdout_of(node_rank, local_rank)] = text.encode()
            written[f"ranks/x_{node_rank}/attempt_0/{local_rank}/stderr.log"] = b""
        for stream, data in written.items():
            mirror = folder.mirror(node_rank, stream)
            mirror.write(0, data)
            mirror.close()
        folder.mark_complete(node_rank, {stream: len(data) for stream, data in written.items()})
    return folder


def journal_line(event: events.AnyEvent) -> bytes:
    """As a node writes it: it does not know its own rank's name for itself."""
    fields = msgspec.to_builtins(event)
    fields.pop("node_rank", None)
    return msgspec.json.encode(fields) + b"\n"
