"""A run by the number of its Slurm job, whoever submitted it, from whichever machine: its record lies with its logs."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import msgspec

from engine import runs
from engine.errors import NodeRefused, RequestError
from engine.fleet import no
from engine.profile import Profile, Program, Slurm
from engine.runs import Record, RunFolder
from engine.slurm import adopted
from engine.slurm.login import LOCAL, Login, ask

if TYPE_CHECKING:
    from engine.conversation import Conversation
    from engine.fleet import Accept
    from engine.transport import Connector


async def by_number(number: str, login: str, state_dir: str, connector: Connector, accept: Accept = no) -> RunFolder:
    """The run that is this job, known here from now on. RequestError where Slurm does not know the job.

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
        record = await _record(conversation, number, login, state_dir)
    finally:
        await conversation.close()
    if not runs.RUN.fullmatch(record.run) or record.profile.slurm is None:
        raise RequestError(f"the record of job {number} is none of a Slurm job", node=login or LOCAL)
    folder = RunFolder(runs.watched() / record.run)
    if folder.path.exists():
        return folder
    # The way to the login node is this machine's own.
    slurm = msgspec.structs.replace(record.profile.slurm, login=login)
    profile = msgspec.structs.replace(record.profile, slurm=slurm, state_dir=state_dir)
    return RunFolder.create(msgspec.structs.replace(record, profile=profile))


async def _record(conversation: Conversation, number: str, login: str, state_dir: str) -> Record:
    """The record that lies with the job's logs, or for a job of other means one that is made for it now."""
    with contextlib.suppress(NodeRefused):
        text = str((await ask(conversation, "named", job=number))["record"])
        try:
            return msgspec.json.decode(text, type=Record)
        except msgspec.MsgspecError as error:
            raise RequestError(f"the record of job {number} cannot be read: {error}", node=conversation.host) from None
    try:
        record = adopted.record_of(await ask(conversation, "adopt", job=number), login, state_dir)
    except NodeRefused as refused:
        remedy = "its output can be read like any log: rankdeck metrics FILE, rankdeck diagnose FILE"
        raise RequestError(refused.text, node=refused.node, remedy=remedy) from None
    if record is None:
        raise RequestError(f"what Slurm says of job {number} makes no sense", node=conversation.host)
    return record
