"""The two lines above everything: what the run is, how it is, how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.cells import cell_len

from engine.telling import clock, number
from engine.throughput import paced, whole
from tui.dashboard.drawn import Drawn, Piece, fitting

if TYPE_CHECKING:
    from textual.strip import Strip

    from engine.state import RunState
    from tui.dashboard.panel import Scene


BARS = (24, 12, 6)
"""Columns that the bar may have which shows how far the run is: the most for which the words leave room."""


class HeaderPanel(Drawn, can_focus=False):
    """State, name, elapsed; then step, time left, throughput, loss, attempt."""

    key = "header"
    title = ""

    def rows(self, scene: Scene, width: int, height: int) -> list[Strip]:
        palette, state, glyphs = self.palette, scene.state, scene.glyphs
        outcome = standing(state, scene.live)
        style, sign = {
            "running": (palette.primary, glyphs.running),
            "starting": (palette.muted, glyphs.pending),
            "stopping": (palette.warning, glyphs.stopped),
            "succeeded": (palette.good, glyphs.ok),
            "failed": (palette.bad, glyphs.error),
            "stopped": (palette.warning, glyphs.stopped),
            "not watched": (palette.muted, glyphs.lost),
        }[outcome]
        until = state.over_at or scene.now
        elapsed = clock(until - state.started) if state.started is not None else "-"
        away = sum(node.link == "broken" and not node.over for node in state.nodes.values())
        first: list[list[Piece]] = [
            [(f" {sign} {outcome.upper()} ", style), (f" {elapsed}  ", palette.strong), (state.plan.run, palette.text)]
        ]
        if state.attempt:
            first.append([(f"  attempt {state.attempt + 1}", palette.warning)])
        if away:
            first.append([(f"  {away} unreachable", palette.bad)])
        count = len(state.nodes)
        first.append([(f"  {count} node{'s' * (count > 1)}, {state.plan.world_size} ranks", palette.muted)])
        return [fitting(line, width).crop(0, width) for line in (first, self._progress(scene, width))]

    def _progress(self, scene: Scene, width: int) -> list[list[Piece]]:
        palette, state, glyphs = self.palette, scene.state, scene.glyphs
        metric = state.metric
        verdict = state.verdict() if state.outcome == "failed" else None
        if verdict is not None:
            return [[(f" {verdict.cause}", palette.bad)]]
        if metric is None:
            waiting = "no progress line has been read yet" if not state.over else "no progress line was read"
            if state.job is not None and state.started is None:
                waiting = state.job.text
            return [[(f" {waiting}", palette.muted)]]
        pieces: list[list[Piece]] = []
        if metric.step is not None and metric.total:
            share = min(1.0, max(0.0, metric.step / metric.total))
            pieces += [
                [(f" {share:4.0%}", palette.strong), (f"  step {metric.step:,}/{metric.total:,}", palette.text)],
            ]
        elif metric.step is not None:
            pieces.append([(f" step {metric.step:,}", palette.text)])
        left = remaining(scene)
        if left is not None:
            pieces.append([("  left ", palette.muted), (clock(left), palette.text)])
        if metric.loss is not None:
            pieces.append([("  loss ", palette.muted), (number(metric.loss), palette.strong)])
        all_ranks = whole(metric, scene.state.plan)
        if all_ranks is not None:
            pieces.append([(f"  {paced(all_ranks.rate)} ", palette.strong), (all_ranks.unit, palette.muted)])
        elif isinstance(metric.rate, (int, float)):
            pieces.append([(f"  {paced(metric.rate)} ", palette.strong), (metric.rate_unit, palette.muted)])
        if isinstance(metric.step_time, (int, float)):
            pieces.append([(f"  {metric.step_time:.3g} ", palette.text), ("s/step", palette.muted)])
        room = width - 1 - sum(cell_len(text) for group in pieces for text, _ in group)
        bar = next((size for size in BARS if size <= room), 0)
        if metric.step is not None and metric.total and bar:
            done = round(share * bar)
            pieces.insert(0, [(" " + glyphs.bar * done, palette.primary), (glyphs.track * (bar - done), palette.muted)])
        if all_ranks is not None and isinstance(metric.rate, (int, float)):
            pieces.append([(f"  from {paced(metric.rate)} {metric.rate_unit}", palette.muted)])
        return pieces


def standing(state: RunState, live: bool) -> str:
    """The state of the run in one word; a run that is not over and not read any more is “not watched”."""
    if state.outcome != "running":
        return state.outcome
    if not live:
        return "not watched"
    if state.stop_reason is not None:
        return "stopping"
    return "running" if state.workers else "starting"


def remaining(scene: Scene) -> float | None:
    """Seconds to the last step: as the program says, or by the pace of the last points."""
    metric, points = scene.state.metric, scene.curves.points
    if metric is None or scene.state.over:
        return None
    if isinstance(metric.eta, (int, float)):
        return float(metric.eta)
    if metric.step is None or not metric.total or len(points) < 2:
        return None
    recent = points[-64:]
    steps = recent[-1].step - recent[0].step
    pace = (recent[-1].t - recent[0].t) / steps if steps > 0 else 0.0
    return max(0.0, (metric.total - metric.step) * pace) if pace > 0 else None
