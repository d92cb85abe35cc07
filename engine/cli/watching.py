"""`launch`, `attach` and `demo`: a run, watched to its end or left alone."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING

from engine import plan, runs
from engine.cli.asking import Terminal, asked_profile, emit, run_async, say
from engine.cli.plain import JsonLines, Plain, Quiet
from engine.cli.preflight import checked, show_findings
from engine.errors import (
    EXIT_JOB_FAILED,
    EXIT_OK,
    EXIT_PREFLIGHT,
    RankdeckError,
)
from engine.preflight import fixes
from engine.profile import override
from engine.telling import progress

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable

    from engine.conversation import Conversation
    from engine.profile import Profile
    from engine.runs import RunFolder
    from engine.session import NodeStop, Session
    from engine.state import RunState
    from engine.transport import Connector

    View = Plain | JsonLines


REPLAY = 4096
"""Bytes of each log that `attach` shows again, so that a returning user sees where the run is."""


def view(options: Namespace) -> View:
    return JsonLines() if options.json else Plain()


def launch(options: Namespace) -> int:
    asked = asked_profile(options)
    detach, patience = options.detach, options.lost_after
    more = {"fix": options.fix, "detach": detach, "lost_after": patience, "collective": options.collective}
    return start(asked, options.skip, view(options), **more)


def demo(options: Namespace) -> int:
    from engine.demo import STEPS_AS_TEXT, demo_profile

    asked = demo_profile(STEPS_AS_TEXT if options.steps is None else options.steps)
    return start(asked, (), view(options), stop_on_leave=True)


def start(
    asked: Profile,
    skip: Iterable[str],
    viewer: View,
    *,
    fix: bool = False,
    collective: float = 0.0,
    detach: bool = False,
    stop_on_leave: bool = False,
    lost_after: float = 60.0,
) -> int:
    """Preflight, launch, then watch like any other viewer."""

    async def work(connector: Connector) -> int:
        from engine import launching
        from engine.fleet import close_all
        from engine.session import secret_values

        secret_values(asked, os.environ)
        where = "with Slurm" if asked.launcher == "slurm" else f"on {len(asked.nodes)} node(s)"
        viewer.say(f"preflight {where} …")
        found = await checked(asked, connector, skip, collective=collective)
        if fix and found.errors and (settings := fixes(found.findings)):
            await found.close()
            for setting in settings:
                viewer.say(f"--set {setting}")
            found = await checked(override(asked, settings), connector, skip, collective=collective)
        try:
            show_findings(found, sys.stderr, everything=False)
            if found.errors:
                await close_all(found.conversations)
                say(f"rankdeck: preflight found {len(found.errors)} error(s); nothing was started")
                return EXIT_PREFLIGHT
            made = found.plan(runs.new_name(asked.name))
            session, conversations = await launching.launch(found, made, connector, viewer, Terminal().accept)
        except BaseException:
            await close_all(found.conversations)
            raise
        viewer.say(f"run {made.run}: {made.world_size} ranks on {len(made.nodes)} node(s){batch_words(made)}")
        if detach:
            await close_all(conversations)
            session.summarise()
            emit({"type": "detached", "run": made.run}) if isinstance(viewer, JsonLines) else print(made.run)
            return EXIT_OK
        session.lost_after = lost_after
        return await watched(session, viewer, conversations, connector if stop_on_leave else None)

    return run_async(work)


def batch_words(made: plan.Plan) -> str:
    if made.global_batch is None:
        return ""
    return f", global batch {made.global_batch}" + (f", lr {made.lr:.6g}" if made.lr is not None else "")


def attach(options: Namespace) -> int:
    folder = runs.find(options.run)
    viewer = view(options)

    async def work(connector: Connector) -> int:
        session = opened(folder, connector, viewer)
        session.replay = REPLAY
        session.retell = options.json
        session.lost_after = options.lost_after
        viewer.say(f"run {folder.run}")
        return await watched(session, viewer, None)

    return run_async(work)


def run_of_job(options: Namespace) -> str:
    """The name of the run that is a Slurm job, by the job's number; its record comes here from the login node."""
    from engine.slurm.known import by_number

    found = []

    async def work(connector: Connector) -> int:
        number = str(options.run or "")
        found.append(await by_number(number, options.login, options.state_dir, connector, Terminal().accept))
        return EXIT_OK

    if run_async(work) != EXIT_OK:
        raise KeyboardInterrupt
    return found[0].run


def opened(folder: RunFolder, connector: Connector, viewer: View) -> Session:
    from engine.launching import opened as session_of

    session = session_of(folder, connector, viewer, Terminal().accept)
    viewer.session = session
    return session


async def stopped(folder: RunFolder, connector: Connector, grace: float) -> list[NodeStop]:
    """Stop a run on every node and fetch how it ended; what each node says is left."""
    session = opened(folder, connector, Quiet())
    results = await session.stop_now(grace)
    with contextlib.suppress(RankdeckError):
        await session.watch(once=True)
    return results


async def watched(
    session: Session,
    viewer: View,
    conversations: dict[int, Conversation] | None,
    stop_with: Connector | None = None,
) -> int:
    """Watch to the end; the job's exit code. Ctrl-C leaves the run alone, or stops it where it is nobody else's."""
    viewer.session = session
    if isinstance(viewer, Plain):
        session.wants = lambda node_rank, stream: True
    try:
        state = await session.watch(conversations)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            viewer.flush()
        session.summarise()
        run = session.folder.run
        if stop_with is not None:
            viewer.say("stopping …")
            for result in await stopped(session.folder, stop_with, 5.0):
                viewer.say(result.text)
        else:
            viewer.say(
                f"left; the run goes on\n  watch it again: rankdeck attach {run}\n  stop it: rankdeck stop {run}"
            )
        raise
    viewer.flush()
    return report(session, state, viewer)


def report(session: Session, state: RunState, viewer: View) -> int:
    """The end of a run in words, and its exit code."""
    viewer.say(progress(state, state.over_at or time.time()))
    for problem in session.problems:
        viewer.say(problem)
    if state.outcome == "succeeded":
        return EXIT_OK
    verdict = state.verdict()
    if state.outcome == "failed" and verdict is not None:
        viewer.say(f"first failure: {verdict.text}" + ("" if verdict.sure else " (perhaps itself a victim)"))
        for proof in verdict.proof:
            viewer.say(f"    {proof.file}:{proof.line}: {proof.text}")
        if verdict.remedy:
            viewer.say(f"  what to do: {verdict.remedy}")
        rank = f" --rank {verdict.rank} --stderr" if verdict.rank is not None and verdict.rank >= 0 else ""
        viewer.say(f"  read on: rankdeck logs {session.folder.run}{rank}")
    return EXIT_JOB_FAILED
