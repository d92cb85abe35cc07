"""The arithmetic of the batch step: ranks, global batch, learning rate, what each node gets. Pure."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from engine import batch
from engine.launchers import slurm
from engine.plan import NodeFacts, known_ranks, totals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.preflight import Observations
    from engine.profile import Profile

STRETCH = 32
"""From this factor between base_batch and the real one on, a scaled rate is far from where it was tuned."""


class Sums(msgspec.Struct, frozen=True, kw_only=True):
    """`ranks` by node, None where it is not known; `lines` as (what, how it comes to it); `warnings` in words."""

    ranks: tuple[int | None, ...]
    lines: tuple[tuple[str, str], ...]
    split: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def world_size(self) -> int | None:
        known = [count for count in self.ranks if count is not None]
        return sum(known) if len(known) == len(self.ranks) and known else None


def sums(profile: Profile, facts: Mapping[int, NodeFacts], observations: Observations) -> Sums:
    """What the answers come to."""
    names, ranks = _ranks(profile, facts)
    unknown = [name for name, count in zip(names, ranks, strict=True) if count is None]
    made = Sums(ranks=ranks, lines=(), split=(), warnings=())
    world, asked = made.world_size, profile.batch
    if world is None:
        why = f"{_some(unknown)} not counted yet" if unknown else "no nodes yet"
        return msgspec.structs.replace(made, lines=(("ranks", why),))
    lines = [("ranks", f"{_product(ranks)} = {world}" if len(ranks) > 1 else str(world))]
    if asked is None or min(asked.per_device, asked.grad_accum, asked.base_batch or 1) < 1:
        return msgspec.structs.replace(made, lines=tuple(lines))
    total, lr = totals(profile, world)
    lines.append(
        ("global batch", f"{asked.per_device} × {world} ranks × {asked.grad_accum} = {total:,} samples a step")
    )
    if total and asked.sequence_length and asked.sequence_length > 0:
        tokens = total * asked.sequence_length
        lines.append(("tokens", f"{total:,} × {asked.sequence_length:,} = {tokens:,} tokens a step"))
    if lr is not None and asked.base_lr is not None:
        lines.append(("learning rate", f"{_scaled(profile, total or 1)} = {batch.lr_text(lr)}"))
    each = asked.per_device * asked.grad_accum
    split = tuple(
        f"{name}: {_plural(count, 'rank')}, {count * each:,} samples a step ({count / world:.0%})"
        for name, count in _alike(names, ranks, each)
    )
    return Sums(
        ranks=ranks,
        lines=tuple(lines),
        split=split,
        warnings=tuple(_warnings(profile, ranks, observations, total or 1)),
    )


def _ranks(profile: Profile, facts: Mapping[int, NodeFacts]) -> tuple[list[str], tuple[int | None, ...]]:
    if profile.launcher == "slurm" and profile.slurm is not None:
        sizes = [slurm.ranks(group) for group in slurm.groups(profile.slurm) for _ in range(group.nodes)]
        return [f"node {rank}" for rank in range(len(sizes))], tuple(sizes)
    nodes = profile.nodes
    counts = tuple(known_ranks(node, facts.get(rank, NodeFacts())) for rank, node in enumerate(nodes))
    return [node.host for node in nodes], counts


def _scaled(profile: Profile, total: int) -> str:
    asked = profile.batch
    assert asked is not None and asked.base_lr is not None
    base = batch.lr_text(asked.base_lr)
    ratio = f"{total} ÷ {asked.base_batch or total}"
    return {"linear": f"{base} × {ratio}", "sqrt": f"{base} × √({ratio})"}.get(asked.lr_scaling, base)


def _warnings(profile: Profile, ranks: tuple[int | None, ...], observations: Observations, total: int) -> list[str]:
    found = []
    counts = Counter(ranks)
    if len(counts) > 1:
        sizes = " and ".join(str(count) for count in sorted(counts, key=lambda n: n or 0))
        found.append(
            f"nodes have {sizes} ranks: every rank takes the same batch, and a step waits for the slowest of them"
        )
    cards = {
        gpu.name: gpu.total
        for seen in observations.values()
        if not isinstance(seen, Exception)
        for gpu in seen.gpus.usable
        if gpu.name
    }
    if len(cards) > 1:
        small = min(cards, key=lambda name: cards[name] or 0)
        room = f" ({cards[small] or 0:,} MiB)" if cards[small] else ""
        found.append(f"the GPUs differ: {', '.join(cards)}; the batch per device has to fit {small}{room}")
    asked = profile.batch
    if asked is not None and asked.base_lr is not None and asked.base_batch and asked.lr_scaling != "none":
        factor = total / asked.base_batch
        if factor >= STRETCH or factor <= 1 / STRETCH:
            far = f"{factor:g} times" if factor > 1 else f"1/{1 / factor:g} of"
            found.append(f"the global batch is {far} the base batch: so far off, the rule is a guess; warm up")
    return found


def _alike(names: list[str], ranks: tuple[int | None, ...], each: int) -> list[tuple[str, int]]:
    """Nodes with the same share under one line, as `gpu01 … gpu08 each`."""
    groups: dict[int, list[str]] = {}
    for name, count in zip(names, ranks, strict=True):
        groups.setdefault(count or 0, []).append(name)
    return [(found[0] if len(found) == 1 else f"{_some(found)} each", count) for count, found in groups.items()]


def _product(ranks: tuple[int | None, ...]) -> str:
    counts = Counter(ranks)
    return " + ".join(f"{times} × {count}" if times > 1 else str(count) for count, times in counts.items())


def _some(names: list[str]) -> str:
    if len(names) <= 3:
        return ", ".join(names)
    return f"{names[0]} … {names[-1]} ({len(names)} nodes)"


def _plural(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")
