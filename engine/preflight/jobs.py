"""What earlier runs of ours left on the nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.preflight.findings import Note, Seen, check, info

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.preflight.observation import Job


@check("jobs.ours", needs=("jobs",))
def ours(seen: Seen) -> Iterator[Note]:
    """No run of ours is still alive there."""
    for rank, _, observed in seen.nodes():
        runs: dict[str, list[Job]] = {}
        for job in observed.jobs.found:
            runs.setdefault(job.job, []).append(job)
        listed = list(runs.items())[:8]
        if runs:
            yield info(
                rank,
                f"{len(runs)} run{'s' * (len(runs) > 1)} of ours still alive: {', '.join(list(runs)[:4])}",
                evidence=[f"{name}: {len(group)} processes, the first {group[0]}" for name, group in listed],
                remedy="if nobody needs them: rankdeck reap PROFILE",
            )
