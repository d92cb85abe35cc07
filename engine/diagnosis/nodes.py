"""The logs of the nodes, taken apart: which lines are torchrun's own, and which are each worker's."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from typing import TYPE_CHECKING

import msgspec

from engine.diagnosis.agent import Agent, read_agent
from engine.diagnosis.lines import Line, Source, marks_of, read

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Node(msgspec.Struct):
    """The logs of one node, taken apart: torchrun's own lines, and those of each worker by (attempt, local rank)."""

    node_rank: int
    shared: list[Line]
    workers: dict[tuple[int, int], list[Line]]
    records: dict[tuple[int, int], list[Line]]
    ranks: dict[int, int]
    agent: Agent
    stamps: dict[tuple[int, int], float] = {}
    journal: list[Line] = []

    @property
    def empty(self) -> bool:
        """Has no rank of this node written anything?"""
        return not any(line.text.strip() for lines in self.workers.values() for line in lines)

    @property
    def locals(self) -> list[int]:
        """The local ranks that wrote something, or of which torchrun tells."""
        told = (seen.local_rank for seen in (*self.agent.failed, *self.agent.summary) if seen.local_rank is not None)
        return sorted({*told, *(local for _, local in self.workers)})

    def went_on(self, line: Line) -> bool:
        """Did any rank of this node make progress after that line?"""
        return any(progress(lines, line) for lines in (self.shared, *self.workers.values()))

    def rank(self, local_rank: int | None) -> int | None:
        return None if local_rank is None else self.ranks.get(local_rank)


def nodes_of(sources: Sequence[Source]) -> dict[int, Node]:
    """The logs by node."""
    nodes: dict[int, Node] = {}
    places: defaultdict[int, int] = defaultdict(int)
    for source, known in zip(sources, marks_of(sources), strict=True):
        node = nodes.setdefault(source.node_rank, Node(source.node_rank, [], {}, {}, {}, Agent([], [], {}, None)))
        if source.kind == "record":
            _record(node, source)
            continue
        if source.kind == "journal":
            node.journal = [line for line, _ in read(source)]
            continue
        lines = list(read(source, places[source.node_rank], known))
        tasks = _tasks(lines) if known.words == {"#"} else ()
        for line, label in lines:
            if label in tasks and line.rank is None:
                line = msgspec.structs.replace(line, rank=int(label))
            places[source.node_rank] = line.place + 1
            if line.local_rank is not None and line.rank is not None:
                node.ranks.setdefault(line.local_rank, line.rank)
            if source.kind == "worker":
                key = (source.attempt, source.local_rank if source.local_rank is not None else 0)
                node.workers.setdefault(key, []).append(line)
            else:
                node.shared.append(line)
        if source.kind == "worker" and source.local_rank is not None:
            # A rank that writes nothing is a rank.
            node.workers.setdefault((source.attempt, source.local_rank), [])
            if source.rank is not None:
                node.ranks.setdefault(source.local_rank, source.rank)
    for node in nodes.values():
        _share_out(node)
    _number(nodes)
    return nodes


def _tasks(lines: Sequence[tuple[Line, str]]) -> frozenset[str]:
    """The labels of a file that are ranks: srun's tasks, where several ran on one node and torchrun did not."""
    labels = {label for _, label in lines if label}
    if len(labels) < 2 or any(line.local_rank is not None or ELASTIC.search(line.text) for line, _ in lines):
        return frozenset()
    return frozenset(labels)


ELASTIC = re.compile(r"torch[./]distributed[./](?:elastic|run|launch)\b")


def _share_out(node: Node) -> None:
    """Give the lines of a console to the workers whose mark they carry; by torchrun's failures to their attempt."""
    bare = [line for line in node.shared if line.local_rank is None and line.rank is None]
    node.agent = read_agent(bare)
    for seen in node.agent.summary:
        if seen.local_rank is not None and seen.rank is not None:
            node.ranks[seen.local_rank] = seen.rank
    local_of = {rank: local for local, rank in node.ranks.items()}
    base = 0 if node.ranks else _first_rank(node)
    borders = sorted(seen.line.place for seen in node.agent.failed)
    rest: list[Line] = []
    for line in node.shared:
        local = (
            line.local_rank if line.local_rank is not None else local_of.get(line.rank if line.rank is not None else -1)
        )
        if local is None and line.rank is not None:
            # Of a rank that torchrun does not name, the global number has to do.
            local = line.rank - base if line.rank >= base else line.rank
            node.ranks.setdefault(local, line.rank)
            local_of[line.rank] = local
        if local is None:
            rest.append(line)
            continue
        attempt = min(sum(border < line.place for border in borders), max(0, len(borders) - 1))
        node.workers.setdefault((attempt, local), []).append(line)
    node.shared = _nccl_to_ranks(node, rest)


def _first_rank(node: Node) -> int:
    """The global rank of local rank 0 on a later node: its lines have global marks, and torchrun names local ranks."""
    ranks = {line.rank for line in node.shared if line.local_rank is None and line.rank is not None}
    failed = {seen.local_rank for seen in node.agent.failed if seen.local_rank is not None}
    if node.node_rank and ranks and not node.agent.failed and not node.agent.summary:
        return min(ranks)
    if not node.node_rank or not ranks or not failed or any(seen.rank is not None for seen in node.agent.failed):
        return 0
    return max(0, min(ranks) - (min(failed) if len(ranks) == len(failed) == 1 else 0))


NCCL = re.compile(r"\S{1,64}:\d+:\d+ \[(\d{1,3})\] .{0,80}NCCL ")
"""`gpu02:4711:4720 [3] NCCL WARN …`: host, pid, thread, and the device, which is the local rank."""


def _nccl_to_ranks(node: Node, lines: list[Line]) -> list[Line]:
    """Give NCCL's own lines to the rank of their device, where such a rank is known; the rest."""
    newest = {local: (attempt, local) for attempt, local in sorted(node.workers)}
    rest = []
    for line in lines:
        found = NCCL.match(line.text)
        key = newest.get(int(found[1])) if found else None
        if key is None:
            rest.append(line)
        else:
            node.workers[key].append(line)
            node.workers[key].sort(key=lambda line: line.place)
    return rest


def _number(nodes: Mapping[int, Node]) -> None:
    """Find the global ranks that no line names: by a neighbour's, else by counting the workers of the nodes before."""
    first: int | None = 0
    for node_rank in sorted(nodes):
        node = nodes[node_rank]
        locals_seen = {local for _, local in (*node.workers, *node.records)}
        locals_seen |= {seen.local_rank for seen in node.agent.failed if seen.local_rank is not None}
        bases = {rank - local for local, rank in node.ranks.items()}
        base = bases.pop() if len(bases) == 1 else None if bases else first
        if base is not None:
            for local in locals_seen:
                node.ranks.setdefault(local, base + local)
        first = base + max(locals_seen) + 1 if base is not None and locals_seen and base >= 0 else None


def _record(node: Node, source: Source) -> None:
    """A torchelastic error file: the exception that ended the rank, with its traceback and time."""
    key = (source.attempt, source.local_rank or 0)
    try:
        message = json.loads(source.data)["message"]
        extra = message.get("extraInfo", {}) if isinstance(message, dict) else {}
        text = str(extra.get("py_callstack") or "")
        if not text:
            text = "Traceback (most recent call last):\n" + str(message.get("message") if extra else message)
        if str(extra.get("timestamp", "")).isdigit():
            node.stamps[key] = float(extra["timestamp"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return
    whole = msgspec.structs.replace(source, data=text.encode("utf-8", "replace"), kind="worker")
    node.records[key] = [msgspec.structs.replace(line, number=1, offset=0) for line, _ in read(whole)]
    node.workers.setdefault(key, [])


def progress(lines: Iterable[Line], after: Line) -> bool:
    """Are there steps after that line, in its own file? Between files nobody knows what came first."""
    return any(
        one.file == after.file and one.place > after.place and PROGRESS.search(one.text) is not None for one in lines
    )


PROGRESS = re.compile(
    r"(?i:\b(?:step|epoch|iter(?:ation)?|loss)\b[^A-Za-z]{0,12}\d|\d ?(?:it/s|s/it)\b|tokens/s|samples/s)"
)
"""A step, for certain."""
