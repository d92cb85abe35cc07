"""`check` and `print`: what would happen, without starting anything."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from typing import TYPE_CHECKING, TextIO

from engine import launchers, profile, runs, shelf
from engine.cli.asking import Terminal, asked_profile, emit, run_async, say
from engine.cli.plain import redraws
from engine.errors import (
    EXIT_OK,
    EXIT_PREFLIGHT,
)
from engine.preflight import MARKS, fixes, mesh, picture
from engine.preflight.matrix import MARKS as CELL_MARKS
from engine.preflight.matrix import ORDER

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Iterable

    from engine.cli.plain import JsonLines, Plain
    from engine.launching import AnyPreflight
    from engine.preflight import Finding
    from engine.profile import Profile
    from engine.transport import Connector

    View = Plain | JsonLines

ALIKE = 4
"""Infos of one check that are worth a line each."""


async def checked(
    asked: Profile,
    connector: Connector,
    skip: Iterable[str],
    told: Callable[[Finding], None] | None = None,
    measure: bool | None = False,
    collective: float = 0.0,
) -> AnyPreflight:
    """A whole preflight; `told` gets every finding as soon as it is final; the rest is as `Preflight` has it."""
    from engine.launching import preflight

    known: list[Finding] = []

    def changed() -> None:
        if redraws(sys.stderr):
            cells = found.cells().values()
            waiting = sum(cell.state == "waiting" for cell in cells)
            sys.stderr.write(f"\r\x1b[Kpreflight: {len(cells) - waiting} of {len(cells)} …" if waiting else "\r\x1b[K")
            sys.stderr.flush()
        for finding in found.findings:
            if told is not None and finding not in known and found.final(finding):
                known.append(finding)
                told(finding)

    terminal = Terminal()
    found = preflight(
        asked, connector, terminal.accept, tuple(skip), changed, measure, collective, consent=terminal.consent
    )
    try:
        await found.run()
    except asyncio.CancelledError:
        if redraws(sys.stderr):
            sys.stderr.write("\r\x1b[K")
        raise
    return found


def check(options: Namespace) -> int:
    asked = asked_profile(options)

    async def work(connector: Connector) -> int:
        told = emit if options.json and not options.fix else None
        more = {"measure": options.speed, "collective": options.collective}
        found = await checked(asked, connector, options.skip, told, **more)
        await found.close()
        if options.fix and (settings := fixes(found.findings)):
            path = shelf.find(options.profile)
            profile.save(path, profile.override(profile.load(path), settings))
            for setting in settings:
                say(f"{path}: {setting}")
            found = await checked(profile.override(asked, settings), connector, options.skip, None, **more)
            await found.close()
        if options.json and options.fix:
            for finding in found.findings:
                emit(finding)
        elif not options.json:
            show_matrix(found)
            show_findings(found, sys.stdout, everything=True)
        return EXIT_PREFLIGHT if found.errors else EXIT_OK

    return run_async(work)


def show_matrix(found: AnyPreflight) -> None:
    """Node × group of checks; and who cannot connect to whom, where that is so."""
    from engine.check import Preflight

    if not isinstance(found, Preflight):
        for (_, name), cell in found.cells().items():
            print(f"{CELL_MARKS[cell.state]} {name:<14} {found.checks[name].title}")
        print()
        return
    print("\n".join(picture(found.profile, found.cells())))
    if any(finding.check.startswith("mesh.") and finding.severity != "info" for finding in found.findings):
        print("\nconnections, from row to column, ms of a round trip:")
        print("\n".join(mesh.picture(found.profile, found.observations)))
    print()


def show_findings(found: AnyPreflight, out: TextIO, everything: bool) -> None:
    """Findings for a human, with evidence and remedy: the worst first; infos only with `everything`, and few alike."""
    infos = Counter(finding.check for finding in found.findings if finding.severity == "info")
    told: Counter[str] = Counter()
    for finding in sorted(found.findings, key=lambda finding: -ORDER.index(finding.severity)):
        if finding.severity == "info":
            told[finding.check] += 1
            if everything and told[finding.check] == ALIKE + 1:
                more = infos[finding.check] - ALIKE
                print(f"{MARKS['info']} info [{finding.check}] and {more} more: --json tells all", file=out)
            if not everything or told[finding.check] > ALIKE:
                continue
        where = f"{finding.host}: " if finding.host else ""
        print(f"{MARKS[finding.severity]} {finding.severity} [{finding.check}] {where}{finding.text}", file=out)
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
