"""What squeue, scontrol, sacct, sinfo and sbatch say, and what it means."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import RequestError, Unreachable
from engine.profile import Profile, Program, Slurm
from engine.slurm import cluster, jobs, words
from engine.slurm.adopted import record_of
from engine.slurm.preflight import lacks
from engine.slurm.session import told

RUN = "train-20261124-103921-tuvk"
SUBMITTED = 1_795_516_761.0  # 2026-11-24T10:39:21 UTC


def says(out: str = "", code: int = 0, err: str = "") -> dict[str, Any]:
    return {"code": code, "out": out, "err": err}


def queued(state: str, reason: str = "None", comment: str = RUN, number: str = "7") -> str:
    when = "2026-11-24T10:39:21"
    fields = (number, number, state, reason, comment, when, "2026-11-24T11:00:00", "N/A", "node[1-2]", "train")
    return "\x1f".join(fields) + "\n"


def shown(state: str, comment: str = RUN, restarts: int = 0) -> str:
    return (
        f"JobId=7 JobName=train JobState={state} Reason=None Restarts={restarts} ExitCode=0:9 "
        f"SubmitTime=2026-11-24T10:39:21 StartTime=Unknown EndTime=Unknown NodeList=node1 Comment={comment}\n"
    )


def accounted(state: str, name: str = "train", when: str = "2026-11-24T10:39:21") -> str:
    return "\x1f".join(("7", state, "1:0", when, when, when, "node[1-2]", "None", name)) + "\n"


def read(**said: Any) -> jobs.Job | None:
    return jobs.read({"squeue": says(), **said}, jobs.Sought(id="7", run=RUN, name="train", since=SUBMITTED))


def test_a_waiting_job_tells_its_reason_and_expected_start() -> None:
    job = read(squeue=says(queued("PENDING", "Resources")))
    assert job is not None
    assert (job.waiting, job.reason, job.starts - job.submitted) == (True, "Resources", 1239.0)
    assert words.waiting(job.reason) == "for nodes to become free (Resources)"


def test_an_empty_answer_is_not_the_end_of_a_job() -> None:
    assert read() is None
    assert read(squeue=says(code=1, err="slurm_load_jobs error: Invalid job id specified")) is None


@pytest.mark.parametrize(
    "said",
    [
        {"squeue": says(queued("RUNNING", comment="another-run"))},
        {"scontrol": {"7": says(shown("RUNNING", comment="(null)"))}},
        {"sacct": says(accounted("COMPLETED", name="other"))},
        {"sacct": says(accounted("COMPLETED", when="2017-01-01T00:00:00"))},
    ],
    ids=["comment", "no comment", "name", "an old job"],
)
def test_another_job_with_our_number_is_not_ours(said: dict[str, Any]) -> None:
    assert read(**said) is None


def test_accounting_is_believed_before_the_controllers_memory_and_names_who_cancelled() -> None:
    job = read(sacct=says(accounted("CANCELLED by 1000")), scontrol={"7": says(shown("COMPLETED"))})
    assert job is not None
    assert (job.state, job.by, job.code) == ("CANCELLED", "1000", 1)


def test_a_job_that_accounting_cannot_name_yet_is_known_by_number_and_time() -> None:
    early = read(sacct=says(accounted("CANCELLED by 0", name="allocation")), scontrol={"7": says(shown("CANCELLED"))})
    assert early is not None
    assert early.by == "0"
    old = accounted("CANCELLED by 0", name="allocation", when="2017-01-01T00:00:00")
    assert read(sacct=says(old)) is None


def test_of_a_requeued_jobs_lives_in_accounting_the_last_one_counts() -> None:
    job = read(sacct=says(accounted("PREEMPTED") + accounted("COMPLETED")))
    assert job is not None
    assert job.state == "COMPLETED"


def test_the_number_of_restarts_comes_from_the_controller() -> None:
    job = read(squeue=says(queued("RUNNING")), scontrol={"7": says(shown("RUNNING", restarts=2))})
    assert job is not None
    assert job.restarts == 2


@pytest.mark.parametrize(
    ("text", "meaning", "remedy"),
    [
        ("sbatch: error: invalid partition specified: nope", "no such partition", "slurm.partition"),
        ("error: Invalid account or account/partition combination specified", "account", "slurm.account"),
        ("error: Invalid generic resource (gres) specification", "no GPUs", "gpu_type"),
        ("Batch job submission failed: Requested node configuration is not available", "together", "sinfo"),
        ("sbatch: error: CPU count per node can not be satisfied", "so many CPUs", "cpus_per_task"),
        ("error: Memory specification can not be satisfied", "so much memory", "slurm.mem"),
        ("Job violates accounting/QOS policy (job submit limit, user's size and/or time limits)", "limit", "ask for"),
        ("Requested time limit is invalid (missing or exceeds some limit)", "time limit", "slurm.time"),
        ("srun: error: fetch_config: DNS SRV lookup failed", "no Slurm cluster", "slurm.login"),
    ],
)
def test_a_refusal_of_the_request_is_explained_with_a_remedy(text: str, meaning: str, remedy: str) -> None:
    error = words.explain(text, "login01")
    assert isinstance(error, RequestError)
    assert meaning in error.text
    assert text.removeprefix("error: ")[-30:] in error.text
    assert remedy in error.remedy


@pytest.mark.parametrize(
    "text",
    [
        "slurm_load_jobs error: Unable to contact slurm controller (connect failure)",
        "sbatch: error: Slurm temporarily unable to accept job, sleeping and retrying",
        "sbatch: error: Batch job submission failed: Invalid authentication credential",
    ],
)
def test_slurm_being_away_is_not_the_profiles_fault(text: str) -> None:
    assert isinstance(words.explain(text, "login01"), Unreachable)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 5400), ("10:30", 630), ("1:00:00", 3600), ("1-0", 86400), ("1-12:30", 131_400),
        ("2-00:00:01", 172_801), ("UNLIMITED", None), ("junk", None),
    ],
)  # fmt: skip
def test_a_time_limit_is_read_in_all_of_slurms_forms(text: str, seconds: int | None) -> None:
    assert cluster.seconds(text) == seconds


def test_partitions_tell_what_they_have_and_what_is_free() -> None:
    node = ("train", "up", "1-00:00:00", "2", "idle", "64", "512000", "gpu:a100:8(S:0-1)", "ib,(null)")
    busy = ("train", "up", "1-00:00:00", "3", "allocated", "64", "512000", "gpu:a100:8", "(null)")
    found = cluster.read(
        {
            "sinfo": says("\n".join("\x1f".join(line) for line in (node, busy))),
            "partitions": says("PartitionName=train Default=YES MaxNodes=4 MaxTime=1-00:00:00 State=UP TotalNodes=5\n"),
            "accounts": says("nlp|train|normal,high\n"),
        }
    )
    train = found.partition("")
    assert train is not None
    assert (train.name, train.nodes, train.free, train.gpus, train.max_time) == ("train", 5, 2, 8, 86400)
    assert train.machines[0].gpu_type == "a100"
    assert cluster.offers(found) == [
        "train (the default): 5 nodes, 2 of them free now, 8 GPUs each (a100), at most 24 hours",
        "your accounts: nlp (qos normal, high)",
    ]


def test_a_qos_that_is_none_of_the_users_is_named_with_those_that_are() -> None:
    mine = (cluster.Account(account="nlp", qos=("normal", "high")), cluster.Account(account="vision", qos=("low",)))
    known = cluster.Cluster(partitions=(cluster.Partition(name="train", default=True),), accounts=mine)
    asked = Profile(
        version=1, name="x", launcher="slurm", program=Program(path="x"), slurm=Slurm(account="nlp", qos="low")
    )
    found = [(note.text, note.fix) for note in lacks(asked, known) if "QOS" in note.text]
    assert found == [("low is none of your QOS: normal, high", ("slurm.qos=normal",))]


def test_a_job_that_cannot_start_says_that_waiting_does_not_help() -> None:
    job = read(squeue=says(queued("PENDING", "PartitionTimeLimit")))
    assert job is not None
    assert told(job).text.endswith("lower slurm.time (PartitionTimeLimit); waiting does not help")


SHOWN = """\
JobId=15 ArrayJobId=12 ArrayTaskId=3 JobName=my job
   UserId=ml(1000) GroupId=ml(1000) MCS_label=N/A
   SubmitTime=2026-11-24T10:39:21 EligibleTime=2026-11-24T10:39:21
   NodeList=node[1-2]
   NumNodes=2 NumCPUs=2 NumTasks=2 CPUs/Task=1 ReqB:S:C:T=0:0:*:*
   StdOut=/home/ml/slurm-12_3.out
"""


def test_a_job_of_other_means_is_known_by_number_name_and_time() -> None:
    record = record_of({"run": "job-15-20261124103921", "shown": SHOWN, "hosts": ["node1", "node2"]}, "login", "")
    assert record is not None
    assert (record.profile.name, record.created, record.plan.world_size) == ("my job", SUBMITTED, 2)
    sought = jobs.Sought(id="7", name="train", since=SUBMITTED)
    assert jobs.read({"squeue": says(queued("RUNNING", comment="(null)"))}, sought) is not None
    assert jobs.read({"scontrol": {"7": says(shown("FAILED", comment="(null)"))}}, sought) is not None
    later = jobs.Sought(id="7", name="train", since=SUBMITTED + 3600)
    assert jobs.read({"squeue": says(queued("RUNNING", comment="(null)"))}, later) is None


def test_what_sinfo_does_not_say_is_left_out() -> None:
    assert cluster.read({"sinfo": says(code=1, err="no")}) == cluster.Cluster()
