"""What a conversation makes of a node that lies, says nonsense, or falls silent."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from engine import conversation
from engine.errors import ConnectionLost, MachineError, NodeRefused
from tests.unit.lying_node import LyingNode, frame, line

if TYPE_CHECKING:
    from collections.abc import Callable

LOG = "ranks/x_0/attempt_0/0/stdout.log"


class Heard:
    """A sink that keeps the bytes of every stream."""

    def __init__(self) -> None:
        self.bytes: dict[str, bytes] = {}
        self.told: list[str] = []

    def reset(self, stream: str) -> None:
        self.told.append("reset")
        self.bytes[stream] = b""

    def frame(self, stream: str, end: int, more: bool) -> None:
        pass

    def data(self, stream: str, offset: int, data: bytes) -> None:
        held = self.bytes.get(stream, b"")
        if offset != len(held):
            raise ValueError(f"bytes for offset {offset} where {len(held)} comes next")
        self.bytes[stream] = held + data

    def alive(self, alive: bool) -> None:
        self.told.append(f"alive {alive}")

    def drained(self, streams: int) -> None:
        self.told.append(f"drained {streams}")


async def following(node: LyingNode, sink: Heard | None = None) -> tuple[conversation.Conversation, int]:
    talk = await node.greeted()
    number = await talk.watch("lab-1", 0, {LOG: (0, 0)}, sink or Heard(), False)
    return talk, number


async def test_frames_may_be_cut_anywhere() -> None:
    sink, node = Heard(), LyingNode()
    talk, number = await following(node, sink)
    text = b"".join(b"line %d {\n" % k for k in range(50))
    said = frame(number, LOG, 0, text[:200]) + line({"id": number, "alive": True}) + frame(number, LOG, 200, text[200:])
    for at in range(0, len(said), 7):
        node.say(said[at : at + 7])
    node.say(line({"id": number, "drained": 1}))
    await talk.ask("ping", timeout=20)
    assert sink.bytes == {LOG: text}
    assert sink.told == ["alive True", "drained 1"]
    await talk.close()


LIES: dict[str, Callable[[int], bytes]] = {
    "a file elsewhere": lambda n: frame(n, "../../../.ssh/authorized_keys", 0, b"x"),
    "an absolute path": lambda n: frame(n, "/etc/passwd", 0, b"x"),
    "a stream with a line break": lambda n: frame(n, LOG + "\n", 0, b"x"),
    "a stream that is a number": lambda n: line({"id": n, "s": 7, "o": 0, "n": 1}),
    "an offset beyond the end": lambda n: frame(n, LOG, 1 << 62, b"x"),
    "an offset below 0": lambda n: frame(n, LOG, -1, b"x"),
    "a frame that is too large": lambda n: line({"id": n, "s": LOG, "o": 0, "n": 1 << 40}),
    "a frame of a fraction": lambda n: line({"id": n, "s": LOG, "o": 0, "n": 0.5}),
    "a frame without a size": lambda n: line({"id": n, "s": LOG}),
    "a frame of no follow": lambda n: frame(n + 77, LOG, 0, b"x"),
    "an id that is a list": lambda n: line({"id": [n], "ok": {}}),
    "no id": lambda n: line({"ok": {}}),
    "no object": lambda n: line([1, 2]),
    "no JSON": lambda n: b"Traceback (most recent call last):\n",
    "bytes that are no text": lambda n: b"\xff\xfe{\n",
    "a deep nest": lambda n: b"[" * 200_000 + b"\n",
    "a number of a million digits": lambda n: b'{"id": %s}\n' % (b"9" * 1_000_000),
    "a count that is infinite": lambda n: b'{"id": %d, "drained": Infinity}\n' % n,
    "a count that is a word": lambda n: line({"id": n, "drained": "all"}),
    "a line without an end": lambda n: b"x" * (conversation.LINE_LIMIT + 1),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
async def test_a_node_that_does_not_keep_to_the_protocol_is_left(lie: Callable[[int], bytes]) -> None:
    sink, node = Heard(), LyingNode()
    talk, number = await following(node, sink)
    node.say(lie(number))
    error = await asyncio.wait_for(asyncio.shield(talk.ended), 20)
    assert isinstance(error, ConnectionLost)
    assert "does not keep to the protocol" in error.text
    assert error.text.isprintable()
    assert len(error.text) < 5000
    assert not any(sink.bytes.values())
    await talk.close()


async def test_an_endless_node_is_left_before_it_fills_the_memory() -> None:
    node = LyingNode()
    talk, _ = await following(node)
    said = 0
    while not talk.ended.done():
        node.say(b"x" * (1 << 20))
        said += 1
        await asyncio.sleep(0)
        assert said < 100
    await talk.close()


@pytest.mark.parametrize(
    "hello",
    [{"protocol": "one"}, {"t": "now"}, {"host": 7}, {"state": None}, {"boot": ["b"]}, {"ok": False, "python": 3}],
)
async def test_a_strange_greeting_is_refused(hello: dict[str, Any]) -> None:
    node = LyingNode(hello)
    with pytest.raises(NodeRefused, match="strange answer to our greeting"):
        await node.greeted()
    assert node.closed


async def test_what_a_node_says_of_itself_is_safe_to_show() -> None:
    talk = await LyingNode({"host": "\x1b]0;owned\x07gpu01\u202e", "user": "ml\x1b[31m"}).greeted()
    assert (talk.hello.host, talk.hello.user) == ("gpu01", "ml")
    await talk.close()


async def test_what_a_node_says_of_a_refusal_is_safe_to_show() -> None:
    node = LyingNode()
    talk = await node.greeted()
    node.answer = lambda request: line({"id": request["id"], "error": "ENOSPC", "text": "\x1b[2Jno\x07 room\x9b31m"})
    with pytest.raises(NodeRefused) as caught:
        await talk.ask("launch", timeout=20)
    assert caught.value.text == "no space left (no room)"
    assert caught.value.code == "ENOSPC"
    await talk.close()


@pytest.mark.parametrize("moment", [None, "now", float("nan"), float("inf"), [], {"t": 1}])
async def test_a_clock_that_tells_no_time_ends_the_greeting(moment: Any) -> None:
    node = LyingNode()
    node.answer = lambda request: line({"id": request["id"], "ok": {"t": moment}})
    with pytest.raises(ConnectionLost, match="clock"):
        await node.greeted()


async def test_an_answer_to_no_question_is_passed_over() -> None:
    node = LyingNode()
    talk = await node.greeted()
    node.say(line({"id": 4711, "ok": {}}) + line({"id": 4711, "error": "x"}))
    assert (await talk.ask("ping", timeout=20))["t"]
    await talk.close()


async def test_a_node_that_falls_silent_is_noticed_though_the_link_looks_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "PING_EVERY", 0.05)
    node = LyingNode()
    talk = await node.greeted()
    node.answer = lambda request: b""
    error = await asyncio.wait_for(asyncio.shield(talk.ended), 20)
    assert "no answer to “ping”" in error.text
    await talk.close()


async def test_a_busy_node_that_sends_but_answers_no_ping_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversation, "PING_EVERY", 0.05)
    node, sink = LyingNode(), Heard()
    talk, number = await following(node, sink)
    node.answer = lambda request: b""
    for offset in range(40):
        node.say(frame(number, LOG, offset, b"x"))
        await asyncio.sleep(0.02)
    assert not talk.ended.done()
    await talk.close()


async def test_whoever_is_cancelled_as_the_answer_comes_does_not_go_on() -> None:
    node = LyingNode()
    talk = await node.greeted()
    went_on: list[str] = []

    async def asking() -> None:
        await talk.ask("ping", timeout=20)
        went_on.append("as if nobody had left")

    def answer_and_leave(request: dict[str, Any]) -> bytes:
        talk._digest(node.honest(request))
        task.cancel()
        return b""

    task = asyncio.ensure_future(asking())
    node.answer = answer_and_leave
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()
    assert went_on == []
    await talk.close()


async def test_a_fault_in_a_viewer_ends_the_conversation_with_its_name() -> None:
    class Faulty(Heard):
        def alive(self, alive: bool) -> None:
            raise AttributeError("a viewer's own fault")

    node = LyingNode()
    talk, number = await following(node, Faulty())
    node.say(line({"id": number, "alive": True}))
    error = await asyncio.wait_for(asyncio.shield(talk.ended), 20)
    assert type(error) is MachineError, "nothing that another attempt could mend"
    assert "a viewer's own fault" in error.text
    await talk.close()
