"""A run by the number of its Slurm job, whoever submitted it, from whichever machine: its record lies with its logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from engine import runs
from engine.errors import NodeRefused, RequestError
from engine.fleet import no
from engine.profile import Profile, Program, Slurm
from engine.runs import Record, RunFolder
from engine.slurm.login import Login, ask

if TYPE_CHECKING:
    from engine.fleet import Accept
    from engine.transport import Connector


async def by_number(number: str, login: str, state_dir: str, connector: Connector, accept: Accept = no) -> RunFolder:
    """The run of this job, known here from now on. RequestError where no run of Rankdeck's is this job.

    `login` is the [user@]host where sbatch is, `state_dir` the profile's.
    """
    asked = Profile(
        version=1,
        name="job",
        launcher="slurm",
        program=Program(path="-"),
        slurm=Slurm(login=login),
        state_dir=state_dir,
    )
    conversation = await Login(asked, connector, accept).dial(0)
    try:
        text = str((await ask(conversation, "named", job=number))["record"])
    except NodeRefused as refused:
        remedy = "its output can be read like any log: rankdeck metrics FILE, rankdeck diagnose FILE"
        raise RequestError(refused.text, node=refused.node, remedy=remedy) from None
    finally:
        await conversation.close()
    try:
        record = msgspec.json.decode(text, type=Record)
    except msgspec.MsgspecError as error:
        raise RequestError(f"the record of job {number} cannot be read: {error}", node=conversation.host) from None
    if not runs.RUN.fullmatch(record.run) or record.profile.slurm is None:
        raise RequestError(f"the record of job {number} is none of a Slurm job", node=conversation.host)
    folder = RunFolder(runs.watched() / record.run)
    if folder.path.exists():
        return folder
    # The way to the login node is this machine's own.
    slurm = msgspec.structs.replace(record.profile.slurm, login=login)
    profile = msgspec.structs.replace(record.profile, slurm=slurm, state_dir=state_dir)
    return RunFolder.create(msgspec.structs.replace(record, profile=profile))
