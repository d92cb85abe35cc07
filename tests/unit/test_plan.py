"""What will run on every node. The files in golden/ are written by hand, never by the tests."""

from __future__ import annotations

import json
import string
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import command, launchers
from engine.errors import RequestError
from engine.launchers.torchrun import title
from engine.plan import NodeFacts, NodePlan, job_of, make_plan
from engine.profile import Batch, Node, Profile, Program, decode, load, override

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
RUN = "lab-a100-20261124-040355-x7q2"

FACTS = {
    "lab-a100": {
        0: NodeFacts(gpus=8, addr="10.0.0.11", interface="eno1"),
        1: NodeFacts(gpus=8, addr="10.0.0.12", interface="eno2"),
    },
    "unequal-jump": {
        0: NodeFacts(gpus=8, addr="192.168.7.1", interface="bond0", free_ports=(29512, 29513)),
        1: NodeFacts(gpus=4, addr="192.168.7.2", interface="enp5s0"),
    },
    "xtuner-sft": {},
    "pool-c10d": {rank: NodeFacts(gpus=4, addr=f"10.1.0.{rank + 1}") for rank in range(16)},
    "cpu-smoke": {},
}


TWO = "nodes: [{host: a, gpus: 2}, {host: b, gpus: 1}]"


def profile(text: str = TWO, args: str = "[]", kind: str = "script") -> Profile:
    program = f"program: {{kind: {kind}, path: train.py, args: {args}, workdir: /exp}}"
    return decode(f"version: 1\nname: lab\n{text}\n{program}\n", "lab.yaml")


def scripts(asked: Profile, facts: dict[int, NodeFacts] | None = None) -> list[str]:
    return [node.script for node in make_plan(asked, "run-1", facts).nodes]


@pytest.mark.parametrize("name", sorted(FACTS))
def test_an_example_renders_to_its_golden_text(name: str) -> None:
    plan = make_plan(load(ROOT / "profiles" / f"{name}.yaml"), RUN, FACTS[name])
    shown = launchers.find("torchrun").render(msgspec.structs.replace(plan, nodes=plan.nodes[:2]), "shell")
    assert shown == (GOLDEN / f"{name}.sh").read_text()


def test_ranks_follow_each_other_where_nodes_differ_in_size() -> None:
    plan = make_plan(
        profile("nodes: [{host: a, gpus: 3}, {host: b, devices: [4, 6]}, {host: c}]"), "r", {2: NodeFacts(gpus=5)}
    )
    assert [(node.first_rank, node.nproc) for node in plan.nodes] == [(0, 3), (3, 2), (5, 5)]
    assert plan.world_size == 10


def test_a_node_without_gpus_gets_one_rank_on_its_cpu() -> None:
    assert make_plan(profile("nodes: [{host: a}]"), "r", {0: NodeFacts(gpus=0)}).nodes[0].nproc == 1


def test_gpus_that_nobody_counted_are_asked_for() -> None:
    with pytest.raises(RequestError) as caught:
        make_plan(profile("nodes: [{host: a, gpus: 1}, {host: b}]"), "r")
    assert caught.value.node == "b"
    assert "nodes[1].gpus" in caught.value.remedy


@pytest.mark.parametrize(
    ("text", "facts", "addr"),
    [
        ("nodes: [{host: a, gpus: 1}, {host: b, gpus: 1}]", NodeFacts(), "a"),
        ("nodes: [{host: a, gpus: 1}, {host: b, gpus: 1}]", NodeFacts(addr="10.0.0.1"), "10.0.0.1"),
        ("nodes: [{host: a, addr: 10.9.9.9, gpus: 1}, {host: b, gpus: 1}]", NodeFacts(addr="10.0.0.1"), "10.9.9.9"),
        (
            "nodes: [{host: a, addr: 10.9.9.9, gpus: 1}, {host: b, gpus: 1}]\nrendezvous: {master_addr: m}",
            NodeFacts(addr="10.0.0.1"),
            "m",
        ),
        ("nodes: [{host: localhost, gpus: 1}, {host: localhost, gpus: 1}]", NodeFacts(addr="10.0.0.1"), "127.0.0.1"),
        ("nodes: [{host: a, gpus: 1}]", NodeFacts(addr="10.0.0.1"), "127.0.0.1"),
    ],
)
def test_the_master_is_the_most_deliberate_address_there_is(text: str, facts: NodeFacts, addr: str) -> None:
    plan = make_plan(profile(text), "r", {0: facts})
    assert plan.master_addr == addr
    assert f"--master_addr={addr} " in plan.nodes[-1].script


def test_this_machine_as_node_0_of_others_needs_an_address_that_they_reach() -> None:
    with pytest.raises(RequestError, match="the address by which the others reach it"):
        make_plan(profile("nodes: [{host: localhost, gpus: 1}, {host: b, gpus: 1}]"), "r")


def test_an_ipv6_master_is_written_in_brackets() -> None:
    asked = profile("nodes: [{host: a, gpus: 1}, {host: b, gpus: 1}]\nrendezvous: {master_addr: 'fd00::1'}")
    assert "'--master_addr=[fd00::1]' " in scripts(asked)[0]


def test_an_automatic_port_is_one_that_was_free() -> None:
    asked = profile("nodes: [{host: a, gpus: 1}]\nrendezvous: {master_port: auto}")
    assert make_plan(asked, "r", {0: NodeFacts(free_ports=(29777, 29778))}).master_port == 29777
    with pytest.raises(RequestError, match="no free port of this node is known"):
        make_plan(asked, "r")


def test_every_node_gets_its_own_interface_unless_the_user_chose() -> None:
    facts = {0: NodeFacts(interface="eno1"), 1: NodeFacts(interface="eno2")}
    first, second = scripts(profile(), facts)
    assert "export NCCL_SOCKET_IFNAME=eno1 &&\nexport GLOO_SOCKET_IFNAME=eno1 &&" in first
    assert "export GLOO_SOCKET_IFNAME=eno2 &&" in second
    named = override(profile(), ["rendezvous.interface=ib0", "env.NCCL_SOCKET_IFNAME=^lo"])
    assert "export NCCL_SOCKET_IFNAME='^lo' &&\nexport GLOO_SOCKET_IFNAME=ib0 &&" in scripts(named, facts)[1]
    assert "SOCKET_IFNAME" not in scripts(override(profile(), ["rendezvous.interface="]), facts)[0]


def test_the_users_metric_pattern_goes_to_every_node() -> None:
    asked = msgspec.structs.replace(profile(), program=Program(path="t.py", metric_pattern=r"it=(?P<step>\d+)"))
    plan = make_plan(asked, "lab-1", {0: NodeFacts(addr="10.0.0.11"), 1: NodeFacts(addr="10.0.0.12")})
    assert [job_of(plan, rank)["metric_pattern"] for rank in range(2)] == [r"it=(?P<step>\d+)"] * 2
    assert job_of(make_plan(profile(), "lab-1"), 0)["metric_pattern"] is None


def test_ranks_on_one_machine_are_not_sent_through_an_interface() -> None:
    assert "IFNAME" not in scripts(profile("nodes: [{host: a, gpus: 2}]"), {0: NodeFacts(interface="eth0")})[0]


def test_c10d_has_no_node_rank_and_node_0_hosts_the_store() -> None:
    first, second = scripts(override(profile(), ["rendezvous.backend=c10d"]))
    assert "--rdzv_backend=c10d --rdzv_endpoint=a:29500 --rdzv_conf=is_host=1" in first
    assert "--rdzv_conf=is_host=0" in second
    assert "node_rank" not in first + second
    assert "master_" not in first + second


@pytest.mark.parametrize("flag", ["--local-addr", "--local_addr", "local_addr"])
def test_a_newer_flag_is_used_where_torchrun_has_it(flag: str) -> None:
    asked = override(profile(), ["rendezvous.backend=c10d"])
    facts = {
        0: NodeFacts(addr="10.0.0.1", torchrun_flags=frozenset({flag})),
        1: NodeFacts(addr="10.0.0.2"),
    }
    first, second = scripts(asked, facts)
    assert "--local_addr=10.0.0.1" in first
    assert "local_addr" not in second


def test_the_batch_reaches_the_program_as_text() -> None:
    asked = profile(
        "nodes: [{host: a, gpus: 2}, {host: b, gpus: 1}]\n"
        "batch: {per_device: 4, grad_accum: 2, base_lr: 2e-4, base_batch: 16}\n"
        "env: {TOTAL: '{global_batch}'}",
        args="['{per_device_batch}', '{grad_accum}', '{lr}', '{world_size}', '{nnodes}', '{run}', '{{x}}']",
    )
    plan = make_plan(asked, "run-1")
    assert plan.global_batch == 24
    assert plan.lr == 0.0003
    assert plan.nodes[0].script.endswith("  train.py 4 2 0.0003 3 2 run-1 '{x}'\n")
    assert "export TOTAL=24 &&" in plan.nodes[1].script


def test_a_placeholder_without_a_value_is_a_request_error() -> None:
    asked = Profile(version=1, name="x", nodes=(Node(host="a", gpus=1),), program=Program(path="t", args=("{lr}",)))
    with pytest.raises(RequestError, match=r"\{lr\} in '\{lr\}' has no value"):
        make_plan(asked, "r")


def test_without_a_batch_there_is_no_batch_and_no_rate() -> None:
    plan = make_plan(profile(), "r")
    assert (plan.global_batch, plan.lr) == (None, None)


@pytest.mark.parametrize(
    ("kind", "end"),
    [("script", "  train.py\n"), ("module", "  -m train.py\n"), ("command", "  --no_python train.py\n")],
)
def test_the_kind_of_program_decides_how_torchrun_starts_it(kind: str, end: str) -> None:
    assert scripts(profile(kind=kind))[0].endswith(end)


def test_omp_num_threads_is_left_to_torchrun_or_the_user() -> None:
    assert "OMP_NUM_THREADS" not in scripts(profile())[0]
    assert "export OMP_NUM_THREADS=4 &&" in scripts(override(profile(), ["env.OMP_NUM_THREADS=4"]))[0]


def test_a_variable_of_ours_yields_to_the_users() -> None:
    text = scripts(override(profile(), ["env.PYTHONUNBUFFERED="]))[0]
    assert "export PYTHONUNBUFFERED='' &&" in text
    assert "PYTHONUNBUFFERED=1" not in text


def test_a_node_may_have_its_own_folder_and_activation() -> None:
    text = "nodes: [{host: a, gpus: 1, workdir: ~/mine, activate: source x}, {host: b, gpus: 1}]"
    first, second = scripts(profile(text))
    assert first.startswith("cd ~/mine &&\nsource x &&\n")
    assert second.startswith("cd /exp &&\nexport ")


def test_json_is_one_object_on_one_line() -> None:
    plan = make_plan(profile(), "run-1")
    text = launchers.find("torchrun").render(plan, "json")
    assert text.count("\n") == 1
    found = json.loads(text)
    assert found["nodes"][1]["script"] == plan.nodes[1].script
    assert (found["run"], found["world_size"], found["nodes"][1]["first_rank"]) == ("run-1", 3, 2)


def test_an_unknown_format_or_launcher_names_the_known_ones() -> None:
    with pytest.raises(RequestError, match="shell, json"):
        launchers.find("torchrun").render(make_plan(profile(), "r"), "sbatch")
    with pytest.raises(RequestError, match="launches with torchrun or slurm"):
        launchers.find("mpirun")


def test_a_profile_without_nodes_is_a_request_error() -> None:
    with pytest.raises(RequestError, match="no nodes"):
        make_plan(Profile(version=1, name="x", program=Program(path="t")), "r")


# What bash makes of it. The stand-ins for torchrun and xtuner print their process, arguments and environment as JSON.

FAKE = """#!{python}
import json, os, sys
shown = {{"argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(), "pid": os.getpid(), "ppid": os.getppid()}}
print(json.dumps(shown))
"""


class Shell:
    """A folder with stand-ins on PATH, to run scripts in with real bash."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "bin").mkdir()
        for name in ("torchrun", "xtuner"):
            fake = home / "bin" / name
            fake.write_text(FAKE.format(python=sys.executable))
            fake.chmod(0o755)

    def run(self, argv: list[str], stdin: str = "", **env: str) -> dict[str, object]:
        done = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": f"{self.home}/bin:/usr/bin:/bin", "HOME": str(self.home), "LC_ALL": "C.UTF-8", **env},
            cwd=self.home,
        )
        out, err = done.communicate(stdin, timeout=60)
        assert err == ""
        assert done.returncode == 0
        found = json.loads(out)
        assert isinstance(found, dict)
        return {**found, "shell": done.pid}


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


HOSTILE = [
    "$(touch x)",
    "`touch x`",
    "'; touch x; '",
    '"quoted"',
    "a b",
    "",
    "*",
    "!!",
    "\\",
    "#c",
    "-n",
    "~other",
    "a=~/b",
    "日本語 🚀",
    "${HOME}",
    "&& touch x",
    "tab\there",
    "a\t'!!\\t\n\"",
]


def asked_of(shell: Shell, args: list[str], env: dict[str, str], kind: str = "script", **program: str) -> Profile:
    def double(text: str) -> str:
        return text.replace("{", "{{").replace("}", "}}")

    return Profile(
        version=1,
        name="x",
        nodes=(Node(host="localhost", gpus=1),),
        program=Program(
            kind=kind,  # type: ignore[arg-type]
            path="train.py",
            args=tuple(map(double, args)),
            workdir=str(shell.home),
            **program,
        ),
        env={name: double(value) for name, value in env.items()},
    )


def test_hostile_words_arrive_as_they_are(shell: Shell) -> None:
    env = {f"V{i}": value for i, value in enumerate([*HOSTILE, "two\nlines"])}
    script = scripts(asked_of(shell, HOSTILE, env))[0]
    found = shell.run(["bash", "-c", script])
    argv, environ = found["argv"], found["env"]
    assert isinstance(argv, list)
    assert isinstance(environ, dict)
    assert argv[argv.index("train.py") + 1 :] == HOSTILE
    assert {name: environ[name] for name in env} == env
    assert not (shell.home / "x").exists()


def test_torchrun_takes_the_place_of_the_shell(shell: Shell) -> None:
    found = shell.run(["bash", "-c", scripts(asked_of(shell, [], {}))[0]])
    assert found["pid"] == found["shell"]


def test_what_is_pasted_runs_the_same(shell: Shell) -> None:
    plan = make_plan(asked_of(shell, HOSTILE, {"A": "RANKDECK\nRANKDECK_"}), "run-1")
    launched = shell.run(["bash", "-c", plan.nodes[0].script])
    shown = launchers.find("torchrun").render(plan, "shell")
    pasted = shell.run(["bash"], stdin=shown)
    assert pasted["argv"] == launched["argv"]
    assert pasted["cwd"] == launched["cwd"] == str(shell.home)


def test_a_leading_tilde_is_the_home_folder_on_the_node(shell: Shell) -> None:
    (shell.home / "my exp").mkdir()
    asked = asked_of(shell, ["~/data set", "~"], {"CACHE": "~/it's"})
    asked = override(asked, ["program.path=~/t.py", "program.workdir=~/my exp"])
    found = shell.run(["bash", "-c", scripts(asked)[0]])
    argv, environ = found["argv"], found["env"]
    assert isinstance(argv, list)
    assert isinstance(environ, dict)
    assert argv[-3:] == [f"{shell.home}/t.py", f"{shell.home}/data set", str(shell.home)]
    assert environ["CACHE"] == f"{shell.home}/it's"
    assert found["cwd"] == f"{shell.home}/my exp"


def test_logs_go_to_the_run_folder_or_below_the_working_folder(shell: Shell) -> None:
    script = scripts(asked_of(shell, [], {}))[0]
    assert "--log_dir=/r un/ranks" in str(shell.run(["bash", "-c", script], RANKDECK_RUN_DIR="/r un")["argv"])
    assert "--log_dir=./ranks" in str(shell.run(["bash", "-c", script])["argv"])


@pytest.mark.parametrize(
    "activate",
    [
        "export A=1",
        "export A=1 # why",
        "false; export A=1",
        "false || export A=1",
        "export B=2\nexport A=1\n",
        ". ./on",
    ],
)
def test_an_activation_is_the_users_own_shell_text(shell: Shell, activate: str) -> None:
    (shell.home / "on").write_text("export A=1\n")
    environ = shell.run(["bash", "-c", scripts(asked_of(shell, [], {}, activate=activate))[0]])["env"]
    assert isinstance(environ, dict)
    assert environ["A"] == "1"


@pytest.mark.parametrize("activate", ["false", "source ./none", "true\nfalse", "cd /none || false"])
def test_a_step_that_fails_ends_the_script(shell: Shell, activate: str) -> None:
    script = scripts(asked_of(shell, [], {}, activate=activate))[0]
    with pytest.raises(AssertionError):
        shell.run(["bash", "-c", script])


def test_a_folder_that_is_missing_is_not_forgiven_by_the_activation(shell: Shell) -> None:
    asked = override(asked_of(shell, [], {}, activate="source x || true"), ["program.workdir=/none"])
    done = subprocess.run(["bash", "-c", scripts(asked)[0]], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "/none" in done.stderr


def xtuner_of(shell: Shell, args: list[str], ranks: int) -> Profile:
    return msgspec.structs.replace(
        asked_of(shell, args, {}, kind="xtuner"), nodes=(Node(host="localhost", gpus=ranks),)
    )


def test_xtuner_gets_its_own_variables_and_torchrun_its_defaults(shell: Shell) -> None:
    found = shell.run(["bash", "-c", scripts(xtuner_of(shell, ["--seed", "1"], 2))[0]], RANKDECK_RUN_DIR="/run")
    environ = found["env"]
    assert isinstance(environ, dict)
    assert found["argv"] == ["train", "train.py", "--seed", "1"]
    own = {"NNODES": "1", "NODE_RANK": "0", "NPROC_PER_NODE": "2", "ADDR": "127.0.0.1", "PORT": "29500"}
    pet = {"PET_REDIRECTS": "3", "PET_LOG_DIR": "/run/ranks", "PET_RDZV_ID": "run-1", "PET_MAX_RESTARTS": "0"}
    assert {**own, **pet}.items() <= environ.items()


def test_one_rank_of_xtuner_is_put_below_torchrun_which_keeps_its_output_and_end(shell: Shell) -> None:
    found = shell.run(["bash", "-c", scripts(xtuner_of(shell, ["--seed", "1"], 1))[0]])
    argv, environ = found["argv"], found["env"]
    assert isinstance(argv, list)
    assert isinstance(environ, dict)
    assert argv[argv.index("--no_python") + 1 :] == ["xtuner", "train", "train.py", "--seed", "1"]
    assert "NPROC_PER_NODE" not in environ


def test_xtuner_gets_the_batch_as_options_of_its_config_and_the_profiles_own_come_last(shell: Shell) -> None:
    """XTuner adds every --cfg-options to those before, and what is named twice is what was said last."""
    batch = Batch(per_device=2, grad_accum=4, base_lr=1e-4, base_batch=8, lr_scaling="none")
    for own in ([], ["--cfg-options", "a=1", "--seed", "1"], ["--cfg-options=a=1"]):
        asked = msgspec.structs.replace(xtuner_of(shell, own, 2), batch=batch)
        argv = shell.run(["bash", "-c", scripts(asked)[0]])["argv"]
        assert argv == ["train", "train.py", "--cfg-options", *XTUNER_BATCH, *own]


XTUNER_BATCH = [
    "train_dataloader.batch_size=2",
    "optim_wrapper.accumulative_counts=4",
    "optim_wrapper.optimizer.lr=0.0001",
]


ANY_CHARACTER = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
NASTY = st.text(st.sampled_from(string.punctuation + " \t\nab~é🚀") | ANY_CHARACTER, max_size=20)


@settings(max_examples=30, deadline=None)
@given(st.lists(NASTY, min_size=1, max_size=12))
def test_any_word_without_nul_survives_bash(words: list[str]) -> None:
    literal = [word for word in words if word != "~" and not word.startswith("~/")]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        text = f"exec {sys.executable} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' {command.words(*literal)}"
        done = subprocess.run(
            ["bash", "-c", text], capture_output=True, cwd=home, check=True, env={"LC_ALL": "C.UTF-8"}
        )
        assert json.loads(done.stdout) == literal
        assert list(home.iterdir()) == []


def test_a_nul_in_a_word_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        command.quote("a\0b")


@given(st.lists(st.integers(1, 16), min_size=1, max_size=40))
def test_the_ranks_of_all_nodes_are_zero_to_world_size(sizes: list[int]) -> None:
    nodes = tuple(Node(host=f"n{i}", gpus=size) for i, size in enumerate(sizes))
    asked = Profile(
        version=1,
        name="x",
        nodes=nodes,
        program=Program(path="t.py"),
        batch=Batch(per_device=3),
    )
    plan = make_plan(asked, "r")
    ranks = [rank for node in plan.nodes for rank in range(node.first_rank, node.first_rank + node.nproc)]
    assert ranks == list(range(plan.world_size))
    assert plan.global_batch == 3 * sum(sizes)


def test_a_title_says_who_runs_what() -> None:
    node = NodePlan(node_rank=1, host="gpu02", user="ml", port=2222, nproc=4, first_rank=8, script="")
    assert title(node) == "node 1: ml@gpu02 port 2222 (4 ranks: 8-11)"
