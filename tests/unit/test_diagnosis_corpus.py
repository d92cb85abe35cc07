"""The verdict on every case of the corpus, and what makes a rule a good one.

A case is one file in diagnosis/: a line of JSON that says what is expected, a line that says where it comes from, and
the log of each node. To add one, add a file.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import evidence
from engine.cli.diagnose import as_object
from engine.diagnosis import Source, Verdict, diagnose
from engine.diagnosis.lines import LONGEST
from engine.diagnosis.rules import RULES, fill
from engine.diagnosis.rules.ends import ENDS
from engine.text import clean

CASES = sorted((Path(__file__).parent / "diagnosis").glob("*.txt"))
PROMISED = {"rule", "role", "node_rank", "rank", "cause", "evidence", "remedy", "confidence"}


def read(case: Path) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """What is expected, and (name, text) of each node's log."""
    head, *parts = re.split(r"^===== (\S+) =====\n", case.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return json.loads(head.split("\n")[0]), list(zip(parts[::2], parts[1::2], strict=True))


def verdict_on(logs: list[tuple[str, str]], folder: Path) -> Verdict | None:
    """What `rankdeck diagnose FILE…` comes to."""
    for name, text in logs:
        (folder / name).write_text(text, encoding="utf-8")
    return diagnose(evidence.read_sources([str(folder / name) for name, _ in logs]))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_a_case_has_its_verdict(case: Path, tmp_path: Path) -> None:
    expected, logs = read(case)
    verdict = verdict_on(logs, tmp_path)
    told = as_object(verdict)
    assert set(told) == PROMISED
    assert (told["rule"], told["node_rank"], told["rank"]) == (
        expected["rule"],
        expected["node_rank"],
        expected["rank"],
    ), told["cause"]
    assert expected.get("says", "") in told["cause"]
    if verdict is None:
        return
    assert told["role"] == expected.get("role", "root")
    assert 0 < told["confidence"] < 1
    assert told["remedy"] and told["cause"]
    assert "…" not in re.sub(r"…$|\w…|: …", "", told["remedy"]), "a word that the rule needs has no value"
    for proof in told["evidence"]:
        lines = Path(proof["file"]).read_text(encoding="utf-8").split("\n")
        assert proof["text"].rstrip("…").strip() in lines[proof["line"] - 1].rpartition("\r")[2]
    assert 0 < len(told["evidence"]) <= 3


def test_the_text_of_torchruns_marks_makes_no_difference(tmp_path: Path) -> None:
    """Where the ranks have marks of torch itself, torchrun's own (`[default0]:`) may be missing."""
    for name in ("raise", "cuda_oom", "shared_file_missing", "nccl_watchdog_silent_rank"):
        expected, logs = read(Path(__file__).parent / "diagnosis" / f"{name}.txt")
        bare = [(file, re.sub(r"^\[default\d+\]:(?=\[rank)", "", text, flags=re.MULTILINE)) for file, text in logs]
        verdict = verdict_on(bare, tmp_path)
        assert verdict is not None
        assert (verdict.rule, verdict.node_rank, verdict.rank) == (
            expected["rule"],
            expected["node_rank"],
            expected["rank"],
        )


WRAPPINGS = {
    "container": "2026-11-24T10:00:0{second}.123456789Z stderr F {line}",
    "ts": "Nov 24 10:00:0{second} {line}",
    "brackets": "[2026-11-24 10:00:0{second}] {line}",
    "clock": "10:00:0{second} {line}",
    "journald": "Nov 24 10:00:0{second} gpu0{node} torchrun[4711]: {line}",
    "pod": "[pod/train-worker-{node}/pytorch] {line}",
    "ray": "(worker, pid=471{node}, ip=10.0.0.1{node}) {line}",
    "srun": "{node}: {line}",
    "pdsh and a clock": "gpu0{node}: 10:00:0{second} {line}",
    "indented": "    {line}",
    "coloured": "\x1b[2m{node}: \x1b[0m{line}",
}


@pytest.mark.parametrize("wrapping", WRAPPINGS.values(), ids=WRAPPINGS)
def test_what_the_lines_of_a_file_are_wrapped_in_makes_no_difference(wrapping: str, tmp_path: Path) -> None:
    for case in [case for case in CASES[::5] if "label" not in case.stem and "launcher" not in case.stem]:
        expected, logs = read(case)
        wrapped = [
            (
                file,
                "".join(
                    wrapping.format(node=node, second=count % 10, line=line) + "\n"
                    for count, line in enumerate(text.split("\n")[:-1])
                ),
            )
            for node, (file, text) in enumerate(logs)
        ]
        told = as_object(verdict_on(wrapped, tmp_path))
        assert [told[key] for key in ("rule", "node_rank", "rank")] == [
            expected[key] for key in ("rule", "node_rank", "rank")
        ], case.stem


def test_labels_of_srun_are_ranks_where_no_torchrun_ran() -> None:
    logs = [
        "".join(f"{rank}: rank {rank} started\n{rank}: step 1 loss 0.2\n" for rank in ranks)
        for ranks in ((0, 1), (2, 3))
    ]
    logs[1] += '3: Traceback (most recent call last):\n3:   File "t.py", line 9, in main\n3: ValueError: bad sample\n'
    logs[1] += "srun: error: gpu02: task 3: Exited with exit code 1\n"
    verdict = diagnose([Source(name=f"{k}", node_rank=k, data=text.encode()) for k, text in enumerate(logs)])
    assert verdict is not None
    assert (verdict.rule, verdict.node_rank, verdict.rank) == ("exception", 1, 3)


def test_ids_are_unique_and_every_rule_says_what_and_what_to_do() -> None:
    rules = [*RULES, *ENDS]
    assert len({rule.id for rule in rules}) == len(rules)
    for rule in rules:
        assert re.fullmatch(r"[a-z]+(?:-[a-z]+)*", rule.id)
        if rule.role != "advice" and rule.id != "unknown":
            assert rule.says and rule.remedy, rule.id
        for pattern in (*rule.texts, rule.also, rule.unless):
            re.compile(pattern)


@pytest.mark.parametrize(
    ("template", "values", "text"),
    [
        ("port[ {port}] is taken", {"port": "29500"}, "port 29500 is taken"),
        ("port[ {port}] is taken", {}, "port is taken"),
        ("{a}[, {b} of {c}]", {"a": "x", "b": "1"}, "x"),
        ("set {HF: 1}, {a}", {"a": "[brackets]"}, "set {HF: 1}, [brackets]"),
    ],
)
def test_a_part_without_its_value_is_left_out(template: str, values: dict[str, str | None], text: str) -> None:
    assert fill(template, values) == text


def folder_of(root: Path, node: int, files: dict[str, str]) -> str:
    """What torchrun leaves in its --log_dir on one node."""
    for name, text in files.items():
        path = root / f"node{node}" / f"none_ab{node}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return str(root / f"node{node}")


VICTIM = (
    '[rank{0}]: Traceback (most recent call last):\n[rank{0}]:   File "/data/exp/t.py", line 9, in main\n'
    "[rank{0}]: RuntimeError: [gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.12]:46502\n"
)
ERROR_FILE = json.dumps(
    {
        "message": {
            "message": "KeyError: 'tokens'",
            "extraInfo": {
                "py_callstack": 'Traceback (most recent call last):\n  File "/data/exp/t.py", line 7, in load\n'
                "    return sample['tokens']\nKeyError: 'tokens'\n",
                "timestamp": "1795465320",
            },
        }
    }
)


def test_folders_of_log_dir_are_nodes_and_an_error_file_names_the_exception(tmp_path: Path) -> None:
    first = folder_of(tmp_path, 0, {"attempt_0/0/stderr.log": VICTIM.format(0), "attempt_0/0/stdout.log": "step 1\n"})
    second = folder_of(tmp_path, 1, {"attempt_0/0/stderr.log": "", "attempt_0/0/error.json": ERROR_FILE})
    for paths in ([first, second], [str(tmp_path)]):
        verdict = diagnose(evidence.read_sources(paths))
        assert verdict is not None
        assert (verdict.rule, verdict.node_rank, verdict.rank) == ("exception", 1, 1)
        assert "KeyError: 'tokens', in load (/data/exp/t.py:7)" in verdict.cause
        assert verdict.proof[0].file.endswith("error.json")


def test_a_folder_without_logs_of_torchrun_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no logs of torchrun"):
        evidence.read_sources([str(tmp_path)])


def test_of_a_large_file_beginning_and_end_are_read_with_their_true_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "HEAD", 4000)
    monkeypatch.setattr(evidence, "TAIL", 4000)
    log = tmp_path / "node0.txt"
    text = "rank 0/1 started\n" + "step 1 of many\n" * 5000 + "[rank0]: Traceback (most recent call last):\n"
    text += '[rank0]:   File "/data/exp/t.py", line 9, in main\n[rank0]: ValueError: the end\n'
    log.write_text(text)
    verdict = diagnose(evidence.read_sources([str(log)]))
    assert verdict is not None
    assert (verdict.proof[0].line, verdict.proof[0].text) == (5004, "[rank0]: ValueError: the end")
    assert log.read_bytes()[verdict.proof[0].offset :] == b"[rank0]: ValueError: the end\n"


PIECES = [
    "Traceback (most recent call last):\n",
    '  File "a.py", line 3, in f\n',
    "ValueError: x\n",
    "[rank0]: ",
    "[default1]:",
    "0: ",
    "During handling of the above exception, another exception occurred:\n",
    "failed (exitcode: -9) local_rank: 0 (pid: 1) of binary: x\n",
    "Root Cause (first observed failure):\n[0]:\n  time      : 2026-13-99_99:99:99\n",
    "  rank      : 0 (local_rank: 0)\n  exitcode  : 1 (pid: 2)\n",
    "Watchdog caught collective operation timeout: WorkNCCL(SeqNum=9, OpType=ALLREDUCE",
    "Received 15 death signal\n",
    "  | ExceptionGroup: x (1 sub-exception)\n",
    "│ ╭ ╰\n",
    "\r",
    "\x1b[31m",
    "\n",
]


@given(st.lists(st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=30).map("".join), max_size=3))
def test_no_text_makes_the_diagnosis_fail(logs: list[str]) -> None:
    sources = [Source(name=f"{k}", node_rank=k, data=text.encode("utf-8", "replace")) for k, text in enumerate(logs)]
    verdict = diagnose(sources)
    assert verdict is None or clean(verdict.cause) == verdict.cause


def test_no_pattern_is_slow_on_its_own_words_said_over_and_over() -> None:
    patterns = {pattern for rule in RULES for pattern in (*rule.texts, rule.also, rule.unless) if pattern}
    for pattern in sorted(patterns):
        said = re.findall(r"[A-Za-z][A-Za-z/ ]{2,}", pattern)[:4]
        units = [*said, " ".join(said), "/dev/shm/", "a", "1 ", '"a: ']
        began = time.thread_time()
        for unit in units:
            re.search(pattern, (unit + " " * (len(unit) % 2)) * (LONGEST // (len(unit) + 1)))
        assert time.thread_time() - began < 2.0, pattern


@pytest.mark.parametrize(
    "unit",
    ["(", "[rank0]:", "errno: 98 ", "server socket has failed to listen ", "CUDA out of memory. Tried to ", "0: a: "],
)
def test_hostile_lines_take_no_time(unit: str) -> None:
    text = "[rank0]: Traceback (most recent call last):\n[rank0]: ValueError: " + unit * (100_000 // len(unit)) + "\n"
    began = time.perf_counter()
    diagnose([Source(name="a", node_rank=0, data=text.encode() * 10)])
    assert time.perf_counter() - began < 2.0
