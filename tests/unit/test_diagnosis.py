"""Which of several failures comes first, and in which words. What texts mean is in test_diagnosis_corpus.py."""

from __future__ import annotations

from typing import Any

import pytest

from engine.diagnosis import Failure, Source, diagnose, ending, sentence

CLOSED = (
    "[rank0]: Traceback (most recent call last):",
    '[rank0]:   File "/data/exp/train.py", line 44, in main',
    "[rank0]: RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer "
    "[10.0.0.12]:53478. This is typically caused by a remote worker crashing.",
)
TIMED_OUT = (
    "Traceback (most recent call last):",
    '  File "/data/exp/train.py", line 44, in main',
    "RuntimeError: [gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 20000ms for recv op",
)
NCCL = (
    "Traceback (most recent call last):",
    '  File "/data/exp/train.py", line 44, in main',
    "torch.distributed.DistBackendError: NCCL error, ncclRemoteError: A call failed possibly due to a network error",
)
VALUE = (
    "[rank3]: Traceback (most recent call last):",
    '[rank3]:   File "/data/exp/train.py", line 44, in main',
    "[rank3]:     raise ValueError('bad sample 17')",
    "[rank3]: ValueError: bad sample 17",
)
SEGV = ("Fatal Python error: Segmentation fault", 'Current thread 0x00007fbe7f838b80: File "t.py", line 12 in main')


def worker(t: float, rank: int, tail: tuple[str, ...] = (), **fields: Any) -> Failure:
    fields = {"code": None if "signal" in fields else 1, "node_rank": rank // 2, **fields}
    return Failure(kind="worker", t=t, rank=rank, local_rank=rank % 2, host=f"gpu0{rank // 2}", tail=tail, **fields)


def torchrun(t: float, node_rank: int, **fields: Any) -> Failure:
    fields = {"code": None if "signal" in fields else 1, **fields}
    return Failure(kind="torchrun", t=t, node_rank=node_rank, host=f"gpu0{node_rank}", **fields)


def lost(t: float, node_rank: int) -> Failure:
    return Failure(kind="lost", t=t, node_rank=node_rank, host=f"gpu0{node_rank}", tail=("lost its supervisor",))


def chosen(*failures: Failure) -> tuple[str, int | None, bool]:
    verdict = diagnose((), failures)
    assert verdict is not None
    return verdict.host, verdict.rank, verdict.sure


def test_nothing_failed_is_no_verdict() -> None:
    assert diagnose((), []) is None


@pytest.mark.parametrize("victim", [CLOSED, TIMED_OUT, NCCL], ids=["closed", "timed out", "nccl"])
def test_the_root_is_the_earliest_failure_that_is_no_victims(victim: tuple[str, ...]) -> None:
    failures = [worker(10.0, 0, victim), worker(10.01, 1, victim), worker(10.02, 3, VALUE), worker(10.3, 2, victim)]

    assert chosen(*failures, torchrun(11.0, 0), torchrun(11.0, 1)) == ("gpu01", 3, True)


def test_the_order_in_which_failures_are_given_does_not_matter() -> None:
    failures = [worker(10.0, 0, CLOSED), worker(9.0, 3, VALUE), worker(9.5, 2, VALUE), torchrun(11.0, 1)]

    assert chosen(*failures) == chosen(*failures[::-1]) == ("gpu01", 3, True)


def test_ranks_that_torchrun_ended_after_a_siblings_failure_are_victims() -> None:
    assert chosen(worker(10.0, 2, signal=15), worker(9.9, 3, CLOSED)) == ("gpu01", 3, False)
    assert chosen(worker(10.0, 2, signal=15), worker(10.1, 3, VALUE)) == ("gpu01", 3, True)


def test_a_rank_killed_by_a_signal_of_its_own_is_a_root() -> None:
    assert chosen(worker(10.0, 0, CLOSED), worker(10.0, 2, SEGV, signal=11)) == ("gpu01", 2, True)


def test_a_lost_node_beats_its_victims_though_it_is_noticed_later() -> None:
    assert chosen(worker(10.0, 0, CLOSED), worker(10.0, 1, CLOSED), torchrun(11.0, 0), lost(75.0, 1)) == (
        "gpu01",
        None,
        True,
    )


def test_a_real_failure_beats_a_node_that_was_lost_after_it() -> None:
    assert chosen(worker(10.0, 1, VALUE), lost(75.0, 1)) == ("gpu00", 1, True)


def test_a_torchrun_that_was_killed_is_the_root_and_its_ranks_are_not() -> None:
    failures = [
        torchrun(10.0, 1, signal=9),
        worker(10.1, 2, signal=15, after_stop=True),
        worker(10.1, 3, signal=15, after_stop=True),
        worker(10.4, 0, CLOSED),
        torchrun(11.5, 0),
    ]
    assert chosen(*failures) == ("gpu01", None, True)


def test_a_torchrun_that_only_reports_its_ranks_failure_is_none_of_its_own() -> None:
    assert chosen(torchrun(9.0, 1), worker(10.0, 3, VALUE)) == ("gpu01", 3, True)


def test_what_ended_after_its_own_stop_is_blamed_last() -> None:
    failures = [worker(10.0, 0, code=1, after_stop=True), worker(11.0, 2, CLOSED)]

    assert chosen(*failures) == ("gpu01", 2, False)


def test_what_torchrun_was_told_to_do_is_no_failure_of_its_ranks() -> None:
    told = Source(
        name="n0/torchrun.log",
        node_rank=0,
        data=b"W1123 20:48:12.1 1 torch/x.py:7] Received 15 death signal, shutting down workers\n",
    )
    failures = [worker(10.0, 0, signal=15), worker(10.0, 1, signal=15), worker(10.2, 2, CLOSED), torchrun(10.5, 0)]
    verdict = diagnose([told], failures)

    assert verdict is not None
    assert (verdict.rule, verdict.node_rank, verdict.rank) == ("terminated", 0, None)


def test_the_same_failure_on_many_ranks_is_told_once_with_their_number() -> None:
    verdict = diagnose((), [worker(10.0 + rank / 10, rank, VALUE) for rank in range(9)])

    assert verdict is not None
    assert "; the same on 8 other rank(s): 1, 2, 3, 4, 5, 6 …" in verdict.cause


def test_the_sentence_names_rank_node_and_how_it_ended() -> None:
    assert sentence(worker(1.0, 3, VALUE)) == "rank 3 (local_rank 1) on gpu01 (node_rank 1) exited with code 1"
    assert sentence(worker(1.0, 2, signal=9)) == "rank 2 (local_rank 0) on gpu01 (node_rank 1) was killed by SIGKILL"
    assert sentence(torchrun(1.0, 0, signal=9)) == "torchrun on gpu00 (node_rank 0) was killed by SIGKILL"
    assert sentence(lost(1.0, 1)) == "gpu01 (node_rank 1) lost its supervisor"


@pytest.mark.parametrize(
    ("code", "signal", "words"),
    [
        (3, None, "exited with code 3"),
        (None, 11, "was killed by SIGSEGV"),
        (None, 250, "was killed by signal 250"),
        (None, None, "ended, nobody saw how"),
    ],
)
def test_an_end_in_words(code: int | None, signal: int | None, words: str) -> None:
    assert ending(code, signal) == words


def test_a_verdict_names_the_place_in_the_users_own_code_and_what_to_type() -> None:
    verdict = diagnose((), [worker(1.0, 3, VALUE)], run="lab-1")

    assert verdict is not None
    assert verdict.cause.endswith("raised ValueError: bad sample 17, in main (/data/exp/train.py:44)")
    assert "rankdeck logs lab-1 --rank 3 --stderr" in verdict.remedy


def test_evidence_points_into_the_file_though_only_its_end_is_here() -> None:
    text = "\n".join(VALUE).encode() + b"\n"
    end = Source(name="n1/e", node_rank=1, data=text, kind="worker", local_rank=1, rank=3, line=900, offset=70_000)
    verdict = diagnose([end], [worker(1.0, 3)])

    assert verdict is not None
    assert (verdict.proof[0].file, verdict.proof[0].line, verdict.proof[0].text) == ("n1/e", 903, VALUE[-1])
    assert verdict.proof[0].offset == 70_000 + text.index(b"[rank3]: ValueError")


def test_a_node_that_was_lost_shows_no_lines() -> None:
    verdict = diagnose((), [lost(1.0, 1)])

    assert verdict is not None
    assert verdict.proof == ()
