"""The command line without any node: what is asked for wrongly, files of this machine, runs that are known."""

from __future__ import annotations

import errno
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from engine import cli, runs
from engine.cli.arguments import parser
from tests.unit.runs_made_up import RUN, made_plan, made_profile

if TYPE_CHECKING:
    from argparse import Namespace

RANKDECK = Path(sys.executable).with_name("rankdeck")
LOGS = Path(__file__).with_name("logs")
PROFILE = """\
version: 1
name: lab
nodes:
  - {host: gpu01, gpus: 2}
program:
  path: train.py
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with one profile, and nothing of the user's own around it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("RANKDECK_STATE", str(tmp_path / "state"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/lab.yaml").write_text(PROFILE)
    return tmp_path


def rankdeck(*words: str) -> int:
    """The exit code, also where argparse ends the program."""
    try:
        return cli.main(words)
    except SystemExit as end:
        assert isinstance(end.code, int)
        return end.code


def add_run(name: str = RUN, summary: runs.Summary | None = None) -> runs.RunFolder:
    record = runs.Record(run=name, created=1.0, profile=made_profile(), plan=made_plan(run=name))
    folder = runs.RunFolder.create(record)
    if summary is not None:
        folder.summarise(summary)
    return folder


# ---- help -----------------------------------------------------------------------------------------------------------


def test_help_answers_within_150_ms_of_cpu() -> None:
    used = []
    for _ in range(5):
        before = os.times()
        done = subprocess.run([RANKDECK, "--help"], capture_output=True, text=True, timeout=30)
        after = os.times()
        used.append(after.children_user + after.children_system - before.children_user - before.children_system)
        assert done.returncode == 0
        assert "exit codes: 0 the job succeeded" in done.stdout
    assert min(used) < 0.15


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["launch", "--help"], ["profiles", "list"]])
def test_what_is_answered_at_once_imports_no_torch_no_textual_and_no_asyncssh(words: list[str]) -> None:
    code = (
        "import atexit, sys, tui\n"
        "atexit.register(lambda: print(sorted({'torch', 'textual', 'asyncssh'} & set(sys.modules)), file=sys.stderr))\n"
        f"tui.main({words!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("words", ["--help", "runs", "profiles list", "launch nosuch", "print lab"])
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_streams_that_the_caller_closed_are_no_mistake(here: Path, words: str, closed: str) -> None:
    shell = ["sh", "-c", f'"$0" {words} {closed}', str(RANKDECK)]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=30)
    assert done.returncode == (2 if "nosuch" in words else 0), done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_terminal_without_unicode_is_told_in_ascii() -> None:
    for words in ["--help", "demo --steps 0"]:
        env = {**os.environ, "PYTHONIOENCODING": "ascii"}
        done = subprocess.run([str(RANKDECK), *words.split()], env=env, capture_output=True, text=True, timeout=30)
        assert done.returncode in (0, 2), done.stderr
        assert "?" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_itself_and_its_exit_codes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert rankdeck(command, "--help") == 0
    assert command == "completion" or "3 preflight found an error" in capsys.readouterr().out


def test_without_a_command_and_without_a_screen_the_help_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert rankdeck() == 0
    assert capsys.readouterr().out.startswith("usage: rankdeck")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "tcsh"])
def test_the_completion_of_each_shell_knows_every_command(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert rankdeck("completion", shell) == 0
    script = capsys.readouterr().out
    assert all(command in script for command in cli.COMMANDS)


# ---- what is asked for wrongly --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("lauch lab", "invalid choice: 'lauch'"),
        ("launch", "the following arguments are required: PROFILE"),
        ("launch lab --detatch", "unrecognized arguments: --detatch"),
        ("launch lab --plain --json", "not allowed with argument --plain"),
        ("launch lab --lost-after -1", "between 0 and 86400 seconds"),
        ("stop lab --grace soon", "invalid seconds value: 'soon'"),
        ("check lab --collective 3", "between 10 and 3600 seconds"),
        ("print lab --format yaml", "invalid choice: 'yaml'"),
        ("print lab --format sbatch", "launcher torchrun has no format 'sbatch'"),
        ("print lba", "there is no profile 'lba' in ./profiles or ~/config/rankdeck/profiles\n  did you mean lab?"),
        ("print lab --set batch.per_devise=8", "--set batch.per_devise=8: batch.per_devise: unknown key; did you mean"),
        ("print lab --set nothing", "--set nothing"),
        ("check lab --skip node.pythn", "there is no check called 'node.pythn'\n  did you mean node.python?"),
        ("launch lab --skip node.pythn", "there is no check called 'node.pythn'"),
        ("launch lab --set secrets=[HF_TOKEN]", "secrets without a value in your environment: HF_TOKEN\n  export HF"),
        ("attach", "there are no runs yet\n  start one: rankdeck launch PROFILE"),
        ("stop lab-1", "there are no runs yet"),
        ("new", "the wizard needs a terminal"),
        ("metrics none.log", "none.log: No such file or directory"),
        ("metrics profiles/lab.yaml --pattern (", "--pattern is not a regular expression"),
        ("diagnose none.log other.log", "none.log: no such file or folder"),
        ("diagnose logs/none.log", "logs/none.log: no such file or folder"),
        ("profiles show lba", "did you mean lab?"),
        ("completion powershell", "invalid choice: 'powershell'"),
    ],
)
def test_a_wrong_request_is_2_and_says_what_to_do_on_stderr(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert rankdeck(*shlex.split(words)) == 2
    shown = capsys.readouterr()
    assert said in shown.err
    assert shown.out == ""
    assert "Traceback" not in shown.err
    assert not runs.listing()


@pytest.mark.parametrize("command", ["check", "print", "launch", "reap", "profiles show", "profiles validate"])
def test_every_mistake_of_a_profile_comes_with_line_key_and_what_is_allowed(
    here: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = here / "bad.yaml"
    bad.write_text(PROFILE.replace("gpus: 2", "gpus: two").replace("path:", "pth:") + "launcher: mpirun\n")
    assert rankdeck(*command.split(), str(bad)) == 2
    said = capsys.readouterr().err.splitlines()
    assert f"{bad}: 4 mistakes" in said[0]
    lines = [line.strip() for line in said[1:]]
    assert all(line.startswith(f"{bad}:") for line in lines), lines
    by_line = {line.removeprefix(f"{bad}:").partition(":")[0]: line for line in lines}
    assert "nodes[0].gpus" in by_line["4"]
    assert "'two'" in by_line["4"] or "“two”" in by_line["4"]
    assert "did you mean path?" in said[2] + said[3]
    assert "torchrun" in by_line["7"]
    assert "slurm" in by_line["7"]


def test_two_runs_that_begin_alike_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    add_run("lab-20261124-120000-abcd")
    add_run("lab-20261125-120000-abcd")
    assert rankdeck("pull", "lab-202611") == 2
    assert "names 2 runs: lab-2026112" in capsys.readouterr().err


def test_a_rank_that_the_run_does_not_have_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    add_run()
    assert rankdeck("logs", "lab", "--rank", "4") == 2
    assert "there is no rank 4; the run has ranks 0 to 3" in capsys.readouterr().err


# ---- what goes wrong on this machine --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (KeyboardInterrupt(), 130, ""),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            4,
            "this machine: No space left on device\n  make room here",
        ),
        (
            OSError(errno.EROFS, "Read-only file system", "/x"),
            4,
            "/x: Read-only file system\n  keep what Rankdeck knows",
        ),
        (OSError(errno.EMFILE, "Too many open files"), 4, "ulimit -n 4096"),
    ],
)
def test_a_fault_of_this_machine_has_its_exit_code(
    fault: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(options: Namespace) -> int:
        raise fault

    monkeypatch.setattr("engine.cli.history.list_runs", fails)
    assert rankdeck("runs") == code
    assert said in capsys.readouterr().err


def test_a_reader_that_has_gone_is_no_complaint() -> None:
    command = f"{shlex.quote(str(RANKDECK))} completion bash | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    assert done.stdout in ("130\n", "0\n")


# ---- profiles and plans ---------------------------------------------------------------------------------------------


def test_the_list_of_profiles_says_where_each_comes_from(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = here / "config/rankdeck/profiles"
    own.mkdir(parents=True)
    (own / "lab.yaml").write_text(PROFILE)
    (own / "broken.yaml").write_text("version: 1\n")
    assert rankdeck("profiles") == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert shown[:2] == [["NAME", "FROM"], ["lab", "./profiles"]]
    assert shown[2][:2] == ["broken", "~/config/rankdeck/profiles"]
    assert shown[3][:4] == ["lab", "~/config/rankdeck/profiles", "hidden", "by"]
    assert rankdeck("profiles", "list", "--json") == 0
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {key for entry in listed for key in entry} == {"name", "path", "origin", "error", "shadowed_by"}
    assert [bool(entry["error"]) for entry in listed] == [False, True, False]


def test_a_profile_is_shown_as_yaml_and_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert rankdeck("profiles", "show", "lab") == 0
    assert "host: gpu01" in capsys.readouterr().out
    assert rankdeck("profiles", "show", "lab", "--json") == 0
    assert json.loads(capsys.readouterr().out)["nodes"][0]["gpus"] == 2


def test_validate_says_of_each_profile_whether_it_is_right(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "bad.yaml").write_text("version: 1\n")
    assert rankdeck("profiles", "validate", "lab", "bad.yaml", "--json") == 2
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(entry["profile"], bool(entry["mistakes"])) for entry in found] == [("lab", False), ("bad.yaml", True)]
    assert rankdeck("profiles", "validate", "lab") == 0
    assert capsys.readouterr().out == "lab: no mistakes\n"


def test_what_print_shows_runs_when_it_is_pasted_into_a_shell(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torchrun = here / "torchrun"
    torchrun.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    torchrun.chmod(0o755)
    assert rankdeck("print", "lab", "--set", 'program.args=["--name", "two words $HOME"]') == 0
    env = {"PATH": f"{here}:/usr/bin:/bin", "HOME": str(here)}
    pasted = capsys.readouterr().out
    done = subprocess.run(["bash"], input=pasted, env=env, capture_output=True, text=True, timeout=30)
    assert done.stderr == ""
    assert done.stdout.splitlines()[-3:] == ["train.py", "--name", "two words $HOME"]
    assert rankdeck("print", "lab", "--json") == 0
    assert json.loads(capsys.readouterr().out)["world_size"] == 2


# ---- runs and logs --------------------------------------------------------------------------------------------------


def test_runs_are_listed_the_newest_first_and_a_damaged_one_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert rankdeck("runs") == 0
    assert "no runs yet" in capsys.readouterr().err
    add_run("lab-20261123-120000-abcd", runs.Summary(outcome="failed", seen=1.0, text="rank 1 was killed"))
    add_run("lab-20261124-120000-abcd", runs.Summary(outcome="succeeded", seen=1.0, step=5, total=9))
    add_run("lab-20261125-120000-abcd").path.joinpath("run.json").write_text("{")
    assert rankdeck("runs") == 0
    shown = capsys.readouterr()
    assert "lab-20261125-120000-abcd/run.json cannot be read" in shown.err
    first, second = shown.out.splitlines()[1:]
    assert first.split()[:5] == ["lab-20261124-120000-abcd", "succeeded", "2", "4", "5/9"]
    assert second.endswith("rank 1 was killed")
    assert rankdeck("runs", "--json") == 0
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert set(listed[0]) == {"run", "profile", "created", "hosts", "world_size", "summary"}
    assert set(listed[0]["summary"]) == set(runs.Summary.__struct_fields__)


@pytest.mark.parametrize("words", [["metrics", str(LOGS / "key_value.log")], ["diagnose", str(LOGS / "key_value.log")]])
def test_a_log_of_anybodys_is_read_as_text_and_as_json(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert rankdeck(*words) == 0
    assert capsys.readouterr().out
    assert rankdeck(*words, "--json") == 0
    for line in capsys.readouterr().out.splitlines():
        assert isinstance(msgspec.json.decode(line), dict)


def test_metrics_take_a_pattern_of_the_users_and_stdin() -> None:
    command = [str(RANKDECK), "metrics", "-", "--json", "--pattern", r"it=(?P<step>\d+) l=(?P<loss>\S+)"]
    done = subprocess.run(command, input="it=3 l=0.5\nit=4 l=0.25\n", capture_output=True, text=True, timeout=30)
    *steps, summary = map(json.loads, done.stdout.splitlines())
    assert [step["loss"] for step in steps] == [0.5, 0.25]
    assert (summary["steps"], summary["step"], summary["loss"]) == (2, 4, 0.25)


def test_a_log_without_metrics_is_no_error_and_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert rankdeck("metrics", str(here / "profiles/lab.yaml")) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "no metrics found" in shown.err


def test_every_declared_command_is_there() -> None:
    (commands,) = (action for action in parser()._actions if action.dest == "command")
    assert set(commands.choices or ()) == set(cli.COMMANDS)
