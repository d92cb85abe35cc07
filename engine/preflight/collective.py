"""What a real all-reduce over all ranks showed: how fast it is, or which rank never came."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.preflight.findings import Note, Seen, check, error, info
from engine.text import clean_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.preflight.observation import Collective, Tried

NCCL_HELP = "see what its connections try: --set env.NCCL_DEBUG=INFO, then launch and read that rank's log"


@check("collective.works", needs=("collective",), across=True)
def works(seen: Seen) -> Iterator[Note]:
    """A real all-reduce over all ranks comes to its end, with the right sum."""
    parts = {rank: o.collective for rank, _, o in seen.nodes()}
    left_out = next((part.left_out for part in parts.values() if part.left_out), "")
    if left_out:
        yield info(None, f"the all-reduce is not tried, for {left_out}")
        return
    told: set[int] = set()
    for node, part in parts.items():
        if part.error:
            yield error(node, f"the all-reduce could not be started: {part.error}", remedy="try it again")
        for rank, tried in part.ranks.items():
            if (note := _failed(node, rank, tried)) is not None:
                told.add(rank)
                yield note
    yield from _hung(parts, told)
    if not told:
        yield from _silent(parts)
        yield from _measured(parts)


def _failed(node: int, rank: int, tried: Tried) -> Note | None:
    """A rank that failed by itself, and did not only wait for others."""
    evidence = clean_lines(tried.err, 5)
    for said in tried.said:
        if said.type == "error":
            text = f"rank {rank} fails in the all-reduce: {said.text}"
            return error(node, text, evidence=evidence, remedy=NCCL_HELP)
        if said.type == "size" and not said.right:
            text = f"the sum of {said.bytes} bytes is wrong"
            return error(node, text, remedy="a GPU or a network card corrupts data: find it by leaving nodes out")
    stuck = any(said.type == "stuck" for said in tried.said)
    if not stuck and tried.code not in (0, None):
        return error(node, f"rank {rank} ends with exit status {tried.code}", evidence=evidence, remedy=NCCL_HELP)
    return None


def _hung(parts: dict[int, Collective], told: set[int]) -> Iterator[Note]:
    """Whom the ranks that waited in vain waited for."""
    stuck = {r: s for p in parts.values() for r, t in p.ranks.items() for s in t.said if s.type == "stuck"}
    homes = {rank: node for node, part in parts.items() for rank in part.ranks}
    absent: dict[int, str] = {}
    for said in stuck.values():
        absent.update(dict.fromkeys(said.late, f"came, and then stopped before the stage “{said.stage}”"))
        absent.update(dict.fromkeys(said.missing, "never came to the all-reduce"))
    for rank, how in sorted(absent.items()):
        if rank in stuck or rank in told:
            continue
        told.add(rank)
        node = homes.get(rank)
        part = parts.get(node) if node is not None else None
        evidence = [f"rank {other}: {said.text}" for other, said in sorted(stuck.items())[:4]]
        evidence += clean_lines(part.ranks[rank].err or part.log, 5) if part is not None else []
        text = f"rank {rank} {how}: {len(stuck)} ranks waited for it in vain"
        yield error(node, text, evidence=evidence, remedy=f"see what it does there: py-spy dump; or {NCCL_HELP}")
    if told or not stuck:
        return
    for rank, said in sorted(stuck.items()):
        if said.unreachable:
            text = f"rank {rank} cannot reach rank 0: {said.text}"
            yield error(homes[rank], text, remedy="see mesh.master, and the address of the master")
            told.add(rank)
    if not told:
        told.update(stuck)
        stage = min(said.stage for said in stuck.values())
        yield error(
            None,
            f"all ranks came, and the stage “{stage}” does not end: the connections among them hang",
            evidence=[f"rank {rank}: {said.text}" for rank, said in sorted(stuck.items())[:6]],
            remedy=NCCL_HELP,
        )


def _silent(parts: dict[int, Collective]) -> Iterator[Note]:
    """Nodes whose torchrun failed before a rank could say anything."""
    for node, part in parts.items():
        if not part.error and (part.stopped or part.code not in (0, None)):
            how = "does not end" if part.stopped else f"ends with exit status {part.code}"
            evidence = clean_lines(part.log, 6)
            yield error(node, f"torchrun {how} there, and no rank says why", evidence=evidence, remedy=NCCL_HELP)


def _measured(parts: dict[int, Collective]) -> Iterator[Note]:
    said = [said for part in parts.values() for tried in part.ranks.values() for said in tried.said]
    sizes = [each for each in said if each.type == "size"]
    start = next((each for each in said if each.type == "start"), None)
    if sizes and start is not None:
        best = max(sizes, key=lambda each: each.bytes)
        size, speed = f"{best.bytes >> 20} MiB", f"{best.time_s * 1e3:.1f} ms, busbw {best.busbw:.2f} GB/s"
        text = f"all-reduce of {size} over {start.ranks} ranks ({start.backend}): {speed}"
        yield info(None, text, evidence=[each.text for each in sizes])
