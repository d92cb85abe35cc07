"""`diagnose`: the first real failure, of a run of ours or out of the logs of anybody's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine import diagnosis, runs
from engine.cli.asking import emit, run_async, say
from engine.cli.plain import Quiet
from engine.cli.watching import opened
from engine.errors import EXIT_MACHINE, EXIT_OK, RequestError
from engine.evidence import read_sources

if TYPE_CHECKING:
    from argparse import Namespace

    from engine.diagnosis import Verdict
    from engine.transport import Connector


def diagnose(options: Namespace) -> int:
    if all(Path(path).exists() for path in options.paths):
        show(diagnosis.diagnose(read_sources(options.paths)), options.json)
        return EXIT_OK
    if len(options.paths) > 1 or "/" in options.paths[0]:
        missing = next(path for path in options.paths if not Path(path).exists())
        raise RequestError(f"{missing}: no such file or folder", remedy="give one file a node, or the name of one run")
    folder = runs.find(options.paths[0])

    async def work(connector: Connector) -> int:
        session = opened(folder, connector, Quiet())
        # A rank that hangs has not failed: the words of all of them count.
        session.wants = lambda node_rank, stream: not stream.endswith("stdout.log")
        state = await session.watch(once=True)
        verdict = state.verdict()
        if verdict is None and state.outcome != "succeeded":
            hosts = {node.node_rank: node.host for node in state.nodes.values()}
            verdict = diagnosis.diagnose(list(state.logs.values()), None, hosts, folder.run)
        if state.outcome == "stopped" and verdict is not None and not verdict.sure:
            say("the run was stopped before anything failed")
            verdict = None
        show(verdict, options.json)
        away = [node.host for node in state.nodes.values() if node.link == "broken"]
        if away:
            say(f"rankdeck: {', '.join(away)} did not answer; judged is what had been fetched before")
        return EXIT_MACHINE if away else EXIT_OK

    return run_async(work)


def show(verdict: Verdict | None, as_json: bool) -> None:
    """The verdict on stdout: one JSON object, or for a human."""
    if as_json:
        emit(as_object(verdict))
    elif verdict is None:
        print("nothing failed, as far as these logs tell")
    else:
        doubt = "" if verdict.sure else " (a victim: what went wrong is not in these logs)"
        print(f"{verdict.cause}{doubt}")
        for proof in verdict.proof:
            print(f"    {proof.file}:{proof.line}: {proof.text}")
        print(f"  what to do: {verdict.remedy}")
        print(f"  rule {verdict.rule}, {verdict.confidence:.0%} sure")


def as_object(verdict: Verdict | None) -> dict[str, Any]:
    """`rule`, `role`, `node_rank`, `rank`, `cause`, `evidence`, `remedy`, `confidence`; `rule` is null where nothing
    failed."""
    if verdict is None:
        nothing = dict.fromkeys(("rule", "role", "node_rank", "rank"))
        return {**nothing, "cause": "nothing failed", "evidence": [], "remedy": "", "confidence": 0.8}
    return {
        "rule": verdict.rule,
        "role": verdict.role,
        "node_rank": verdict.node_rank,
        "rank": verdict.rank,
        "cause": verdict.cause,
        "evidence": [{"file": proof.file, "line": proof.line, "text": proof.text} for proof in verdict.proof],
        "remedy": verdict.remedy,
        "confidence": verdict.confidence,
    }
