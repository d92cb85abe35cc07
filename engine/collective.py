"""A real all-reduce over all ranks of a job, started as the job will be: bounded in time, and nothing of it is left."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from typing import TYPE_CHECKING, Any

import msgspec

from engine import launchers
from engine.errors import ConnectionLost, MachineError
from engine.plan import job_of
from engine.preflight.observation import Collective, Said, Tried
from engine.text import clean, clean_lines

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engine.conversation import Conversation
    from engine.plan import NodeFacts, NodePlan
    from engine.profile import Profile

SECONDS = 60.0
"""What a trial may take by default, the import of torch on a cold disk included."""
MARGIN = 5.0
"""Seconds that torchrun gets beyond that to end."""
SIZES = {True: "4M,64M,256M", False: "1M,16M"}
"""With GPUs and without, as `engine.train.allreduce` reads them."""
SAID_LINES = 64


def trial(profile: Profile, with_gpus: bool, seconds: float) -> Profile:
    """The profile whose program is the all-reduce: everything else, and so the way it is launched, stays."""
    args = ("--json", "--sizes", SIZES[with_gpus], "--timeout", f"{seconds:g}")
    program = msgspec.structs.replace(profile.program, kind="module", path="engine.train.allreduce", args=args)
    rendezvous = msgspec.structs.replace(profile.rendezvous, max_restarts=0)
    return msgspec.structs.replace(profile, program=program, rendezvous=rendezvous)


async def collective(
    profile: Profile,
    facts: Mapping[int, NodeFacts],
    conversations: Mapping[int, Conversation],
    with_gpus: bool,
    seconds: float = SECONDS,
) -> dict[int, Collective | ConnectionLost]:
    """Every node's part. RequestError where no plan can be made; cancelled, it stops the ranks before it goes."""
    plan = launchers.find("torchrun").make_plan(
        trial(profile, with_gpus, seconds), f"check-{secrets.token_hex(4)}", facts
    )
    values = {name: os.environ[name] for name in profile.secrets if name in os.environ}

    async def one(node: NodePlan) -> Collective | ConnectionLost:
        rank = node.node_rank
        about = {"run": plan.run, "node_rank": rank, "grace": 1.0, "reason": "its time is up"}
        asking = asyncio.ensure_future(
            conversations[rank].ask(
                "trial",
                timeout=seconds + MARGIN + 40.0,
                job=job_of(plan, rank, 1.0),
                secrets=values,
                seconds=seconds + MARGIN,
                **about,
            )
        )
        try:
            return _read(await asyncio.shield(asking), node)
        except ConnectionLost as lost:
            return lost
        except MachineError as error:
            return Collective(error=error.text)
        except asyncio.CancelledError:
            try:
                await conversations[rank].ask("stop", timeout=5.0, **about)
                await asyncio.wait({asking}, timeout=2.0)
            finally:
                asking.cancel()
            raise

    parts = await asyncio.gather(*map(one, plan.nodes))
    return dict(zip((node.node_rank for node in plan.nodes), parts, strict=True))


def _read(answer: Mapping[str, Any], node: NodePlan) -> Collective:
    """A node's answer, made safe and typed; the ranks by their RANK."""
    try:
        ranks = {
            node.first_rank + int(local_rank): Tried(
                said=_said(str(about.get("out", ""))),
                code=about.get("code"),
                signal=about.get("signal"),
                err="\n".join(clean_lines(str(about.get("err", "")), 8)),
            )
            for local_rank, about in answer["ranks"].items()
            if 0 <= int(local_rank) < node.nproc
        }
        log = "\n".join(clean_lines(str(answer.get("log", "")), 8))
        return msgspec.convert(
            {"stopped": answer.get("stopped"), "code": answer.get("code"), "ranks": ranks, "log": log}, Collective
        )
    except (KeyError, TypeError, ValueError, AttributeError) as junk:
        return Collective(error=f"a strange answer: {clean(repr(junk))[:200]}")


def _said(out: str) -> tuple[Said, ...]:
    """The lines that are objects of the all-reduce; others may print, too."""
    found = []
    for line in out.splitlines():
        try:
            said = msgspec.convert(json.loads(line), Said)
        except (ValueError, RecursionError):
            continue
        found.append(msgspec.structs.replace(said, text=clean(said.text), stage=clean(said.stage)))
    return tuple(found[-SAID_LINES:])
