"""The command line on two nodes that are both this machine: every verb of a run, as a user or a script runs it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engine import profile, runs
from tests.node.running import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

RANKDECK = str(Path(sys.executable).with_name("rankdeck"))
HELLO = "echo rank $RANK says hello; echo rank $RANK complains >&2; sleep 0.5"
LINGER = "echo rank $RANK waits; sleep 100 & wait"


class Desk:
    """Somebody who types `rankdeck …` in a folder of their own, where the profile `lab` is."""

    def __init__(self, folder: Path) -> None:
        self.place = Place(folder)
        self.home = folder

    def profile(self, script: str) -> None:
        """Make `lab` run this as every rank, of which each node has one."""
        asked = self.place.profile(script)
        (self.home / "profiles").mkdir(exist_ok=True)
        (self.home / "profiles/lab.yaml").write_text(profile.to_yaml(asked))

    def run(self, *words: str, code: int = 0, seconds: float = 90.0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [RANKDECK, *words], cwd=self.home, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    def objects(self, *words: str, code: int = 0) -> list[dict[str, Any]]:
        """What `--json` prints: an object a line and nothing else."""
        return [json.loads(line) for line in self.run(*words, "--json", code=code).stdout.splitlines()]


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RANKDECK_STATE", str(tmp_path / "here"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    made = Desk(tmp_path)
    yield made
    made.place.clear()


def test_a_run_that_succeeds_is_printed_with_rank_and_node_and_read_again(desk: Desk) -> None:
    desk.profile(HELLO)
    done = desk.run("launch", "lab")
    assert sorted(line for line in done.stdout.splitlines() if "torchrun" not in line) == [
        "0 localhost ! rank 0 complains",
        "0 localhost | rank 0 says hello",
        "1 localhost ! rank 1 complains",
        "1 localhost | rank 1 says hello",
    ]
    assert "2 ranks on 2 node(s)" in done.stderr
    assert "\nsucceeded 0:00:" in done.stderr
    assert "rank 1 says hello" in desk.run("attach").stdout
    assert desk.run("logs", "lab", "--rank", "1").stdout == "rank 1 says hello\n"
    assert desk.run("logs", "lab", "--rank", "1", "--stderr", "--follow").stdout == "rank 1 complains\n"
    said = {"rank": 1, "node_rank": 1, "host": "localhost", "stream": "stdout", "text": "rank 1 says hello"}
    assert desk.objects("logs", "lab", "--rank", "1") == [said]
    assert sorted(desk.run("logs", "lab").stdout.splitlines()) == [
        "0 localhost | rank 0 says hello",
        "1 localhost | rank 1 says hello",
    ]
    (listed,) = desk.objects("runs")
    assert listed["summary"]["outcome"] == "succeeded"
    told = [event["type"] for event in desk.objects("attach")]
    assert told.count("finished") == 2
    assert told.count("ended") == 1
    assert desk.objects("diagnose", "lab") == [
        {"rule": None, "role": None, "node_rank": None, "rank": None, "cause": "nothing failed"}
        | {"evidence": [], "remedy": "", "confidence": 0.8}
    ]


def test_pull_brings_every_byte_to_a_folder(desk: Desk) -> None:
    desk.profile(HELLO)
    run = desk.run("launch", "lab", "--detach").stdout.strip()
    desk.run("attach", run, "--json")
    files = {entry["file"]: entry["bytes"] for entry in desk.objects("pull", run, "copy")}
    assert sum(name.endswith("stdout.log") for name in files) == 2
    for name, size in files.items():
        assert (desk.home / "copy" / name).stat().st_size == size
    for path in desk.place.on_node(run).rglob("*.log"):
        assert (desk.home / "copy" / path.relative_to(desk.place.on_node(run))).read_bytes() == path.read_bytes()


def test_a_run_that_fails_is_1_and_names_rank_evidence_and_the_next_command(desk: Desk) -> None:
    desk.profile(f"if [ $RANK = 1 ]; then sleep 0.5; echo 'ValueError: bad batch' >&2; exit 3; fi; {LINGER}")
    said = desk.run("launch", "lab", code=1).stderr
    assert "first failure: " in said
    assert "rank 1" in said
    assert "ValueError: bad batch" in said
    run = runs.find("lab").run
    assert f"read on: rankdeck logs {run} --rank 1 --stderr" in said
    assert "ValueError" in desk.run("logs", run, "--rank", "1", "--stderr").stdout
    (verdict,) = desk.objects("diagnose", run)
    assert verdict["rank"] == 1
    ended = [event for event in desk.objects("attach", run, code=1) if event["type"] == "ended"]
    assert [event["outcome"] for event in ended] == ["failed"]
    assert "rank 1" in desk.run("runs").stdout


def test_what_preflight_finds_is_3_and_nothing_is_started(desk: Desk) -> None:
    desk.profile(HELLO)
    said = desk.run("launch", "lab", "--set", "program.workdir=/no/such/folder", code=3).stderr
    assert "[program.workdir] localhost: " in said
    assert "nothing was started" in said
    found = desk.objects("check", "lab", "--set", "program.workdir=/no/such/folder", code=3)
    assert {"program.workdir"} <= {finding["check"] for finding in found if finding["severity"] == "error"}
    assert all({"check", "severity", "text", "node_rank", "remedy"} <= set(finding) for finding in found)
    desk.run("check", "lab", "--set", "program.workdir=/no/such/folder", "--skip", "program.workdir")
    assert runs.listing() == []


def test_what_preflight_finds_is_recorded_with_the_run_and_a_warning_holds_nothing_up(desk: Desk) -> None:
    desk.profile(HELLO)
    with socket.socket() as taken:
        taken.bind(("", 0))
        port = taken.getsockname()[1]  # which the kernel hands out, and nobody has
    assert "[ports.range] localhost: " in desk.run("launch", "lab", "--set", f"rendezvous.master_port={port}").stderr
    told = [event for event in desk.objects("attach", runs.find("lab").run) if event["type"] == "finding"]
    (ranged,) = [each for each in told if each["check"] == "ports.range"]
    assert (ranged["severity"], ranged["host"]) == ("warning", "localhost")
    assert f"port {port} lies in" in ranged["text"]


def test_a_machine_that_cannot_be_reached_is_4_for_stop_and_reap(desk: Desk) -> None:
    desk.profile(LINGER)
    run = desk.run("launch", "lab", "--detach").stdout.strip()
    agents = desk.place.state / "agent"
    for path in (desk.place.state, agents):
        path.chmod(0o777)  # a folder that others may write to is not trusted
    assert "chmod 700" in desk.run("stop", run, "--grace", "1", code=4).stdout
    assert "chmod 700" in desk.run("reap", "lab", code=4).stderr
    for path in (desk.place.state, agents):
        path.chmod(0o700)
    results = desk.objects("stop", run, "--grace", "1")
    assert [(result["left"], result["error"]) for result in results] == [([], "")] * 2


def test_stop_ends_a_run_and_reap_leaves_living_ones_alone(desk: Desk) -> None:
    desk.profile(LINGER)
    last = desk.objects("launch", "lab", "--detach")[-1]
    assert last["type"] == "detached"
    run = last["run"]
    reaped = desk.run("reap", "lab")
    assert reaped.stdout == ""
    assert f"run {run}/n0 is alive and left alone" in reaped.stderr
    assert desk.run("stop", run, "--grace", "5").stdout == "localhost: stopped, nothing left\n" * 2
    assert desk.place.left() == []
    assert desk.objects("runs")[0]["summary"]["outcome"] == "stopped"
    assert desk.run("attach", run, code=1).stderr.count("stopped") >= 1
    assert desk.run("diagnose", run).stdout == "nothing failed, as far as these logs tell\n"
    assert "nothing of ours is left" in desk.run("reap", "lab").stderr


@pytest.mark.timeout(240)
def test_the_demo_trains_two_nodes_of_two_ranks_and_leaves_nothing(desk: Desk) -> None:
    pytest.importorskip("torch")
    done = desk.run("demo", "--steps", "3", "--plain", seconds=200.0)
    assert "0 localhost | start: rank 0/4" in done.stdout
    assert "0 localhost | step 3/3  loss " in done.stdout
    assert "\nsucceeded " in done.stderr
    assert desk.objects("runs")[0]["world_size"] == 4


@pytest.mark.timeout(240)
def test_ctrl_c_stops_the_demo_and_it_is_known_as_stopped(desk: Desk) -> None:
    pytest.importorskip("torch")
    with subprocess.Popen(
        [RANKDECK, "demo", "--steps", "100000", "--plain"],
        cwd=desk.home, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as viewer:  # fmt: skip
        assert viewer.stdout is not None
        assert viewer.stderr is not None
        assert any("step 1/100000" in line for line in viewer.stdout)
        viewer.send_signal(signal.SIGINT)
        viewer.stdout.read()
        assert viewer.stderr.read().count("localhost: stopped, nothing left") == 2
        assert viewer.wait(60) == 130
    assert desk.place.left() == []
    assert desk.objects("runs")[0]["summary"]["outcome"] == "stopped"


def test_whoever_reads_the_output_may_go(desk: Desk) -> None:
    desk.profile(f"while echo line; do sleep 0.01; done; {LINGER}")
    with subprocess.Popen(
        [RANKDECK, "launch", "lab"], cwd=desk.home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as viewer:
        assert viewer.stdout is not None
        assert viewer.stderr is not None
        assert viewer.stdout.readline()
        viewer.stdout.close()
        assert "Traceback" not in viewer.stderr.read()
        assert viewer.wait(60) == 130
    assert desk.place.left(), "the run goes on"
    desk.run("stop", "lab", "--grace", "1")
