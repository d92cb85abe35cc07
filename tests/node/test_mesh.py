"""Listener and callers of the mesh, over the loopback interface."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
from random import Random
from typing import TYPE_CHECKING

import pytest

from engine.node import mesh
from engine.node.pour import pour
from engine.preflight.pairs import ALL_PAIRS, blame, pairs, walls

if TYPE_CHECKING:
    from collections.abc import Iterator

NONCE = "0123456789abcdef" * 2


@pytest.fixture
def listener() -> Iterator[mesh.Listener]:
    made = mesh.Listener(NONCE, "127.0.0.1", 2)
    yield made
    made.close()


def call(port: int, nonce: str = NONCE, seconds: float = 2.0) -> mesh.Json:
    return mesh.call(nonce, [mesh.Target("k", "127.0.0.1", port)], "127.0.0.1", seconds)[0]


def test_a_call_measures_round_trip_loss_and_full_packets(listener: mesh.Listener) -> None:
    for port in listener.ports:
        found = call(port)
        assert (found["key"], found["ok"], found["large"], found["error"]) == ("k", True, True, "")
        assert 0 < found["rtt"] < 1
        assert found["sent"] >= 2 * mesh.PINGS
        assert found["lost"] <= 2


def test_many_are_called_at_once(listener: mesh.Listener) -> None:
    targets = [mesh.Target(number, "127.0.0.1", listener.ports[number % 2]) for number in range(60)]
    found = mesh.call(NONCE, targets)
    assert [each["key"] for each in found if each["ok"]] == list(range(60))


def test_a_port_where_nobody_listens_is_refused(listener: mesh.Listener) -> None:
    listener.close()
    found = call(listener.ports[0])
    assert (found["ok"], found["code"], found["tries"]) == (False, "ECONNREFUSED", 1)


def test_who_does_not_know_the_nonce_is_told_nothing(listener: mesh.Listener) -> None:
    with socket.create_connection(("127.0.0.1", listener.ports[0]), timeout=5) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        answer = b"x"
        with contextlib.suppress(ConnectionResetError):
            answer = sock.recv(100)
    assert answer in (b"", b"x")
    assert call(listener.ports[0], "f" * mesh.NONCE)["code"] == "stranger"


def test_something_else_that_listens_is_a_stranger() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with server.accept()[0] as sock:
                sock.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        found = call(server.getsockname()[1])
        thread.join()
    assert (found["ok"], found["code"]) == (False, "stranger")


def test_a_port_that_stays_silent_is_given_up_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = call(server.getsockname()[1], seconds=0.3)
    assert (found["ok"], found["code"]) == (False, "silent")


def test_a_full_queue_is_tried_more_than_once_and_given_up_in_time() -> None:
    with socket.socket() as server, contextlib.ExitStack() as waiting:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(3):  # whoever is in the queue keeps it full: the kernel drops what comes, as a firewall would
            sock = waiting.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(server.getsockname())
        found = call(server.getsockname()[1], seconds=1.0)
    assert (found["ok"], found["code"], found["tries"]) == (False, "ETIMEDOUT", mesh.TRIES)


def test_the_master_port_is_taken_as_torch_takes_it_and_given_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    listener = mesh.Listener(NONCE, "127.0.0.1", 1, port)
    assert listener.also == ""
    assert call(port)["ok"]
    listener.close()
    mesh.Listener(NONCE, "127.0.0.1", 0, port).close()


def test_a_master_port_that_is_taken_is_told_and_the_others_work() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listener = mesh.Listener(NONCE, "127.0.0.1", 1, taken.getsockname()[1])
        assert listener.also == "Address already in use"
        assert call(listener.ports[0])["ok"]
        listener.close()


def test_an_address_of_another_machine_is_listened_on_everywhere() -> None:
    listener = mesh.Listener(NONCE, "192.0.2.77", 1)
    assert call(listener.ports[0])["ok"]
    listener.close()


def test_a_listener_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh, "LISTEN_SECONDS", 0.1)
    listener = mesh.Listener(NONCE, "127.0.0.1", 1)
    listener._thread.join(5)
    assert call(listener.ports[0])["code"] == "ECONNREFUSED"


def test_a_sink_takes_what_goes_and_the_rate_is_measured() -> None:
    sink = mesh.Listener(NONCE, "127.0.0.1", 1, sink=True)
    found = pour(NONCE, mesh.Target(7, "127.0.0.1", sink.ports[0]), "127.0.0.1", 0.2)
    assert (found["key"], found["ok"], found["error"]) == (7, True, "")
    assert found["rate"] > 1e8
    sink.close()
    assert pour(NONCE, mesh.Target(7, "127.0.0.1", sink.ports[0]))["error"] == "Connection refused"


def test_a_caller_that_goes_while_it_is_answered_does_not_end_the_program_on_the_node() -> None:
    program = (
        "import signal, sys, time; from engine.node import mesh; signal.signal(signal.SIGPIPE, signal.SIG_DFL);"
        "listener = mesh.Listener(sys.argv[1], '127.0.0.1', 1); print(listener.ports[0], flush=True); input()"
    )
    argv = [sys.executable, "-c", program, NONCE]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdout is not None
        port = int(node.stdout.readline())
        for _ in range(20):
            with socket.socket() as caller:
                caller.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
                caller.connect(("127.0.0.1", port))
                caller.sendall(NONCE[: len(NONCE) // 2].encode() + b"." * mesh.LARGE)
                caller.shutdown(socket.SHUT_WR)
                caller.recv(1)
        assert call(port)["ok"]
        node.communicate("go", timeout=30)
    assert node.returncode == 0


# ---- who calls whom, and who is to blame ----------------------------------------------------------------------------


def test_up_to_32_nodes_everybody_calls_everybody() -> None:
    assert len(pairs(range(ALL_PAIRS), Random(1))) == ALL_PAIRS * (ALL_PAIRS - 1)


@pytest.mark.parametrize("count", [33, 500])
def test_beyond_that_a_ring_and_some_others_call_each_other(count: int) -> None:
    ranks = list(range(1000, 1000 + count))
    found = pairs(ranks, Random(1))
    assert {(a, b) for a, b in zip(ranks, [*ranks[1:], ranks[0]], strict=True)} <= found
    assert {(b, a) for a, b in found} == found
    assert len(found) <= count * 2 * 4
    assert all(a != b for a, b in found)


def test_the_node_that_most_others_have_trouble_with_is_to_blame() -> None:
    tested = pairs(range(5), Random(1))
    blamed, left = blame({(0, 3), (1, 3), (2, 3), (4, 3), (1, 2)}, tested)
    assert {rank: len(bad) for rank, bad in blamed.items()} == {3: 4}
    assert left == {(1, 2)}


def test_a_wall_stands_before_who_is_called() -> None:
    tested = pairs(range(3), Random(1))
    blamed, left = walls({(0, 1), (2, 1), (0, 2), (1, 2)}, tested)
    assert blamed == {1: {(0, 1), (2, 1)}, 2: {(0, 2), (1, 2)}}
    assert not left


def test_who_is_cut_off_is_at_fault_for_both_directions() -> None:
    tested = pairs(range(4), Random(1))
    bad = {pair for pair in tested if 2 in pair}
    assert walls(bad, tested) == ({2: bad}, set())


def test_who_can_call_nobody_is_at_fault() -> None:
    tested = pairs(range(4), Random(1))
    bad = {pair for pair in tested if pair[0] == 2}
    assert walls(bad, tested) == ({2: bad}, set())
    assert walls({(0, 1)}, {(0, 1), (1, 0)}) == ({}, {(0, 1)})


def test_of_two_nodes_nobody_is_to_blame() -> None:
    assert blame({(0, 1)}, {(0, 1), (1, 0)}) == ({}, {(0, 1)})
