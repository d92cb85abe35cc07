"""What a viewer without a screen prints: lines with rank and node, a status line on a terminal, JSON for programs."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from engine import events
from engine.cli.plain import CARRY_LIMIT, JsonLines, Plain
from engine.state import RunState
from tests.unit.runs_made_up import NodeStory, fold, made_plan, stderr_of

STDOUT = "ranks/x_1/attempt_0/0/stdout.log"


class Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


def plain(talk: io.StringIO | None = None, nodes: int = 2) -> tuple[Plain, io.StringIO, RunState]:
    """A viewer of a made-up run whose ranks have begun; what it prints on stdout."""
    state = fold(RunState(made_plan(nodes)), [NodeStory(rank).starts() for rank in range(nodes)])
    state.apply(events.Stream(t=0.0, node_rank=1, path=STDOUT, attempt=0, local_rank=0, stream="stdout"))
    out = io.StringIO()
    viewer = Plain(out, talk or io.StringIO())
    viewer.session = cast("Any", SimpleNamespace(state=state))
    return viewer, out, state


def test_every_line_begins_with_its_rank_node_and_stream() -> None:
    viewer, out, _ = plain()
    viewer.log(1, STDOUT, b"step 1\nstep 2\n")
    viewer.log(0, stderr_of(0, 1), b"oops\n")
    viewer.log(0, "torchrun.log", b"W1124 words\n")
    assert out.getvalue() == ("2 gpu02 | step 1\n2 gpu02 | step 2\n1 gpu01 ! oops\n- gpu01 torchrun | W1124 words\n")


def test_ranks_of_a_large_run_stand_below_each_other() -> None:
    viewer, out, _ = plain(nodes=60)
    viewer.log(1, STDOUT, b"one\n")
    viewer.log(59, stderr_of(59, 1), b"two\n")
    assert out.getvalue() == "  2 gpu02 | one\n119 gpu060 ! two\n"


def test_a_line_in_pieces_is_printed_once_it_is_whole() -> None:
    viewer, out, _ = plain()
    viewer.log(1, STDOUT, b"caf" + "é".encode()[:1])
    assert out.getvalue() == ""
    viewer.log(1, STDOUT, "é".encode()[1:] + b"\nlast")
    assert out.getvalue() == "2 gpu02 | café\n"
    viewer.flush()
    assert out.getvalue() == "2 gpu02 | café\n2 gpu02 | last\n"


def test_a_line_without_an_end_is_not_held_for_ever() -> None:
    viewer, out, _ = plain()
    viewer.log(1, STDOUT, b"x" * (CARRY_LIMIT + 1))
    assert out.getvalue().startswith("2 gpu02 | xxx")


@pytest.mark.parametrize("evil", [b"\x1b]0;title\x07", b"\x1b]52;c;aGk=\x07", b"\x1b[2J", b"\x9b2J", "\u202e".encode()])
def test_what_a_rank_prints_cannot_steer_the_terminal(evil: bytes) -> None:
    talk = Tty()
    viewer, out, _ = plain(talk)
    viewer.log(1, STDOUT, b"before" + evil + b"after\n")
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(out.getvalue())
    assert "after" in out.getvalue()


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")


def test_a_terminal_gets_one_status_line_that_makes_room_for_words_and_lines() -> None:
    talk = Tty()
    viewer, out, state = plain(talk)
    metric = events.Metric(t=1.0, node_rank=0, attempt=0, local_rank=0, step=7, total=9, loss=2.5)
    state.apply(metric)
    viewer.event(metric)
    status = talk.getvalue()
    assert status.startswith("\r")
    assert status.endswith("\x1b[K")
    assert "step 7/9" in status
    assert "loss 2.5" in status
    assert "\n" not in status
    viewer.log(1, STDOUT, b"hello\n")
    assert talk.getvalue().removeprefix(status).startswith("\r\x1b[K")
    assert out.getvalue() == "2 gpu02 | hello\n"


def test_without_a_terminal_there_is_no_status_line() -> None:
    talk = io.StringIO()
    viewer, _, _ = plain(talk)
    viewer.event(events.Metric(t=1.0, node_rank=0, attempt=0, local_rank=0, step=7))
    viewer.event(events.Unreachable(t=1.0, node_rank=1, host="gpu02", text="the link broke"))
    assert talk.getvalue().count("\n") == 1
    assert "gpu02" in talk.getvalue()
    assert "the link broke" in talk.getvalue()
    assert not {"\r", "\x1b"} & set(talk.getvalue())


def test_a_terminal_that_redraws_nothing_gets_no_status_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    talk = Tty()
    viewer, _, _ = plain(talk)
    viewer.event(events.Metric(t=1.0, node_rank=0, attempt=0, local_rank=0, step=7))
    assert talk.getvalue() == ""


def test_the_status_line_is_no_wider_than_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    talk = Tty()
    talk.fileno = lambda: 2  # type: ignore[method-assign]
    monkeypatch.setattr("os.get_terminal_size", lambda fd: SimpleNamespace(columns=20))
    viewer, _, _ = plain(talk)
    viewer.event(events.Metric(t=1.0, node_rank=0, attempt=0, local_rank=0, step=7, total=9))
    assert len(talk.getvalue().removeprefix("\r").removesuffix("\x1b[K")) == 19


def test_a_terminal_that_is_gone_stops_no_command() -> None:
    class Gone(Tty):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    viewer, _, _ = plain(Gone())
    viewer.say("stopping …")
    viewer.event(events.Metric(t=1.0, node_rank=0, attempt=0, local_rank=0, step=7))
    viewer.flush()


def test_programs_get_every_event_as_an_object_and_no_log() -> None:
    out = io.StringIO()
    viewer = JsonLines(out)
    story = NodeStory(0).succeeds()
    for event in story.told:
        viewer.event(event)
    viewer.log(0, STDOUT, b"hello\n")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(line["type"], line["node_rank"]) for line in lines][:2] == [("supervisor", 0), ("torchrun", 0)]
    assert [events.decode(line.encode()) for line in out.getvalue().splitlines()] == story.told


def test_what_is_odd_about_the_progress_is_told_once() -> None:
    talk = io.StringIO()
    viewer, _, state = plain(talk)
    for step in range(3):
        beat = events.Metric(t=1.0 + step, node_rank=0, attempt=0, local_rank=0, step=step, loss="nan")
        state.apply(beat)
        viewer.event(beat)
    assert talk.getvalue() == "! nan-loss: the loss is nan at step 0\n"
