"""Runs by launcher: one way to check, start and open a run, whoever starts its ranks.

`check` gives a preflight, `launch` takes it over and gives a session, `opened` gives the session of a run that exists.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from engine.check import Preflight, gladly
from engine.errors import RequestError
from engine.fleet import Fleet, no
from engine.session import Session
from engine.slurm.adopted import AdoptedSession
from engine.slurm.preflight import JobPreflight
from engine.slurm.session import JobSession

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from engine.check import Consent
    from engine.conversation import Conversation
    from engine.fleet import Accept
    from engine.plan import Plan
    from engine.profile import Profile
    from engine.runs import RunFolder
    from engine.transport import Connector
    from engine.watch import Viewer

    AnyPreflight = Preflight | JobPreflight


def preflight(
    profile: Profile,
    connector: Connector,
    accept: Accept = no,
    skip: Collection[str] = (),
    changed: Callable[[], None] = lambda: None,
    measure: bool | None = False,
    collective: float = 0.0,
    consent: Consent = gladly,
) -> AnyPreflight:
    """A preflight that has not begun: `await made.run()`. RequestError for what cannot be asked of its launcher."""
    if profile.launcher == "slurm":
        if measure or collective:
            why = "nodes that Slurm has not chosen yet cannot be measured"
            raise RequestError(why, remedy="leave out --speed and --collective")
        return JobPreflight(profile, connector, accept, skip, changed)
    fleet = Fleet(profile.nodes, profile.state_dir, connector, accept)
    return Preflight(profile, fleet, skip, changed, measure=measure, collective=collective, consent=consent)


async def launch(
    checked: AnyPreflight, plan: Plan, connector: Connector, viewer: Viewer, accept: Accept = no
) -> tuple[Session, dict[int, Conversation]]:
    """Start the run; the session takes the conversations over. RankdeckError where nothing was started."""
    if isinstance(checked, JobPreflight):
        return await JobSession.submit(checked, plan, connector, viewer, accept)
    return await Session.launch(checked, plan, connector, viewer, accept)


def opened(folder: RunFolder, connector: Connector, viewer: Viewer, accept: Accept = no) -> Session:
    """The session of a run that exists."""
    record = folder.record()
    kind = Session if record.profile.launcher != "slurm" else JobSession if record.plan.texts else AdoptedSession
    return kind(folder, connector, viewer, accept)
