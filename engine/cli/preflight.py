"""`check` and `print`: what would happen, without starting anything."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from engine import launchers, runs
from engine.cli.asking import Terminal, asked_profile, emit, run_async
from engine.errors import (
    EXIT_OK,
    EXIT_PREFLIGHT,
)
from engine.preflight import CHECKS

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterable

    from engine.check import Preflight
    from engine.cli.plain import JsonLines, Plain
    from engine.preflight import Finding
    from engine.profile import Profile
    from engine.transport import Connector

    View = Plain | JsonLines


async def checked(
    asked: Profile, connector: Connector, skip: Iterable[str], told: Callable[[Finding], None] | None = None
) -> Preflight:
    """A whole preflight; `told` gets every finding as soon as it is final."""
    from engine.check import check as ask_nodes
    from engine.fleet import Fleet

    known: list[Finding] = []

    def changed(found: Preflight) -> None:
        for finding in found.findings:
            if told is not None and finding not in known and found.final(finding):
                known.append(finding)
                told(finding)

    fleet = Fleet(asked.nodes, asked.state_dir, connector, Terminal().accept)
    return await ask_nodes(asked, fleet, tuple(skip), changed)


def check(options: Namespace) -> int:
    asked = asked_profile(options)

    async def work(connector: Connector) -> int:
        found = await checked(asked, connector, options.skip, emit if options.json else None)
        await found.close()
        if not options.json:
            show_findings(found, everything=True)
        return EXIT_PREFLIGHT if found.errors else EXIT_OK

    return run_async(work)


MARKS = {"ok": "✓", "info": "·", "warning": "!", "error": "✗"}


def show_findings(found: Preflight, everything: bool) -> None:
    """Findings for a human: warnings and errors with evidence and remedy; `everything`: each check and infos too."""
    out = sys.stdout if everything else sys.stderr
    for name, check in CHECKS.items() if everything else ():
        worst = max((f.severity for f in found.findings if f.check == name), key=list(MARKS).index, default="ok")
        print(f"{MARKS[worst]} {name:<20} {check.title}", file=out)
    for finding in found.findings:
        if finding.severity == "info" and not everything:
            continue
        where = f"{finding.host}: " if finding.host else ""
        print(f"{finding.severity} [{finding.check}] {where}{finding.text}", file=out)
        for line in finding.evidence:
            print(f"    {line}", file=out)
        if finding.remedy:
            print(f"    remedy: {finding.remedy}", file=out)


def show_plan(options: Namespace) -> int:
    asked = asked_profile(options)
    launcher = launchers.find(asked.launcher)
    run = runs.new_name(asked.name)
    shown = options.format or launcher.FORMATS[0]
    if not options.resolve:
        sys.stdout.write(launcher.render(launcher.make_plan(asked, run), shown))
        return EXIT_OK

    async def work(connector: Connector) -> int:
        found = await checked(asked, connector, ())
        await found.close()
        sys.stdout.write(launcher.render(found.plan(run), shown))
        return EXIT_OK

    return run_async(work)
