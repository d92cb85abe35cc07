"""What earlier runs of ours left on the nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.preflight.findings import Note, Seen, check, info, warning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engine.preflight.observation import Job


@check("jobs.ours", needs=("jobs",))
def ours(seen: Seen) -> Iterator[Note]:
    """No run of ours is still alive there, and none that died has left processes behind."""
    for rank, _, observed in seen.nodes():
        jobs = observed.jobs
        runs: dict[str, list[Job]] = {}
        for process in jobs.found:
            runs.setdefault(process.job, []).append(process)
        for orphaned in (True, False):
            names = [name for name in runs if (name not in jobs.living) is orphaned]
            if not names:
                continue
            what = "dead, and has left processes" if orphaned else "still alive"
            count = "a run of ours is" if len(names) == 1 else f"{len(names)} runs of ours are"
            yield (warning if orphaned else info)(
                rank,
                f"{count} {what if len(names) == 1 else what.replace('has', 'have')}: {', '.join(names[:4])}",
                evidence=[f"{name}: {len(runs[name])} processes, the first {runs[name][0]}" for name in names[:8]],
                remedy=f"{'' if orphaned else 'if nobody needs it: '}{jobs.end(names[0])}",
            )
