"""The probe on this machine: real shells, sockets and processes; only nvidia-smi is stood in for, and named so."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from engine.node import environment, gpus, ports, proc, samples, shell, sources, venvs
from engine.node.probe import PARTS, probe
from engine.preflight import judge, read
from engine.profile import Node, Profile, Program, Rendezvous

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PYTHONS = [
    path
    for path in (f"/root/.pyenv/versions/{version}/bin/python3" for version in ("3.8.18", "3.13.0"))
    if Path(path).exists()
] or [sys.executable]
VENV = f"export PATH={Path(sys.executable).parent}:$PATH"


def look(tmp_path: Path, **ask: Any) -> dict[str, Any]:
    asked = {
        "program": {"kind": "script", "path": "train.py"},
        "workdir": str(tmp_path),
        "state": str(tmp_path / "state"),
    }
    return probe({**asked, **ask})


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text("print('hello')\n")
    return path


def write_program(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def gone(*commands: str) -> bool:
    """Whether none of these runs any more; a killed process takes a moment to be so."""
    until = time.monotonic() + 5
    while any(proc.command(pid) in commands for pid in proc.pids()):
        if time.monotonic() > until:
            return False
        time.sleep(0.01)
    return True


def stand_in_nvidia_smi(tmp_path: Path, text: str) -> str:
    write_program(tmp_path / "tools" / "nvidia-smi", "#!/bin/bash\n" + text)
    return f"export PATH={tmp_path}/tools:$PATH"


def fake_torch(site: Path, version: str = "2.1.0+cu118") -> None:
    (site / "torch" / "distributed").mkdir(parents=True)
    (site / "torch" / "__init__.py").write_text("raise SystemExit('torch was imported')\n")
    (site / "torch" / "version.py").write_text(f"__version__ = '{version}'\ncuda: Optional[str] = '11.8'\n")
    (site / "torch" / "distributed" / "run.py").write_text('parser.add_argument("--nnodes", "--log-dir")\n')
    (site / "nvidia_nccl_cu11-2.18.1.dist-info").mkdir()


# ---- the whole -----------------------------------------------------------------------------------------------------


def test_a_healthy_machine_is_described_and_found_healthy(tmp_path: Path, script: Path) -> None:
    answer = look(tmp_path, activate=VENV, ports=[0], free_ports=3)
    answer["ports"]["asked"] = []
    profile = Profile(
        version=1,
        name="lab",
        nodes=(Node(host="localhost", gpus=1),),
        rendezvous=Rendezvous(master_port="auto"),
        program=Program(path="train.py", activate=VENV),
    )
    found = judge(profile, {0: read(json.dumps(answer).encode())})
    assert [finding for finding in found if finding.severity != "info"] == []
    assert set(answer) == set(PARTS)


@pytest.mark.parametrize("python", PYTHONS)
def test_it_runs_on_an_old_and_a_new_python_without_site_packages(python: str, tmp_path: Path, script: Path) -> None:
    code = (
        f"import json, sys; sys.path.insert(0, {str(ROOT)!r}); from engine.node.probe import probe;"
        "print(json.dumps(probe(json.loads(sys.stdin.read()))))"
    )
    ask: dict[str, Any] = {"program": {"kind": "script", "path": "train.py"}, "workdir": str(tmp_path)}
    ask |= {"state": str(tmp_path), "ports": [29500], "route_to": ["localhost"]}
    done = subprocess.run(
        [python, "-I", "-S", "-c", code], input=json.dumps(ask), capture_output=True, text=True, check=True, timeout=60
    )
    answer = json.loads(done.stdout)
    assert [answer[part].get("error", "") for part in PARTS] == [""] * len(PARTS)


def test_a_look_takes_less_than_a_second(tmp_path: Path, script: Path) -> None:
    def took() -> float:
        began = time.monotonic()
        look(tmp_path, activate=VENV, ports=[29500])
        return time.monotonic() - began

    assert any(took() < 1.0 for _ in range(20)), "not once, so it is not the machine that is busy"


def test_only_the_parts_that_are_asked_for_are_looked_at(tmp_path: Path) -> None:
    assert list(look(tmp_path, parts=["addresses"])) == ["addresses"]


def test_a_part_that_fails_leaves_the_others(tmp_path: Path, script: Path) -> None:
    answer = look(tmp_path, ports=["not a number"])
    assert "ValueError" in answer["ports"]["error"]
    assert answer["program"]["exists"]
    assert answer["system"]["cpu_count"] >= 1


def test_the_node_is_left_as_it_is(tmp_path: Path, script: Path) -> None:
    (tmp_path / "state").mkdir()
    look(tmp_path, activate=VENV)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["state", "train.py"]


# ---- the launch's environment --------------------------------------------------------------------------------------


def test_torch_is_found_without_importing_it(tmp_path: Path, script: Path) -> None:
    python = look(tmp_path, activate=VENV)["python"]
    version = (Path(sys.prefix) / "lib").glob("python3*/site-packages/torch/version.py")
    assert f"'{python['torch']}'" in next(version).read_text()
    assert python["torchrun"] == str(Path(sys.executable).with_name("torchrun"))
    assert {"--redirects", "--log-dir", "--nproc_per_node"} <= set(python["torchrun_flags"])
    assert Path(python["python"]).parent == Path(sys.executable).parent


def test_a_torch_of_the_activation_is_read_as_text(tmp_path: Path, script: Path) -> None:
    fake_torch(tmp_path / "site")
    python = look(tmp_path, activate=f"export PYTHONPATH={tmp_path}/site")["python"]
    assert (python["torch"], python["cuda"], python["nccl"]) == ("2.1.0+cu118", "11.8", "2.18.1")
    assert python["torchrun_flags"] == ["--log-dir", "--nnodes"]


@pytest.mark.parametrize(
    "head",
    [
        "#!{python}\n",
        "#!/usr/bin/env python-odd\n",
        '#!/bin/sh\n\'\'\'exec\' "{python}" "$0" "$@"\n',
        "#!{python} -s\n",
    ],
)
def test_the_interpreter_is_that_of_torchrun(head: str, tmp_path: Path, script: Path) -> None:
    python = tmp_path / "odd" / "python-odd"
    write_program(python, f'#!/bin/bash\nexport SEEN=1\nexec -a "{python}" {sys.executable} "$@"\n')
    write_program(tmp_path / "bin" / "torchrun", head.format(python=python))
    seen = look(tmp_path, activate=f"export PATH={tmp_path}/bin:{tmp_path}/odd:$PATH")["python"]
    assert seen["torchrun"] == str(tmp_path / "bin" / "torchrun")
    assert seen["python"] == str(python)


def test_a_missing_folder_is_told_and_the_activation_is_not_run(tmp_path: Path) -> None:
    python = look(tmp_path, workdir=str(tmp_path / "missing"), activate=f"touch {tmp_path}/ran")["python"]
    assert (python["workdir_ok"], python["activated"]) == (False, False)
    assert "No such file" in python["output"]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["a b", "quo'te", "$HOME", "-", "-P", "new\nline"])
def test_a_folder_of_any_name_is_only_a_name(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    assert look(tmp_path, workdir=f"{tmp_path}/{name}")["python"]["cwd"] == str(tmp_path / name)


def test_an_empty_folder_means_home(tmp_path: Path) -> None:
    assert look(tmp_path, workdir="")["python"]["workdir"] == str(Path.home())


@pytest.mark.parametrize(
    ("line", "code"), [("exit 1", 1), ("false", 1), ("source /missing", 1), ("nosuchcommand", 127)]
)
def test_a_broken_activation_shows_its_status(line: str, code: int, tmp_path: Path, script: Path) -> None:
    answer = look(tmp_path, activate=f"echo working on it; {line}")
    assert (answer["python"]["activated"], answer["python"]["code"]) == (False, code)
    assert "working on it" in answer["python"]["output"]
    assert answer["program"]["exists"], "the program is looked for all the same"


def test_an_activation_that_leaves_early_with_success_is_no_success(tmp_path: Path, script: Path) -> None:
    assert look(tmp_path, activate="exit 0")["python"]["activated"] is False


def test_what_an_activation_prints_is_not_taken_for_the_answer(tmp_path: Path, script: Path) -> None:
    line = 'echo activated; echo \'{"torch": "evil"}\'; head -c 3000000 /dev/zero'
    python = look(tmp_path, activate=f"{VENV}; {line}")["python"]
    assert python["activated"]
    assert python["torch"] not in ("", "evil")


def test_an_activation_does_not_see_our_arguments(tmp_path: Path, script: Path) -> None:
    (tmp_path / "activate").write_text('echo "got: $#" >&2; return $#\n')
    python = look(tmp_path, activate="source ./activate")["python"]
    assert (python["activated"], python["output"]) == (True, "got: 0\n")


def test_an_activation_of_several_lines_works(tmp_path: Path, script: Path) -> None:
    lines = f"# ours\nif true; then\n  {VENV}\nfi"
    assert look(tmp_path, activate=lines)["python"]["activated"]


def test_an_activation_that_hangs_is_ended_with_its_children(tmp_path: Path, script: Path) -> None:
    began = time.monotonic()
    answer = look(tmp_path, activate="sleep 4711 & sleep 4712", seconds=0.5)
    assert time.monotonic() - began < 30
    assert (answer["python"]["timed_out"], answer["python"]["workdir_ok"]) == (True, True)
    assert gone("sleep 4711", "sleep 4712")
    assert answer["system"]["hostname"]


def test_what_an_activation_leaves_running_neither_holds_the_look_up_nor_stays(tmp_path: Path, script: Path) -> None:
    began = time.monotonic()
    answer = look(tmp_path, activate=f"sleep 4713 & {VENV}", seconds=10)
    assert time.monotonic() - began < 9
    assert answer["python"]["torch"]
    assert gone("sleep 4713")


def test_an_interpreter_that_does_not_start_is_an_error_of_its_part(tmp_path: Path, script: Path) -> None:
    write_program(tmp_path / "bin" / "python3", "#!/bin/sh\necho broken >&2; exit 3\n")
    answer = look(tmp_path, activate=f"export PATH={tmp_path}/bin:/usr/bin:/bin")
    assert "exit status 3: broken" in answer["python"]["error"]


def test_a_machine_without_bash_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = look(tmp_path)
    assert "bash" in answer["python"]["error"]
    assert answer["system"]["hostname"]


def test_secrets_in_the_environment_stay_on_the_node(
    tmp_path: Path, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_verysecret")
    assert "verysecret" not in json.dumps(look(tmp_path, activate="export WANDB_API_KEY=verysecret; " + VENV))


# ---- the program ----------------------------------------------------------------------------------------------------


def test_the_script_is_hashed(tmp_path: Path, script: Path) -> None:
    program = look(tmp_path)["program"]
    assert program["sha256"] == hashlib.sha256(script.read_bytes()).hexdigest()
    assert (program["path"], program["size"]) == (str(script), script.stat().st_size)


def test_a_script_is_found_from_where_the_activation_leads(tmp_path: Path, script: Path) -> None:
    (tmp_path / "sub").mkdir()
    assert look(tmp_path, activate="cd sub")["program"]["exists"] is False


def test_a_file_of_more_than_8_mib_is_not_hashed(tmp_path: Path, script: Path) -> None:
    os.truncate(script, (8 << 20) + 1)
    program = look(tmp_path)["program"]
    assert (program["exists"], program["sha256"]) == (True, "")


def test_a_missing_script_does_not_exist(tmp_path: Path) -> None:
    assert look(tmp_path)["program"]["exists"] is False


def test_a_module_is_found_without_importing_its_parents(tmp_path: Path) -> None:
    package = tmp_path / "pkg" / "inner"
    package.mkdir(parents=True)
    (tmp_path / "pkg" / "__init__.py").write_text("raise SystemExit('imported')\n")
    (package / "__init__.py").write_text("raise SystemExit('imported')\n")
    (package / "train.py").write_text("")
    (package / "__main__.py").write_text("")
    paths = {
        name: look(tmp_path, program={"kind": "module", "path": name})["program"]["path"]
        for name in ("pkg.inner.train", "pkg.inner", "pkg.missing", "missing")
    }
    assert paths == {
        "pkg.inner.train": str(package / "train.py"),
        "pkg.inner": str(package / "__main__.py"),
        "pkg.missing": "",
        "missing": "",
    }


def test_a_command_is_looked_for_on_the_path_of_the_activation(tmp_path: Path) -> None:
    tool = write_program(tmp_path / "tools" / "mytool", "#!/bin/sh\n")
    ask = {"kind": "command", "path": "mytool"}
    assert look(tmp_path, program=ask)["program"]["exists"] is False
    assert look(tmp_path, program=ask, activate=f"export PATH={tool.parent}:$PATH")["program"]["path"] == str(tool)


# ---- ports -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::")])
def test_a_taken_port_names_its_holder(family: socket.AddressFamily, address: str) -> None:
    with socket.socket(family) as server:
        server.bind((address, 0))
        server.listen()
        port = server.getsockname()[1]
        (asked,) = ports.look([port], 0)["asked"]
    assert (asked["free"], asked["holder"]["pid"]) == (False, os.getpid())
    assert "in use" in asked["error"]
    assert asked["holder"]["user"]


def test_the_holder_is_marked_if_it_is_of_a_run_of_ours() -> None:
    code = "import socket,sys; s=socket.create_server(('',0)); print(s.getsockname()[1],flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "RANKDECK_JOB": "lab-1/n0"},
    ) as server:
        assert server.stdout is not None
        (asked,) = ports.look([int(server.stdout.readline())], 0)["asked"]
        assert (asked["holder"]["pid"], asked["holder"]["job"]) == (server.pid, "lab-1/n0")
        server.communicate()


def test_a_port_that_a_closed_connection_still_occupies_is_free_as_torch_sees_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        accepted = server.accept()[0]
        accepted.close()  # the side that closes first keeps the port in TIME_WAIT
        client.close()
    assert ports.look([port], 0)["asked"][0]["free"]


def test_a_number_that_is_no_port_is_not_free() -> None:
    assert [entry["free"] for entry in ports.look([0, 65536, -1], 0)["asked"]] == [False] * 3


def test_free_ports_are_outside_of_the_ephemeral_range_and_repeat_with_their_seed() -> None:
    low, high = ports.ephemeral_range()
    found = ports.look([], 5, seed=7)["free_ports"]
    assert len(set(found)) == 5
    assert all(port >= 20000 and not low <= port <= high for port in found)
    assert found == ports.look([], 5, seed=7)["free_ports"]
    assert 20000 not in ports.free_ports(50, (20001, 65535), {20000}, 1)


# ---- addresses -------------------------------------------------------------------------------------------------------


def test_the_interfaces_are_those_that_ip_shows(tmp_path: Path) -> None:
    shown = json.loads(subprocess.run(["ip", "-j", "addr"], capture_output=True, check=True).stdout)
    wanted = {
        (link["ifname"], entry["local"])
        for link in shown
        for entry in link.get("addr_info", [])
        if entry["family"] in ("inet", "inet6")
    }
    found = look(tmp_path, parts=["addresses"])["addresses"]["interfaces"]
    assert {(link["name"], ip) for link in found for ip in (*link["ipv4"], *link["ipv6"])} == wanted
    assert [link["name"] for link in found if link["loopback"]] == ["lo"]


def test_a_route_tells_the_address_and_interface_that_packets_leave_by(tmp_path: Path) -> None:
    about = look(tmp_path, parts=["addresses"], route_to=["localhost", "127.0.0.1", "nosuch.invalid"])["addresses"]
    routes = {route["to"]: route for route in about["routes"]}
    assert (routes["127.0.0.1"]["source"], routes["127.0.0.1"]["interface"]) == ("127.0.0.1", "lo")
    assert routes["localhost"]["interface"] == "lo"
    assert routes["nosuch.invalid"]["error"]


def test_a_resolver_that_does_not_answer_costs_no_more_than_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from engine.node import addresses

    def slow(name: str) -> tuple[list[str], str]:
        time.sleep(5)
        return [], ""

    monkeypatch.setattr(addresses, "_lookup", slow)
    began = time.monotonic()
    found = addresses.resolve(["one", "two"], 0.1)
    assert time.monotonic() - began < 4
    assert "no answer" in found["one"][1]


# ---- GPUs ------------------------------------------------------------------------------------------------------------

QUERIES = """case $1 in
--query-gpu=*)
  echo '0, GPU-a, NVIDIA H100 80GB HBM3, 81559, 4, 570.86.10'
  echo '1, GPU-b, NVIDIA H100 80GB HBM3, 81559, [N/A], 570.86.10' ;;
--query-compute-apps=*) printf '%s' "$APPS" ;;
esac
"""


def test_stand_in_nvidia_smi_of_a_healthy_node_lists_its_gpus(tmp_path: Path) -> None:
    found = look(tmp_path, activate=stand_in_nvidia_smi(tmp_path, QUERIES), parts=["gpus"])["gpus"]
    assert [(gpu["index"], gpu["uuid"], gpu["used"]) for gpu in found["gpus"]] == [(0, "GPU-a", 4), (1, "GPU-b", None)]
    assert (found["error"], found["processes"]) == ("", [])


def test_stand_in_nvidia_smi_of_a_busy_node_leads_to_the_owner(tmp_path: Path) -> None:
    line = stand_in_nvidia_smi(tmp_path, f"APPS='GPU-b, {os.getpid()}, 70000\nGPU-b, 999999999, [N/A]\n'\n" + QUERIES)
    mine, gone = look(tmp_path, activate=line, parts=["gpus"])["gpus"]["processes"]
    assert (mine["uuid"], mine["pid"], mine["used"], mine["job"]) == ("GPU-b", os.getpid(), 70000, "")
    assert mine["user"]
    assert "python" in mine["cmd"]
    assert (gone["user"], gone["used"]) == ("", None)


def test_stand_in_nvidia_smi_with_a_broken_driver_says_why(tmp_path: Path) -> None:
    text = "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18\n"
    found = look(tmp_path, activate=stand_in_nvidia_smi(tmp_path, text), parts=["gpus"])["gpus"]
    assert "version mismatch" in found["error"]


def test_stand_in_nvidia_smi_that_hangs_is_ended() -> None:
    result = shell.run(["sleep", "60"], 0.1)
    assert "did not answer" in gpus.trouble(result, 0.1)


def test_no_nvidia_smi_means_no_gpus(tmp_path: Path) -> None:
    found = gpus.look({"PATH": str(tmp_path)})
    assert (found["tool"], found["gpus"], found["error"]) == ("", [], "")


# ---- bounds ----------------------------------------------------------------------------------------------------------


def test_a_program_s_flood_is_kept_to_its_end() -> None:
    result = shell.run(["bash", "-c", "head -c 20000000 /dev/zero | tr '\\0' x; echo the end"], 20)
    assert len(result.out) == shell.KEPT
    assert result.out.endswith("the end\n")


def test_a_program_that_closes_its_output_is_waited_for() -> None:
    result = shell.run(["bash", "-c", "exec >&- 2>&-; sleep 0.2; exit 5"], 10)
    assert result.code == 5


def test_a_killed_program_has_the_signal_as_its_code() -> None:
    assert shell.run(["bash", "-c", "kill -9 $$"], 10).code == -9


def test_a_visit_waits_no_longer_than_asked(tmp_path: Path) -> None:
    began = time.monotonic()
    answer = environment.Visit(str(tmp_path), "sleep 60", seconds=0.2).answer()
    assert (answer["timed_out"], answer["code"]) == (True, None)
    assert time.monotonic() - began < 20


# ---- the state folder ------------------------------------------------------------------------------------------------


def test_a_state_folder_that_is_not_there_yet_is_judged_by_the_nearest_above(tmp_path: Path) -> None:
    state = look(tmp_path, parts=["system"], state=str(tmp_path / "a" / "b"))["system"]["state"]
    assert (state["writable"], state["error"]) == (True, "")
    assert not (tmp_path / "a").exists()


def test_a_state_folder_that_is_read_only_is_told_with_the_reason(tmp_path: Path) -> None:
    state = look(tmp_path, parts=["system"], state="/proc/1")["system"]["state"]
    assert state["writable"] is False
    assert state["error"]


def test_folders_among_the_arguments_are_told_but_for_those_that_the_program_writes_to(
    tmp_path: Path, script: Path
) -> None:
    for name in ("books", "out", "model"):
        (tmp_path / name).mkdir()
    args = ["--data", "./books", "--output-dir", f"{tmp_path}/out", f"--model={tmp_path}/model", "./nowhere"]
    found = look(tmp_path, program={"kind": "script", "path": "train.py", "args": args})["program"]["files"]
    assert {name for name, value in found.items() if value == "folder"} == {"./books", f"{tmp_path}/model"}


def test_what_a_dead_run_left_is_told_from_what_is_supervised(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with contextlib.ExitStack() as ended:
        for job in ("dead-1/n0", "alive-1/n0"):
            folder = state / "runs" / job
            folder.mkdir(parents=True)
            marked = {**os.environ, "RANKDECK_JOB": job, "RANKDECK_RUN_DIR": str(folder)}
            process = ended.enter_context(subprocess.Popen(["sleep", "60"], env=marked))
            ended.callback(process.kill)
        lock = ended.enter_context((folder / "lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        jobs = look(tmp_path, parts=["jobs"])["jobs"]
    assert {process["job"] for process in jobs["found"]} == {"dead-1/n0", "alive-1/n0"}
    assert jobs["living"] == ["alive-1/n0"]


# ---- what could be used instead, and what there is to train on ----------------------------------------------------


def test_an_environment_that_people_keep_beside_their_program_is_found_with_its_torch(tmp_path: Path) -> None:
    venv, conda = tmp_path / ".venv", tmp_path / "env"
    for prefix in (venv, conda):
        write_program(prefix / "bin/torchrun", "#!/bin/sh\n")
    (venv / "bin/activate").touch()
    (venv / "pyvenv.cfg").touch()
    torch = venv / "lib/python3.11/site-packages/torch"
    torch.mkdir(parents=True)
    (torch / "version.py").write_text("__version__ = '2.9.1+cu128'\n")
    found = [each for each in venvs.look(str(tmp_path), "") if each["prefix"].startswith(str(tmp_path))]
    assert found == [
        {"prefix": str(venv), "venv": True, "torch": "2.9.1+cu128"},
        {"prefix": str(conda), "venv": False, "torch": ""},
    ]
    assert venvs.look("/nowhere", str(conda / "bin/python"))[0]["prefix"] == str(conda)


def test_the_samples_in_files_of_json_lines_are_counted_but_for_those_to_test_with(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "a"}\n' * 7 + "\n")
    (tmp_path / "dev.jsonl").write_text("{}\n")
    args = ["--data=train.jsonl", "--eval", "dev.jsonl"]
    assert samples.look("script", "train.py", args, str(tmp_path)) == {"data": "train.jsonl", "samples": 7, "share": 0}
    assert samples.look("script", "train.py", ["--data", "dev.jsonl"], str(tmp_path)) == {}


def test_the_samples_of_our_own_training_program_follow_its_settings(tmp_path: Path) -> None:
    (tmp_path / "tokens.bin").write_bytes(bytes(2 * 65 * 10 + 4))
    (tmp_path / "config.json").write_text('{"data": "tokens.bin", "per_device_batch": 4, "grad_accum": 3}')
    found = samples.look("module", "engine.train", ["config.json"], str(tmp_path))
    assert found == {"data": "tokens.bin", "samples": 10, "share": 12}
    args = ["config.json", "--set", "per_device_batch={per_device_batch}", "--set", "context=4"]
    assert samples.look("module", "engine.train", args, str(tmp_path)) == {
        "data": "tokens.bin", "samples": 130, "share": 0,
    }  # fmt: skip
    assert samples.look("module", "engine.train", ["--set", "data=synthetic"], str(tmp_path)) == {}


def test_a_folder_of_data_and_pipes_is_looked_at_for_a_bounded_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(30):
        (tmp_path / f"part-{number}").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    walked: list[str] = []
    walk = os.walk

    def slow(top: str) -> Iterator[tuple[str, list[str], list[str]]]:
        for found in walk(top):
            walked.append(found[0])
            time.sleep(0.05)
            yield found

    monkeypatch.setattr(os, "walk", slow)
    monkeypatch.setattr(sources, "SECONDS", 0.2)
    assert sources.look(str(tmp_path), [], "/") == {"files": {}, "whole": False}
    assert len(walked) < 30


def test_configs_among_the_arguments_that_are_not_there_are_told_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "here.yaml").touch()
    there = ["here.yaml", "--config", "here.yaml", "--save-config", "new.json", "--data=none.json", "--cfg={run}.yaml"]
    assert sources.missing(there, str(tmp_path)) == []
    gone = ["first.yaml", "--config=a.yaml", "--deepspeed", "ds.json", "--set", "out=b.yaml"]
    assert sources.missing(gone, str(tmp_path)) == ["first.yaml", "a.yaml", "ds.json"]
