"""The first real failure, out of what every node says at once. Texts are those of torch 2.13 and gloo."""

from __future__ import annotations

from typing import Any

import pytest

from engine.diagnosis import Failure, ending, evidence, root, sentence

CLOSED = (
    "[rank0]:     return Variable._execution_engine.run_backward(  # Calls into the C++ engine",
    "[rank0]: RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer "
    "[10.0.0.12]:53478. This is typically caused by a remote worker crashing.",
)
RESET = (
    "[rank1]: RuntimeError: [/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:537] Read error [10.0.0.11]:10419: "
    "Connection reset by peer. This is typically caused by a remote worker hanging.",
)
TIMED_OUT = ("[rank1]: RuntimeError: [gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 20000ms for recv op",)
NCCL = ("[rank5]: torch.distributed.DistBackendError: NCCL error, ncclRemoteError: A call failed possibly due to …",)
STORE = ("torch.distributed.DistStoreError: Timed out after 61 seconds waiting for clients. 1/2 clients joined.",)
RENDEZVOUS = (
    "[W1123 20:26:58 socket.cpp:764] [c10d] The client socket has failed to connect to 10.0.0.9:29500 (errno: 113).",
    "torch.distributed.DistNetworkError: The client socket has timed out after 15000ms while trying to connect",
)
VALUE = (
    "[rank3]: Traceback (most recent call last):",
    '[rank3]:   File "/data/exp/train.py", line 44, in main',
    "[rank3]:     raise ValueError('bad sample 17')",
    "[rank3]: ValueError: bad sample 17",
)
SEGV = ("Fatal Python error: Segmentation fault", 'Current thread 0x00007fbe7f838b80: File "t.py", line 12 in main')
SIGTERMED = (
    "W1123 20:48:12 torch/distributed/elastic/agent/server/api.py:753] Received 15 death signal, shutting down workers",
    "torch.distributed.elastic.multiprocessing.api.SignalException: Process 27696 got signal: 15",
)


def worker(t: float, rank: int, tail: tuple[str, ...] = (), **fields: Any) -> Failure:
    fields = {"code": None if "signal" in fields else 1, "node_rank": rank // 2, **fields}
    return Failure(kind="worker", t=t, rank=rank, local_rank=rank % 2, host=f"gpu0{rank // 2}", tail=tail, **fields)


def torchrun(t: float, node_rank: int, tail: tuple[str, ...] = (), **fields: Any) -> Failure:
    fields = {"code": None if "signal" in fields else 1, **fields}
    return Failure(kind="torchrun", t=t, node_rank=node_rank, host=f"gpu0{node_rank}", tail=tail, **fields)


def lost(t: float, node_rank: int) -> Failure:
    return Failure(kind="lost", t=t, node_rank=node_rank, host=f"gpu0{node_rank}", tail=("lost its supervisor",))


def chosen(*failures: Failure) -> tuple[str, int | None, bool]:
    verdict = root(list(failures))
    assert verdict is not None
    return verdict.host, verdict.rank, verdict.sure


def test_nothing_failed_is_no_verdict() -> None:
    assert root([]) is None


@pytest.mark.parametrize("victim", [CLOSED, RESET, TIMED_OUT, NCCL], ids=["closed", "reset", "timed out", "nccl"])
def test_the_root_is_the_earliest_failure_that_is_no_victims(victim: tuple[str, ...]) -> None:
    failures = [worker(10.0, 0, victim), worker(10.01, 1, victim), worker(10.02, 3, VALUE), worker(10.3, 2, victim)]

    assert chosen(*failures, torchrun(11.0, 0), torchrun(11.0, 1)) == ("gpu01", 3, True)


def test_the_order_in_which_failures_are_given_does_not_matter() -> None:
    failures = [worker(10.0, 0, CLOSED), worker(9.0, 3, VALUE), worker(9.5, 2, VALUE), torchrun(11.0, 1)]

    assert root(failures) == root(failures[::-1])
    assert chosen(*failures) == ("gpu01", 3, True)


def test_ranks_that_torchrun_ended_after_a_siblings_failure_are_victims() -> None:
    assert chosen(worker(10.0, 2, signal=15), worker(10.1, 3, VALUE)) == ("gpu01", 3, True)


def test_a_rank_killed_by_a_signal_of_its_own_is_a_root() -> None:
    assert chosen(worker(10.0, 0, RESET), worker(10.0, 2, SEGV, signal=11)) == ("gpu01", 2, True)


def test_a_lost_node_beats_its_victims_though_it_is_noticed_later() -> None:
    assert chosen(worker(10.0, 0, CLOSED), worker(10.0, 1, RESET), torchrun(11.0, 0), lost(75.0, 1)) == (
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


def test_a_torchrun_that_failed_before_any_rank_began_is_a_root() -> None:
    tail = ("/data/exp/train.py: error: unrecognized arguments: --bacth", "ModuleNotFoundError: No module named 'x'")

    assert chosen(torchrun(3.0, 1, tail), torchrun(63.0, 0, STORE)) == ("gpu01", None, True)


def test_a_torchrun_that_only_reports_its_ranks_failure_is_none_of_its_own() -> None:
    assert chosen(torchrun(9.0, 1), worker(10.0, 3, VALUE)) == ("gpu01", 3, True)


@pytest.mark.parametrize("tail", [STORE, RENDEZVOUS, SIGTERMED], ids=["store", "network", "sigterm"])
def test_where_only_victims_are_left_the_verdict_is_not_sure(tail: tuple[str, ...]) -> None:
    assert chosen(torchrun(60.0, 1, tail), torchrun(61.0, 0, tail)) == ("gpu01", None, False)


def test_what_ended_after_its_own_stop_is_blamed_last() -> None:
    failures = [worker(10.0, 0, code=1, after_stop=True), worker(11.0, 2, CLOSED)]

    assert chosen(*failures) == ("gpu01", 2, False)


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


def test_evidence_ends_with_the_last_exception_and_not_with_what_came_after_it() -> None:
    noise = ("[W1123 20:21:57 ProcessGroupGloo.cpp] destroy_process_group was not called", "")

    assert evidence(worker(1.0, 3, VALUE + noise)) == VALUE[-3:]


def test_evidence_without_an_exception_is_the_end_of_what_was_written() -> None:
    assert evidence(worker(1.0, 2, ("loading", *SEGV, "", ""))) == ("loading", *SEGV)


def test_a_node_that_was_lost_shows_no_lines() -> None:
    assert evidence(lost(1.0, 1)) == ()
