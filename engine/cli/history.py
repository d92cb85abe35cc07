"""`runs`, `stop`, `logs`, `pull` and `reap`: runs that exist already."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import runs
from engine.cli.asking import Terminal, asked_profile, emit, run_async, say, show_table
from engine.cli.plain import JsonLines, Plain, Quiet
from engine.cli.watching import opened, stopped
from engine.errors import (
    EXIT_JOB_FAILED,
    EXIT_MACHINE,
    EXIT_OK,
    RankdeckError,
    RequestError,
)
from engine.telling import clock
from engine.text import clean

if TYPE_CHECKING:
    from argparse import Namespace

    from engine.conversation import Conversation
    from engine.events import Left
    from engine.transport import Connector

    View = Plain | JsonLines


def list_runs(options: Namespace) -> int:
    rows = []
    for folder in runs.listing():
        try:
            record = folder.record()
        except RequestError as error:
            say(f"rankdeck: {error}")
            continue
        summary = folder.summary()
        if options.json:
            emit(
                {
                    "run": folder.run,
                    "profile": record.profile.name,
                    "created": record.created,
                    "hosts": [node.host for node in record.plan.nodes],
                    "world_size": record.plan.world_size,
                    "summary": summary,
                }
            )
            continue
        outcome = summary.outcome if summary else "unknown"
        if summary and outcome == "running":
            outcome = f"running, seen {age(summary.seen)} ago"
        step = "-"
        if summary and summary.step is not None:
            step = f"{summary.step}/{summary.total}" if summary.total else str(summary.step)
        started = time.strftime("%Y-%m-%d %H:%M", time.localtime(record.created))
        nodes, ranks = str(len(record.plan.nodes)), str(record.plan.world_size)
        rows.append((folder.run, outcome, nodes, ranks, step, started, clean(summary.text, 60) if summary else ""))
    if rows:
        show_table(("RUN", "STATE", "NODES", "RANKS", "STEP", "STARTED", ""), rows)
    elif not options.json:
        say("no runs yet; start one: rankdeck launch PROFILE, or rankdeck demo")
    return EXIT_OK


def age(then: float) -> str:
    return clock(time.time() - then)


def stop(options: Namespace) -> int:
    folder = runs.find(options.run)

    async def work(connector: Connector) -> int:
        say(f"stopping {folder.run}: SIGTERM, {options.grace:g} s of grace, then SIGKILL …")
        try:
            results = await stopped(folder, connector, options.grace)
        except asyncio.CancelledError:
            say(f"left; nodes that were asked go on stopping it\n  see what is left: rankdeck stop {folder.run}")
            raise
        code = EXIT_OK
        for result in results:
            if options.json:
                emit(result)
            else:
                print(result.text)
            if result.error:
                code = EXIT_MACHINE
            elif result.left and code == EXIT_OK:
                code = EXIT_JOB_FAILED
        return code

    return run_async(work)


def logs(options: Namespace) -> int:
    folder = runs.find(options.run)
    viewer: View = LinesAsJson() if options.json else OneRank() if options.rank is not None else Plain()

    async def work(connector: Connector) -> int:
        session = opened(folder, connector, viewer)
        made = session.record.plan
        if options.rank is not None and not 0 <= options.rank < made.world_size:
            raise RequestError(f"there is no rank {options.rank}; the run has ranks 0 to {made.world_size - 1}")
        wanted = "stderr" if options.stderr else "stdout"

        def wants(node_rank: int, stream: str) -> bool:
            about = session.state.nodes[node_rank].streams.get(stream)
            if about is None or about.stream != wanted:
                return False
            return options.rank is None or session.state.rank_of(node_rank, about) == options.rank

        session.wants = wants
        session.replay = sys.maxsize
        state = await session.watch(once=not options.follow)
        viewer.flush()
        away = [node.host for node in state.nodes.values() if node.link == "broken"]
        if away:
            say(f"rankdeck: {', '.join(away)} did not answer; shown is what had been fetched before")
        return EXIT_MACHINE if away else EXIT_OK

    return run_async(work)


class OneRank(Quiet):
    """One rank's log on stdout: byte for byte into a file or pipe, made safe on a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._safe = sys.stdout.isatty()
        self._carry = b""

    def log(self, node_rank: int, stream: str, data: bytes) -> None:
        if not self._safe:
            sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
            return
        *lines, self._carry = (self._carry + data).split(b"\n")
        for line in lines:
            print(clean(line.decode("utf-8", "replace")))

    def flush(self) -> None:
        if self._carry:
            print(clean(self._carry.decode("utf-8", "replace")))


class LinesAsJson(Plain):
    """Each line as an object on stdout: rank, node_rank, host, stream ("stdout", "stderr") and text."""

    def _print(self, key: tuple[int, str], whole: bytes) -> None:
        assert self.session is not None
        node_rank, stream = key
        state = self.session.state
        node = state.nodes[node_rank]
        about = node.streams[stream]
        line = {"rank": state.rank_of(node_rank, about), "node_rank": node_rank, "host": node.host}
        for text in whole.decode("utf-8", "replace").split("\n"):
            emit({**line, "stream": about.stream, "text": clean(text)})
        sys.stdout.flush()


def pull(options: Namespace) -> int:
    from engine.node.xtuner import COLLECTED

    folder = runs.find(options.run)

    async def work(connector: Connector) -> int:
        session = opened(folder, connector, Quiet())
        session.wants = lambda node_rank, stream: True
        session.also = (COLLECTED,)
        state = await session.watch(once=True)
        target = folder.path
        if options.directory is not None:
            target = Path(options.directory)
            try:
                shutil.copytree(folder.path, target, dirs_exist_ok=True)
            except (OSError, shutil.Error) as error:
                raise RequestError(f"{target} cannot be written: {error}") from None
        for path in sorted(path for path in target.rglob("*") if path.is_file()):
            size, name = path.stat().st_size, str(path.relative_to(target))
            emit({"file": name, "bytes": size}) if options.json else print(f"{size:>12}  {name}")
        away = [node.host for node in state.nodes.values() if node.link == "broken"]
        say(f"in {target}" + (f"; not everything: {', '.join(away)} did not answer" if away else ""))
        return EXIT_MACHINE if away else EXIT_OK

    return run_async(work)


def reap(options: Namespace) -> int:
    asked = asked_profile(options)

    async def work(connector: Connector) -> int:
        from engine.conversation import lefts
        from engine.fleet import Fleet, close_all

        fleet = Fleet(asked.nodes, asked.state_dir, connector, Terminal().accept)
        conversations = await fleet.dial_all()
        code = EXIT_OK

        async def one(rank: int, conversation: Conversation | RankdeckError) -> dict[str, Any] | RankdeckError:
            if isinstance(conversation, RankdeckError):
                return conversation
            try:
                return await conversation.ask("sweep", timeout=60.0, kill=not options.dry_run)
            except RankdeckError as error:
                return error

        answers = await asyncio.gather(*(one(rank, c) for rank, c in conversations.items()))
        for node, answer in zip(asked.nodes, answers, strict=True):
            if isinstance(answer, RankdeckError):
                say(f"rankdeck: {answer}")
                code = EXIT_MACHINE
                continue
            left: tuple[Left, ...] = lefts(answer)
            code = code or (EXIT_JOB_FAILED if left else EXIT_OK)
            living = set(answer.get("living", []))
            found = [process for process in answer.get("found", []) if process.get("job") not in living]
            for process in found:
                if options.json:
                    emit({"host": node.host, **process})
                else:
                    words = f"{process.get('pid')} {clean(str(process.get('cmd', '')), 80)}"
                    verb = "would remove" if options.dry_run else "removed"
                    print(f"{node.host}: {verb} {words} (run {clean(str(process.get('job')), 80)})")
            for job in sorted(living):
                say(f"{node.host}: run {clean(str(job), 80)} is alive and left alone; to end it: rankdeck stop")
            if not found:
                say(f"{node.host}: nothing of ours is left")
            for process_left in left:
                say(f"{node.host}: cannot be removed: {process_left.pid} {process_left.comm} ({process_left.state})")
        await close_all(conversations)
        return code

    return run_async(work)
