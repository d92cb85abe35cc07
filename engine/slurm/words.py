"""What Slurm means: its refusals of a request, why a job waits, and how a job ended; each with what to do. Pure.

Texts: Slurm 22.05, slurm_errno.c and sbatch's own; matched loosely, since versions word them differently.
Reasons: squeue(1), JOB REASON CODES.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from engine.errors import RequestError, Unreachable

if TYPE_CHECKING:
    from engine.errors import RankdeckError

_SEE = "see what there is: sinfo -o '%P %l %D %c %m %G'"

REFUSALS: tuple[tuple[str, str, str], ...] = (
    ("invalid partition", "there is no such partition", f"correct slurm.partition; {_SEE}"),
    (
        "invalid account or account/partition",
        "the account does not exist, or may not use this partition",
        "correct slurm.account; yours: sacctmgr show assoc user=$USER format=account,partition,qos",
    ),
    (
        "invalid qos",
        "there is no such QOS for this account",
        "correct slurm.qos; yours: sacctmgr show assoc user=$USER format=qos",
    ),
    (
        r"invalid generic resource|\(gres\)",
        "the cluster has no GPUs of that name or type",
        "correct slurm.gpu_type and slurm.gpus_by; what nodes have: sinfo -o '%N %G'",
    ),
    (
        "memory specification can not be satisfied",
        "no node has so much memory",
        "lower slurm.mem; what nodes have: sinfo -o '%N %m'",
    ),
    (
        "cpu count per node can not be satisfied|more processors requested than permitted",
        "no node has so many CPUs",
        "lower slurm.cpus_per_task (it counts for every task); what nodes have: sinfo -o '%N %c'",
    ),
    (
        "node count specification invalid|more nodes than|node limit",
        "more nodes than the partition has or allows",
        f"lower slurm.nodes; {_SEE}",
    ),
    (
        "requested node configuration is not available",
        "no nodes of this partition have together what is asked for",
        "lower slurm.nodes, gpus_per_node, cpus_per_task or mem, or choose another gpu_type or partition; "
        "what nodes have: sinfo -o '%P %D %c %m %G'",
    ),
    (
        "requested time limit is invalid|exceeds? .*time limit|time limit.*exceed",
        "the time limit is longer than the partition allows",
        "lower slurm.time; limits: sinfo -o '%P %l'",
    ),
    ("invalid --time", "the time limit cannot be read", "write slurm.time as 90 (minutes), 12:00:00 or 1-12:00:00"),
    ("invalid --signal", "there is no such signal", "write slurm.signal as a signal and seconds: USR1@120"),
    ("invalid feature", "no node has that feature", "correct slurm.constraint; features: sinfo -o '%N %f'"),
    ("invalid node name", "there is no node of that name", "correct slurm.nodelist or exclude; names: sinfo -N -o %N"),
    (
        "requested reservation is invalid|reservation.*access",
        "there is no such reservation for you",
        "see: scontrol show reservation",
    ),
    ("invalid license", "there are no such licences", "see: scontrol show licenses"),
    (
        "violates accounting/qos policy|assoc.*limit|qos.*limit|limits",
        "it is over a limit of your account or QOS",
        "ask for less, or wait for your other jobs; limits: sacctmgr show assoc user=$USER; sacctmgr show qos",
    ),
    ("batch script is empty|contains dos line breaks|must start with #!", "the script is damaged", "launch again"),
    (
        "unrecognized option|invalid option",
        "sbatch does not know an option",
        "correct slurm.extra; options: sbatch --help",
    ),
    (
        "pathname of a file.*too large|script too large",
        "the script is larger than this cluster takes",
        "shorten program.args or put them into a file",
    ),
    (
        "user's group not permitted|access/permission denied|not permitted to use",
        "you may not use this partition",
        f"choose another; {_SEE}",
    ),
    (
        "job submission disabled|drain|down|inactive state",
        "the partition takes no jobs now",
        "see: sinfo, and news of the cluster",
    ),
    (
        "fetch_config: dns srv|unable to determine.*configuration|no such file.*slurm.conf",
        "this machine belongs to no Slurm cluster",
        "set slurm.login to a login node of the cluster",
    ),
)
"""(pattern, meaning, remedy) for a request that is refused: it is the profile that has to change."""

AWAY: tuple[tuple[str, str, str], ...] = (
    (
        "unable to contact slurm controller|connection refused|zero bytes were transmitted|socket timed out|"
        "temporarily unable to accept|gave no answer|no answer from|communication connection failure",
        "Slurm's controller does not answer",
        "try again later; scontrol ping says whether it is up",
    ),
    (
        "munge|invalid authentication credential|protocol authentication error",
        "Slurm's authentication (munge) fails on the login node",
        "tell the administrators: systemctl status munge; clocks must agree",
    ),
    ("slurmdbd|accounting_storage", "Slurm's accounting does not answer", "jobs run on; try again later"),
    (
        "is not known yet",
        "Slurm took long, and may have queued the job",
        "launch does not submit a run twice: look with squeue --me",
    ),
)
"""The same for Slurm itself being away: nothing is wrong with the profile."""


def explain(text: str, node: str) -> RankdeckError:
    """A refusal of sbatch or srun as an error with its meaning and remedy, and Slurm's own words."""
    said = " ".join(line.strip() for line in text.strip().splitlines())
    for pattern, meaning, remedy in AWAY:
        if re.search(pattern, said, re.IGNORECASE):
            return Unreachable(f"{meaning}: {said}", node=node, remedy=remedy)
    for pattern, meaning, remedy in REFUSALS:
        if re.search(pattern, said, re.IGNORECASE):
            return RequestError(f"{meaning}: {said}", node=node, remedy=remedy)
    return RequestError(f"Slurm refuses the job: {said}", node=node)


WAITS: dict[str, tuple[str, bool]] = {
    "Priority": ("jobs of higher priority come first", True),
    "Resources": ("for nodes to become free", True),
    "None": ("to be looked at", True),
    "BeginTime": ("for the time at which it may begin", True),
    "Dependency": ("for another job", True),
    "Reservation": ("for its reservation to begin", True),
    "Licenses": ("for licences", True),
    "ReqNodeNotAvail": ("for nodes that are down, drained or reserved", True),
    "NodeDown": ("for a node that is down", True),
    "Cleaning": ("for its last run to be cleaned up (requeue)", True),
    "Prolog": ("for the nodes to be made ready", True),
    "PartitionConfig": ("the partition never has what it asks for: lower nodes, cpus_per_task or gpus_per_node", False),
    "PartitionNodeLimit": ("it asks for more nodes than the partition has or allows: lower slurm.nodes", False),
    "PartitionTimeLimit": ("it asks for more time than the partition allows: lower slurm.time", False),
    "PartitionDown": ("the partition is down", True),
    "PartitionInactive": ("the partition takes no jobs", True),
    "BadConstraints": ("no node can ever fit: correct slurm.constraint, nodelist or what is asked of a node", False),
    "JobHeldUser": ("it is held by its user: scontrol release", False),
    "JobHeldAdmin": ("it is held by the administrators", False),
    "JobHoldMaxRequeue": ("it was requeued too often: scontrol release", False),
    "InvalidAccount": ("the account is not valid: correct slurm.account", False),
    "InvalidQOS": ("the QOS is not valid: correct slurm.qos", False),
    "AccountNotAllowed": ("the account may not use the partition: correct slurm.account", False),
    "QOSNotAllowed": ("the QOS may not use the partition: correct slurm.qos", False),
    "launch_failed_requeued_held": (
        "the nodes could not start it, and it is held: scontrol release, or cancel it",
        False,
    ),
}
"""Reason -> what a pending job waits for, and whether waiting helps."""

_LIMIT = re.compile(r"(Assoc|QOS|Max).*(Limit|Per)")

ENDINGS: dict[str, tuple[str, str]] = {
    "TIMEOUT": ("its time limit was over", "raise slurm.time, or save checkpoints (slurm.signal) and launch again"),
    "OUT_OF_MEMORY": ("it needed more memory than it had asked for", "raise slurm.mem, or load less into memory"),
    "NODE_FAIL": (
        "a node failed",
        "launch again; slurm.exclude leaves the node out, slurm.requeue: true does it alone",
    ),
    "PREEMPTED": ("a job of higher priority took its place", "launch again, or set slurm.requeue: true"),
    "CANCELLED": ("it was cancelled", ""),
    "BOOT_FAIL": ("a node did not start", "launch again"),
    "DEADLINE": ("its deadline was over", ""),
    "REVOKED": ("another cluster took it", ""),
    "FAILED": ("it failed", ""),
    "GONE": (
        "Slurm does not know it any more, and how it ended is not known",
        "it remembers jobs for minutes where there is no accounting; what the nodes wrote is in the logs",
    ),
}
"""State of an ended job -> what happened, and what to do."""


def waiting(reason: str) -> str:
    """Why a job waits, in words: "for nodes to become free (Resources)"."""
    if not reason:
        return "in the queue"
    words, _ = WAITS.get(reason.split(",")[0], ("", True))
    if not words and _LIMIT.search(reason):
        words = "your account or QOS is at a limit; it starts as your other jobs end"
    return f"{words} ({reason})" if words else reason


def hopeless(reason: str) -> bool:
    """Whether the job will not start however long one waits."""
    return not WAITS.get(reason.split(",")[0], ("", True))[1]


def ending(id: str, state: str, by: str = "") -> tuple[str, str]:
    """How an ended job ended, in words, and what to do."""
    if state == "COMPLETED":
        return f"Slurm job {id} is over", ""
    words, remedy = ENDINGS.get(state, (state.lower(), ""))
    who = f" by user id {by}" if by else ""
    return f"Slurm job {id}: {words}{who} ({state})", remedy
