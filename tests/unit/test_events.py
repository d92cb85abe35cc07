"""The codec: what we write comes back, and what a node writes is believed only as far as a node may speak."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import events

times = st.floats(min_value=0, max_value=4e9, allow_nan=False)
whole = st.integers(min_value=-(1 << 31), max_value=1 << 31)
words = st.text(max_size=40)
finite = st.floats(allow_nan=False, allow_infinity=False)
number = st.one_of(finite, st.sampled_from(["nan", "inf", "-inf"]))
lefts = st.lists(st.builds(events.Left, pid=whole, comm=words, state=words), max_size=3).map(tuple)
rank = {"t": times, "node_rank": whole, "attempt": whole, "local_rank": whole}
exits = {"code": st.none() | whole, "signal": st.none() | whole}
host = {"t": times, "node_rank": whole, "host": words}
FIELDS: dict[type[events.Event], dict[str, st.SearchStrategy[Any]]] = {
    events.Supervisor: {"t": times, "pid": whole, "start": whole, "boot": words, "host": words, "python": words},
    events.Torchrun: {"t": times, "pid": whole, "start": whole},
    events.Stream: {**rank, "path": words, "stream": st.sampled_from(["stdout", "stderr"])},
    events.Worker: {**rank, "rank": whole, "pid": whole, "start": whole},
    events.WorkerExit: {**rank, **exits, "rank": whole, "pid": whole},
    events.Metric: {
        **rank,
        "step": st.none() | whole,
        "epoch": st.none() | finite,
        "loss": st.none() | number,
        "rate": st.none() | number,
        "rate_unit": words,
        "extra": st.dictionaries(words, number, max_size=3),
    },
    events.Stop: {"t": times, "reason": words, "grace": times},
    events.TorchrunExit: {"t": times, **exits},
    events.Swept: {"t": times, "killed": whole, "left": lefts},
    events.Warning: {"t": times, "text": words},
    events.Clue: {"t": times, "source": words, "text": words},
    events.Finished: {"t": times, **exits, "stopped": st.booleans()},
    events.Finding: {**host, "check": words, "severity": words, "evidence": st.lists(words, max_size=3).map(tuple)},
    events.Sample: {
        **{"t": times, "node_rank": whole},
        "cpu": st.none() | finite,
        "gpus": st.lists(st.builds(events.Gpu, index=whole, name=words, util=st.none() | finite), max_size=2).map(
            tuple
        ),
    },
    events.Reached: {**host, "latency": finite, "clock": finite, "clock_error": finite},
    events.Unreachable: {**host, "text": words},
    events.Lost: {**host, "text": words},
    events.Launched: host,
    events.StopSent: {**host, "reason": words, "grace": times},
    events.Job: {"t": times, "id": words, "state": words, "reason": words, "text": words, "starts": times},
    events.Ended: {"t": times, "outcome": st.sampled_from(["succeeded", "failed", "stopped"]), "text": words},
}
OURS = (
    events.Finding,
    events.Sample,
    events.Reached,
    events.Unreachable,
    events.Lost,
    events.Launched,
    events.StopSent,
    events.Job,
    events.Ended,
)
PATH = "ranks/x_1/attempt_0/0/stdout.log"


def line(**fields: Any) -> bytes:
    return json.dumps({"t": 1.0, **fields}).encode() + b"\n"


def metric(**fields: Any) -> events.AnyEvent | None:
    return events.decode_record(line(type="metric", attempt=0, local_rank=0, **fields), 0)


def test_every_event_has_a_strategy_here() -> None:
    assert set(FIELDS) == set(events.AnyEvent.__args__)


@pytest.mark.parametrize("kind", FIELDS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_what_is_encoded_decodes_to_the_same_event(kind: type[events.Event], data: st.DataObject) -> None:
    event = data.draw(st.builds(kind, **FIELDS[kind]))
    encoded = events.encode(event)

    assert encoded.endswith(b"\n")
    assert encoded.count(b"\n") == 1
    assert events.decode(encoded) == event


@given(st.binary(max_size=200))
def test_junk_is_no_event_and_no_error(junk: bytes) -> None:
    events.decode(junk)
    events.decode_record(junk, 0)


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"\n",
        b"null",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b"[" * 100_000,
        line(type="from the future"),
        line(type="torchrun", pid="1; rm -rf /", start=1),
        line(type="worker_exit", attempt=0, local_rank=0, rank=0, pid=1, code="0"),
        b'{"type":"warning","t":1e999,"text":"late"}',
        b'{"type":"warning","t":NaN,"text":"never"}',
        b'{"type":"warning","text":"without a time"}',
        b'{"type":"warning","t":1,"text":"torn',
        line(type="stream", path=PATH, attempt=0, local_rank=0, stream="stdin"),
        line(type="warning", text="x" * events.RECORD_LIMIT),
    ],
    ids=range(16),
)
def test_a_line_that_cannot_be_trusted_is_none(junk: bytes) -> None:
    assert events.decode_record(junk, 0) is None


def test_an_unknown_field_is_ignored_because_a_node_may_be_newer() -> None:
    assert events.decode_record(line(type="warning", text="a", depth=3), 2) == events.Warning(
        t=1.0, node_rank=2, text="a"
    )


def test_a_node_cannot_speak_for_another_node() -> None:
    record = events.decode_record(line(type="finished", code=0, node_rank=7), 1)

    assert record == events.Finished(t=1.0, node_rank=1, code=0)


@pytest.mark.parametrize("kind", OURS, ids=lambda kind: kind.__name__)
@given(data=st.data())
def test_a_node_cannot_speak_as_the_workstation(kind: type[events.Event], data: st.DataObject) -> None:
    assert events.decode_record(events.encode(data.draw(st.builds(kind, **FIELDS[kind]))), 0) is None


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../n1/journal.jsonl",
        "ranks/../../x/attempt_0/0/stdout.log",
        "ranks/x/attempt_0/0/stdout.log/../../../../../job.json",
        "ranks/x/attempt_0/0/stdout.log\n",
        "ranks/.hidden/attempt_0/0/stdout.log",
        "job.json",
    ],
)
def test_a_stream_with_a_forbidden_name_is_no_record(path: str) -> None:
    assert events.decode_record(line(type="stream", path=path, attempt=0, local_rank=0, stream="stdout"), 0) is None


def test_the_text_of_a_node_is_safe_to_show() -> None:
    evil = "\x1b]0;owned\x07a\u202eb\x9b31mc\r"
    records = [
        line(type="warning", text=evil),
        line(type="stop", reason=evil),
        line(type="supervisor", pid=1, start=1, host=evil, boot=evil, python=evil, version=evil),
        line(type="swept", left=[{"pid": 1, "comm": evil, "state": evil}]),
        line(type="metric", attempt=0, local_rank=0, rate_unit=evil, extra={evil: 1.0}),
    ]
    for record in records:
        shown = str(events.decode_record(record, 0))
        assert shown.isprintable(), shown
        assert "owned" not in shown


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", 0.5, 3])
def test_a_metric_is_a_number_or_one_of_three_words(value: float | str) -> None:
    record = metric(loss=value)

    assert isinstance(record, events.Metric)
    assert record.loss == value


@pytest.mark.parametrize("value", ["\x1b[2J", "0.5", True, [1.0]])
def test_a_metric_that_is_neither_is_no_record(value: object) -> None:
    assert metric(loss=value) is None


def test_a_record_is_decoded_fast_enough_for_the_journals_of_a_large_run() -> None:
    import time

    record = line(type="metric", attempt=0, local_rank=0, step=1, loss=2.0, rate=5.0, rate_unit="tokens/s")
    began = time.process_time()
    for _ in range(20_000):
        events.decode_record(record, 0)

    assert time.process_time() - began < 2.0


def test_events_are_frozen() -> None:
    with pytest.raises(AttributeError):
        events.Warning(t=0.0, text="").text = "other"  # type: ignore[misc]
