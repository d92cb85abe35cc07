"""Profiles: read with every mistake named, changed from the command line, saved with the user's comments."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ProfileError, RequestError
from engine.profile import (
    Batch,
    Node,
    Profile,
    Program,
    Rendezvous,
    Slurm,
    decode,
    difference,
    fingerprint,
    judge,
    load,
    looks_secret,
    override,
    save,
    to_yaml,
)

EXAMPLES = sorted((Path(__file__).parents[2] / "profiles").glob("*.yaml"))

SMALL = """\
version: 1
name: lab
nodes:
  - host: gpu01
program:
  path: train.py
"""

COMMENTED = """\
# The lab's machines.
version: 1
name: lab
rendezvous: {backend: static, master_port: 29600}  # a port that the firewall lets through
nodes:                            # the order is the node rank
  - host: gpu01                   # next to the window
    gpus: 8
  - host: big[1-3]                # three alike
    gpus: 4
program:
  path: train.py
  args: ["--epochs", '3']
env:
  NCCL_DEBUG: WARN                # INFO when it hangs
"""


def mistakes(text: str | bytes) -> list[str]:
    with pytest.raises(ProfileError) as caught:
        decode(text, "lab.yaml")
    assert caught.value.exit_code == 2
    return caught.value.mistakes


def small(**changes: str) -> str:
    """The small profile with lines changed or added at its end."""
    return SMALL + "".join(f"{key}: {value}\n" for key, value in changes.items())


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_decodes_and_survives_a_round_trip(path: Path) -> None:
    profile = load(path)
    assert profile.name == path.stem
    assert decode(to_yaml(profile), "again") == profile


def test_what_is_not_written_has_its_default() -> None:
    profile = decode(SMALL, "lab.yaml")
    assert profile == Profile(version=1, name="lab", nodes=(Node(host="gpu01"),), program=Program(path="train.py"))
    assert profile.rendezvous == Rendezvous(backend="static", master_port=29500, interface="auto")


def test_a_host_range_becomes_one_node_each() -> None:
    text = SMALL.replace("host: gpu01", "host: gpu[08-10]\n    gpus: 4")
    assert decode(text, "lab.yaml").nodes == tuple(Node(host=f"gpu{n}", gpus=4) for n in ("08", "09", "10"))


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        (" gpu[01-02]", [Node(host="gpu01"), Node(host="gpu02")]),
        (" [gpu01, ml@gpu02]", [Node(host="gpu01"), Node(host="gpu02", user="ml")]),
        (
            " |\n  gpu01 slots=8  # DeepSpeed\n  gpu02:4\n  gpu03 port=2222\n",
            [Node(host="gpu01", gpus=8), Node(host="gpu02", gpus=4), Node(host="gpu03", port=2222)],
        ),
        ("\n  - host: n[1-2],login\n    gpus: 2\n", [Node(host=name, gpus=2) for name in ("n1", "n2", "login")]),
    ],
)
def test_a_host_list_is_taken_as_it_was_pasted(nodes: str, found: list[Node]) -> None:
    assert list(decode(SMALL.replace("\n  - host: gpu01\n", f"{nodes}\n"), "lab.yaml").nodes) == found


def test_values_of_env_and_args_are_the_text_that_was_written() -> None:
    text = small(env="{A: 1, B: 007, C: true, D: 1.50, E: null, F: '', G: 0x10}") + "secrets: []\n"
    text = text.replace("path: train.py", "path: train.py\n  args: [--n, 010, yes, ~, 1e3]")
    profile = decode(text, "lab.yaml")
    assert profile.env == {"A": "1", "B": "007", "C": "true", "D": "1.50", "E": "null", "F": "", "G": "0x10"}
    assert profile.program.args == ("--n", "010", "yes", "~", "1e3")


def test_an_empty_section_is_as_good_as_none() -> None:
    text = SMALL + "env:\nsecrets:\nbatch:\nslurm: ~\nrendezvous:\n"
    assert decode(text, "lab.yaml") == decode(SMALL, "lab.yaml")


def test_an_alias_stands_for_what_it_names() -> None:
    text = SMALL.replace("path: train.py", "path: train.py\n  args: &a [--x, y]").replace("name: lab", "name: lab")
    assert decode(text + "secrets: []\nslurm: {extra: []}\n", "lab.yaml").program.args == ("--x", "y")
    nodes = "nodes:\n  - {host: a, activate: &act source x}\n  - {host: b, activate: *act}\n"
    profile = decode(SMALL.replace("nodes:\n  - host: gpu01\n", nodes), "lab.yaml")
    assert [node.activate for node in profile.nodes] == ["source x", "source x"]


def test_all_mistakes_of_a_file_are_reported_at_once_with_their_lines() -> None:
    text = """\
version: 2
nmae: lab
nodes:
  - host: gpu`01
    gpus: eight
    prot: 22
  - {host: -x, port: 99999, devices: [1, 1]}
program:
  path: $HOME/train.py
  args: ["{lrr}", {a: b}]
env: {RANK: 1, 1A: x}
batch: {per_device: 0}
"""
    assert mistakes(text) == [
        "lab.yaml:1: version: found '2'; allowed: 1",
        "lab.yaml:1: name: missing; it takes text",
        "lab.yaml:2: nmae: unknown key; did you mean name? allowed: version, name, launcher, nodes, rendezvous, "
        "program, env, secrets, batch, slurm, state_dir",
        "lab.yaml:4: nodes[0].host: found 'gpu`01': it contains '`'",
        "lab.yaml:5: nodes[0].gpus: found 'eight'; allowed: a whole number, without quotes, or auto",
        "lab.yaml:6: nodes[0].prot: unknown key; did you mean port? allowed: host, addr, user, port, gpus, devices, "
        "workdir, activate",
        "lab.yaml:7: nodes[1].host: found '-x': it starts with '-', which ssh would read as an option",
        "lab.yaml:7: nodes[1].port: found 99999; allowed: 1 to 65535",
        "lab.yaml:7: nodes[1].devices: found [1, 1]: a GPU is named twice",
        "lab.yaml:9: program.path: found '$HOME/train.py': variables are not expanded here; write the path out, or "
        "start it with ~/",
        "lab.yaml:10: program.args[1]: found a mapping; allowed: text",
        "lab.yaml:10: program.args[0]: unknown placeholder '{lrr}'; did you mean {lr}? (literal braces are written "
        "'{{' and '}}')",
        "lab.yaml:11: env.RANK: reserved: torchrun sets it for every rank",
        "lab.yaml:11: env.1A: not a variable name; allowed: letters, digits and _, not starting with a digit",
        "lab.yaml:12: batch.per_device: found 0; allowed: a whole number from 1",
    ]


def test_yaml_that_no_profile_needs_hides_no_other_mistake() -> None:
    text = SMALL + "nmae: x\nenv: !!python/x {A: b}\n? [a]\n: b\n<<: {c: d}\n"
    found = mistakes(text)
    for place, said in [(7, "nmae: unknown key"), (8, "the tag"), (9, "a key is a name"), (11, "the merge key '<<'")]:
        assert any(mistake.startswith(f"lab.yaml:{place}: {said}") for mistake in found), found
    assert len(found) == 4


def test_what_is_not_there_is_reported_where_it_should_be() -> None:
    text = "version: 1\nname: lab\nnodes:\n  - host:\n\n\nprogram:\n  path:\n\n# the end\n"
    assert [mistake.partition(": ")[0] for mistake in mistakes(text)] == ["lab.yaml:4", "lab.yaml:8"]
    assert mistakes("version: 1\nname lab\nnodes: []\n")[0].startswith("lab.yaml:2: this is not YAML")
    assert mistakes("version: 1\nname: 'lab\nnodes: []\n")[0].startswith("lab.yaml:2: this is not YAML")


@pytest.mark.parametrize("text", ["\u00a0\u00a0path: x\n", '"\\e[2J": x\n', "n\u202eame: x\n", 'env: {"\\e]0;x": y}\n'])
def test_a_key_that_a_terminal_would_obey_or_nobody_sees_is_shown_in_ascii(text: str) -> None:
    found = mistakes(SMALL + text)
    assert all(mistake.isprintable() for mistake in found)
    assert any("\\x" in mistake or "\\u" in mistake for mistake in found)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the file is empty"),
        ("version: 1\nname:\u00a0x\nnodes: []\n", "lab.yaml:2: this is not YAML: while scanning a simple key"),
        ("version: 1\nname:\u00a0x\nnodes: []\n", "the line contains '\\xa0', which only looks like a space"),
        ("# nothing\n", "the file is empty"),
        ("- a\n", "found a list; allowed: a mapping"),
        ("just text\n", "allowed: a mapping"),
        ("version: 1\n\tname: x\n", "indents with spaces, not tabs"),
        ("a: [1, 2\n", "this is not YAML"),
        ("a: b: c\n", "put in quotes"),
        ("a: {host: gpu[1-2]}\n", 'put in quotes: "gpu[01-08]"'),
        ("a: 1\n---\nb: 2\n", "one document"),
        ("a: *nope\n", "undefined alias"),
        ("a: &x [*x]\n", "an alias that contains itself"),
        ("a: !!python/object/apply:os.system [id]\n", "the tag 'tag:yaml.org,2002:python/object/apply:os.system'"),
        ("a: !mine x\n", "the tag '!mine' is not read"),
        ("a: !!int x\n", "the tag 'tag:yaml.org,2002:int' is not read"),
        ("? [a]\n: b\n", "a key is a name"),
        ("<<: {a: b}\n", "the merge key '<<' is not read"),
        ("a: x\0y\n", "lab.yaml:1: the control character '\\x00'"),
        ("\n\na: \x1b[31m\n", "lab.yaml:3: the control character '\\x1b'"),
        ("[" * 5_000, "nested too deeply"),
        ("%YAML 3.0\n---\na: 1\n", "this is not YAML"),
        (b"\x7fELF\x02\x01\x01\x00", "lab.yaml:1: the control character"),
        (b"a: 1\nb: \xff\xfe\n", "lab.yaml:2: this is not UTF-8 text (byte 0xff at offset 8)"),
        (b"\xff\xfea\x00:\x00", "not UTF-8"),
        (b"# " + b"x" * (1 << 20), "a profile has at most 262,144"),
        ('a: "\\ud800"\n', ""),
    ],
)
def test_a_file_that_is_no_profile_is_refused_in_words(text: str | bytes, said: str) -> None:
    found = "\n".join(mistakes(text))
    assert said in found
    assert "Traceback" not in found


def test_a_bomb_of_aliases_costs_nothing() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    start = time.perf_counter()
    assert "a0: unknown key" in "\n".join(mistakes("\n".join(lines)))
    mistakes("\n".join(lines) + "\nprogram: {path: x, args: *a11}\n")
    assert time.perf_counter() - start < 5


def test_a_file_of_mistakes_is_reported_up_to_a_bound() -> None:
    found = mistakes("nodes:\n" + "- {}\n" * 2_000)
    assert len(found) == 501
    assert found[-1] == "and 1,503 more"


def test_a_key_written_twice_is_a_mistake_with_both_places() -> None:
    assert mistakes(SMALL + "name: other\n") == ["lab.yaml:7: name: written twice (first at lab.yaml:2); keep one"]


def test_windows_line_ends_and_a_byte_order_mark_are_read() -> None:
    assert decode(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode(), "x") == decode(SMALL, "x")


def test_what_cannot_be_read_is_a_profile_error(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    loop = tmp_path / "loop.yaml"
    loop.symlink_to(loop)
    for path, said in [
        (tmp_path, "this is a folder"),
        (tmp_path / "none.yaml", "No such file"),
        (pipe, "not a plain file"),
        (loop, "cannot be read"),
        (Path("a\0b"), "cannot be read"),
        (Path("x" * 5000), "File name too long"),
    ]:
        with pytest.raises(ProfileError, match=said):
            load(path)


NODE = "nodes:\n  - host: gpu01\n"


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ("[]", "nodes: no nodes; torchrun needs at least one"),
        ("4", "allowed: a list of nodes, such as `- host: gpu01`"),
        ("[a, 4]", "nodes[1]: found '4'; allowed: a mapping with the keys host"),
        ("gpu01 slots=x", "lab.yaml:3: nodes: host list, line 1, column 7: 'x' is not a slot count"),
        ("[{host: ~}]", "it is empty"),
        ("[{host: “gpu01”}]", "it contains '“'"),
        ("[{host: '10.0.0.[1-300]'}]", "'10.0.0.300' is no host name: it is no IPv4 address"),
        ("[{host: a}, {host: a}]", "nodes[1].host: a is already nodes[0]"),
        ('[{host: "a[1-2]"}, {host: a2}]', "nodes[1].host: a2 is already nodes[0]"),
        ('[{host: "a[1-"}]', "nodes[0].host: "),
        ('[{host: "a[1-999999999]"}]', "at most 16,384"),
        ('[{host: "a[1-2]", addr: 10.0.0.1}]', "nodes[0].addr: one address for 2 hosts"),
        ("[{host: ml@a}]", "the user goes under `user`"),
        ("[{host: 'a:22'}]", "the port goes under `port`"),
        ("[{host: a b}]", "it contains ' '"),
        ("[{host: ''}]", "it is empty"),
        ("[{host: a, user: -l}]", "nodes[0].user: found '-l'"),
        ("[{host: a, user: 'x;y'}]", "it contains ';'"),
        ("[{host: a, port: 0}]", "nodes[0].port: found 0; allowed: 1 to 65535"),
        ("[{host: a, port: '22'}]", "found the quoted text '22'; allowed: a whole number, without quotes"),
        ("[{host: a, gpus: 0}]", "nodes[0].gpus: found 0; allowed: 1 to 1024, or auto"),
        ("[{host: a, gpus: 8.0}]", "found '8.0'; allowed: a whole number, without quotes, or auto"),
        ("[{host: a, gpus: 8, devices: [0, 1]}]", "gpus is 8, devices picks 2 devices"),
        ("[{host: a, devices: [-1]}]", "allowed: GPU indices from 0"),
        ("[{host: a, workdir: exp}]", "nodes[0].workdir: found 'exp': it is relative"),
        ("[{host: a, workdir: ~you/exp}]", "only ~/ is expanded"),
        ("[{gpus: 8}]", "nodes[0].host: missing; it takes text"),
    ],
)
def test_a_wrong_node_is_named(nodes: str, said: str) -> None:
    assert said in "\n".join(mistakes(SMALL.replace("nodes:\n  - host: gpu01\n", f"nodes: {nodes}\n")))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("rendezvous", "{master_port: 70000}", "rendezvous.master_port: found 70000; allowed: 1 to 65535, or auto"),
        ("rendezvous", "{master_port: any}", "allowed: a whole number, without quotes, or auto"),
        ("rendezvous", "{backend: etcd}", "rendezvous.backend: found 'etcd'; allowed: c10d, static"),
        ("rendezvous", "{backend: statc}", "did you mean static?"),
        ("rendezvous", "{interface: 'eth0; id'}", "allowed: auto, or a device such as eth0"),
        ("rendezvous", "{max_restarts: -1}", "allowed: 0 to 1000"),
        ("rendezvous", "{master_addr: 'a b'}", "rendezvous.master_addr: found 'a b'"),
        ("launcher", "slurm", "slurm: missing"),
        ("launcher", "mpirun", "allowed: slurm, torchrun"),
        ("slurm", "{login: '-x@y'}", "slurm.login"),
        ("slurm", "{nodes: 0}", "slurm.nodes: found 0"),
        ("slurm", "{extra: [comment]}", "slurm.extra[0]"),
        ("slurm", "{exclusive: yes}", "found 'yes'; allowed: true or false"),
        ("state_dir", "runs", "state_dir: found 'runs': it is relative"),
        ("env", "{MASTER_ADDR: x}", "env.MASTER_ADDR: reserved: set rendezvous.master_addr instead"),
        ("env", "{RANKDECK_JOB: x}", "Rankdeck's own"),
        ("env", "{PET_LOG_DIR: x}", "env.PET_LOG_DIR: reserved"),
        ("env", "{HF_TOKEN: abc}", "put the name under secrets:"),
        ("env", "{FINE: hf_abcdefghijklmnopqrstuvwx}", "looks like a secret"),
        ("env", '{A: "a\\0b"}', "text without '\\x00'"),
        ("env", '{A: "\\x1b[0m"}', "the value contains '\\x1b'"),
        ("env", "[A=1]", "env: found a list; allowed: a mapping of names to values"),
        ("env", "{A: {B: 1}}", "env.A: found a mapping; allowed: text"),
        ("env", "{A: 1, A: 2}", "env.A: written twice"),
        ("secrets", "[not-a-name]", "allowed: the name of a variable"),
        ("secrets", "[A, A]", "A is named twice"),
        ("secrets", "[RANK]", "RANK is reserved"),
        ("secrets", "[hf_abcdefghijklmnopqrstuvwx]", "looks like the secret itself"),
        ("secrets", "HF_TOKEN", "secrets: found 'HF_TOKEN'; allowed: a list"),
        ("batch", "{per_device: 4, base_lr: 1e-4}", "batch.base_batch: missing"),
        ("batch", "{per_device: 4, base_lr: -1, base_batch: 4}", "batch.base_lr: found -1; allowed: a positive"),
        ("batch", "{per_device: 4, base_lr: .nan, base_batch: 4}", "allowed: a number such as 2.0e-4"),
        ("batch", "{grad_accum: 2}", "batch.per_device: missing"),
        ("batch", "{per_device: 99999999999999999999}", "allowed: a whole number"),
    ],
)
def test_a_wrong_section_is_named(key: str, value: str, said: str) -> None:
    assert said in "\n".join(mistakes(small(**{key: value})))


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("{}", "program.path: missing"),
        ("{path: ''}", "program.path: found nothing"),
        ("{path: -m}", "reads as an option"),
        ("{path: my-pkg.train, kind: module}", "allowed: a Python module"),
        ("{path: t.py, args: --batch 4}", 'allowed: a list of texts, such as ["--batch", "4"]'),
        ('{path: t.py, args: ["a\\nb"]}', "it contains '\\n'"),
        ("{path: t.py, args: ['{}']}", "unknown placeholder '{}'"),
        ("{path: t.py, args: ['{']}", "a literal brace is written '{{'"),
        ("{path: t.py, args: ['{lr}']}", "batch: missing; {lr} needs"),
        ("{path: t.py, args: [--key, sk-abcdefghijklmnopqrstuvwxyz]}", "looks like a secret"),
        ("{path: t.py, workdir: $HOME/exp}", "variables are not expanded"),
        ('{path: "a\\tb"}', "it contains '\\t'"),
    ],
)
def test_a_wrong_program_is_named(program: str, said: str) -> None:
    text = SMALL.replace("program:\n  path: train.py\n", f"program: {program}\n")
    assert said in "\n".join(mistakes(text))


@pytest.mark.parametrize("name", ["Lab A100", "-x", "a/b", "x" * 41, "''"])
def test_a_name_that_makes_no_folder_is_refused(name: str) -> None:
    assert "allowed: 1 to 40 of a-z" in "\n".join(mistakes(SMALL.replace("name: lab", f"name: {name}")))


def test_a_secret_is_never_repeated_in_a_message() -> None:
    secret = "hf_abcdefghijklmnopqrstuvwx"
    text = small(env=f"{{HF_TOKEN: {secret}}}", secrets=f"[{secret}, '{secret}!']")
    text = text.replace("path: train.py", f"path: train.py\n  args: [--token={secret}]")
    assert secret not in "\n".join(mistakes(text))


def test_localhost_may_be_two_nodes() -> None:
    text = SMALL.replace("host: gpu01", "host: localhost\n  - host: localhost")
    assert len(decode(text, "x").nodes) == 2


def test_one_host_on_two_ports_is_two_nodes() -> None:
    text = SMALL.replace("host: gpu01", "{host: a, port: 2201}\n  - {host: a, port: 2202}")
    assert len(decode(text, "x").nodes) == 2


def test_devices_with_cuda_visible_devices_in_env_conflict() -> None:
    text = small(env="{CUDA_VISIBLE_DEVICES: 0}").replace("host: gpu01", "{host: a, devices: [0]}")
    assert "env.CUDA_VISIBLE_DEVICES: reserved: devices on a node sets it" in "\n".join(mistakes(text))


@pytest.mark.parametrize("name", ["HF_TOKEN", "WANDB_API_KEY", "DB_PASSWORD", "MY_SECRET", "AWS_SECRET_ACCESS_KEY"])
def test_a_name_that_usually_holds_a_secret_is_known(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize("name", ["TOKENIZERS_PARALLELISM", "MAX_TOKENS", "HF_TOKEN_PATH", "NCCL_DEBUG", "KEY"])
def test_a_harmless_name_is_not_taken_for_a_secret(name: str) -> None:
    assert not looks_secret(name)


def lab() -> Profile:
    return decode(COMMENTED, "lab.yaml")


def test_settings_change_one_thing_each() -> None:
    changed = override(
        lab(),
        [
            "batch.per_device=8",
            "rendezvous.master_port=auto",
            "nodes[1].gpus=2",
            "nodes[0].devices=[0, 1]",
            "nodes[0].gpus=auto",
            "env.NCCL_DEBUG=[literal]",
            "env.EMPTY=",
            "env.PAIR=a=b",
            "program.args=[--lr, 010]",
            "program.args[0]=[x]",
        ],
    )
    assert changed.batch == Batch(per_device=8)
    assert changed.rendezvous.master_port == "auto"
    assert changed.nodes[0] == Node(host="gpu01", devices=(0, 1))
    assert [node.gpus for node in changed.nodes] == ["auto", 2, 4, 4]
    assert changed.env == {"NCCL_DEBUG": "[literal]", "EMPTY": "", "PAIR": "a=b"}
    assert changed.program.args == ("[x]", "010")


def test_every_wrong_setting_is_named_by_its_flag() -> None:
    settings = ["batch.per_devic=8", "nodes[9].gpus=3", "nonsense", "rendezvous.master_port=x", "name.x=1", "[0]=1"]
    settings += ["program.args=[a", "env.RANK=1", ".=1", "a..b=1", "=1"]
    with pytest.raises(ProfileError) as caught:
        override(lab(), settings)
    for setting in settings:
        assert any(mistake.startswith(f"--set {setting}: ") for mistake in caught.value.mistakes), setting


def test_a_setting_that_breaks_something_else_names_it_and_the_flags() -> None:
    with pytest.raises(ProfileError, match=r"gpus is 8, devices picks 1 device;"):
        override(lab(), ["nodes[0].devices=[0]"])


def test_no_settings_change_nothing() -> None:
    assert override(lab(), []) == lab()
    assert override(lab(), ["name=lab"]) == lab()


def test_saving_an_unchanged_profile_leaves_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(COMMENTED)
    save(path, lab())
    assert path.read_text() == COMMENTED
    assert difference(path, lab()) == ""


def test_saving_changes_its_lines_alone(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(COMMENTED)
    settings = ["nodes[0].gpus=4", "env.NCCL_DEBUG=INFO", "rendezvous.master_port=29601"]
    settings += [f"nodes[{i}].gpus=2" for i in (1, 2, 3)]
    changed = override(lab(), settings)
    lines = difference(path, changed).splitlines()[2:]
    assert [line for line in lines if line.startswith("-")] == [
        "-rendezvous: {backend: static, master_port: 29600}  # a port that the firewall lets through",
        "-    gpus: 8",
        "-    gpus: 4",
        "-  NCCL_DEBUG: WARN                # INFO when it hangs",
    ]
    save(path, changed)
    text = path.read_text()
    assert "master_port: 29601}  # a port that the firewall lets through" in text
    assert "NCCL_DEBUG: INFO                # INFO when it hangs" in text
    assert "host: big[1-3]                # three alike" in text
    assert load(path) == changed


LAID_OUT = """\
\ufeff# head

version: 1          # v
name:   lab

nodes:
# first
- host: gpu01       # window
  gpus: 8


- {host: "big[1-3]", gpus: 4}
program:

    path: 'train.py'
    args: [ "--epochs", '3',   # as in the paper
            --lr, "{lr}" ]
    activate: |
        source x
env: {A: 1, 'B': "2"}   # flow
batch:
    per_device:   4
    base_lr: 2.0e-4  # tuned
    base_batch: 0016
# tail
"""


@pytest.mark.parametrize(
    ("setting", "less", "more"),
    [
        ("batch.per_device=8", ["    per_device:   4"], ["    per_device: 8"]),
        ("nodes[0].port=22", [], ["  port: 22"]),
        ("name=other", ["name:   lab"], ["name: other"]),
        ("program.workdir=/x", [], ["    workdir: /x"]),
        ("rendezvous.master_port=29700", [], ["rendezvous:", "    master_port: 29700"]),
        ("env.C=x", ["env: {A: 1, 'B': \"2\"}   # flow"], ["env: {A: 1, 'B': \"2\", C: x} # flow"]),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_saving_leaves_every_other_line_as_it_is_laid_out(
    tmp_path: Path, setting: str, less: list[str], more: list[str], newline: str
) -> None:
    path = tmp_path / "lab.yaml"
    path.write_bytes(LAID_OUT.replace("\n", newline).encode())
    profile = override(load(path), [setting])
    save(path, profile)
    assert load(path) == profile
    text = path.read_bytes().decode()
    assert text.count(newline) == text.count("\n")
    before, after = LAID_OUT.split("\n"), text.split(newline)
    assert [line for line in before if line not in after] == less
    assert [line.rstrip() for line in after if line not in before] == more


def test_saving_nodes_that_were_pasted_as_a_host_list_writes_them_out(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(SMALL.replace("\n  - host: gpu01\n", " |  # pasted\n  gpu01 slots=8\n  big[1-3] slots=4\n"))
    save(path, override(load(path), ["program.path=other.py"]))
    assert "slots=4" in path.read_text()
    profile = override(load(path), ["nodes[0].port=22"])
    save(path, profile)
    assert load(path) == profile
    assert 'host: "big[1-3]"' in path.read_text()


def test_saving_a_range_that_is_no_longer_alike_writes_its_nodes_out(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(COMMENTED)
    changed = override(lab(), ["nodes[2].gpus=1"])
    save(path, changed)
    assert load(path) == changed
    assert "next to the window" in path.read_text()


def test_a_changed_list_written_by_alias_changes_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(SMALL.replace("- host: gpu01", "- &n {host: localhost, gpus: 2}\n  - *n"))
    changed = override(load(path), ["nodes[1].gpus=1"])
    save(path, changed)
    assert load(path) == changed


def test_saving_keeps_the_layout_of_dashes_and_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_bytes(SMALL.replace("  - host", "- host").replace("\n", "\r\n").encode())
    save(path, override(load(path), ["name=other"]))
    assert b"nodes:\r\n- host: gpu01\r\n" in path.read_bytes()
    assert b"name: other\r\n" in path.read_bytes()


def test_a_new_file_is_private_and_complete(tmp_path: Path) -> None:
    path = tmp_path / "new" / "lab.yaml"
    save(path, lab(), seen="")
    assert path.stat().st_mode & 0o777 == 0o600
    assert load(path) == lab()
    assert [entry.name for entry in path.parent.iterdir()] == ["lab.yaml"]


def test_a_linked_profile_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target.yaml", tmp_path / "link.yaml"
    target.write_text(COMMENTED)
    target.chmod(0o640)
    link.symlink_to("target.yaml")
    save(link, override(lab(), ["name=other"]))
    assert link.is_symlink()
    assert load(target).name == "other"
    assert target.stat().st_mode & 0o777 == 0o640


def test_a_file_that_changed_on_disk_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(COMMENTED)
    seen = fingerprint(path)
    path.write_text(COMMENTED + "# somebody else\n")
    with pytest.raises(RequestError, match="has changed on disk"):
        save(path, override(lab(), ["name=other"]), seen=seen)
    assert path.read_text().endswith("# somebody else\n")


def test_a_broken_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text("version: [\n")
    with pytest.raises(ProfileError, match="not YAML"):
        save(path, lab())
    assert path.read_text() == "version: [\n"


def test_a_folder_that_takes_no_file_is_a_request_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match="cannot be"):
        save(tmp_path / "file" / "lab.yaml", lab())


WORDS = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=12).map(
    lambda text: text.replace("{", "{{").replace("}", "}}")
)
ENV_NAMES = st.from_regex(r"X_[A-Z0-9]{0,6}", fullmatch=True)
NODES = st.builds(
    Node,
    host=st.from_regex(r"[a-d]{1,2}[0-9]{0,2}", fullmatch=True),
    gpus=st.sampled_from([1, 8, "auto"]),
    port=st.sampled_from([None, 22, 2222]),
    activate=st.sampled_from(["", "source x", "a\nb", "# 'x': \"y\"", "  a", "true", "1"]),
)
PROFILES = st.builds(
    Profile,
    version=st.just(1),
    name=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,12}", fullmatch=True),
    nodes=st.lists(NODES, min_size=1, max_size=6, unique_by=lambda node: node.host).map(tuple),
    program=st.builds(Program, path=st.just("t.py"), args=st.lists(WORDS, max_size=4).map(tuple)),
    env=st.dictionaries(ENV_NAMES, WORDS, max_size=3),
    batch=st.none() | st.builds(Batch, per_device=st.integers(1, 9), base_lr=st.none()),
    slurm=st.none() | st.builds(Slurm, exclusive=st.booleans(), time=st.sampled_from(["", "1-00:00:00", "10:00"])),
)


@given(PROFILES)
def test_a_profile_survives_yaml(profile: Profile) -> None:
    assert decode(to_yaml(profile), "again") == profile


@given(st.text(max_size=200) | st.binary(max_size=200))
def test_any_input_gives_a_profile_or_a_profile_error(text: str | bytes) -> None:
    with pytest.raises(ProfileError):
        decode(text, "x")


@given(st.text(max_size=40))
def test_any_setting_gives_a_profile_or_a_profile_error(setting: str) -> None:
    try:
        override(lab(), [setting])
    except ProfileError as error:
        assert "--set" in str(error)


def test_a_profile_that_is_being_written_has_its_mistakes_by_path() -> None:
    profile, mistakes = judge(
        {"version": "1", "name": "Lab", "program": {"path": ""}, "nodes": [{"host": "a", "gpus": "x"}]}
    )
    assert sorted(mistakes) == ["name", "nodes[0].gpus", "program.path"]
    assert mistakes["nodes[0].gpus"] == "found 'x'; allowed: a whole number, without quotes, or auto"
    assert profile.nodes[0].host == "a"


def test_data_reads_as_its_text_does_in_a_file() -> None:
    data = {"version": "1", "name": "lab", "nodes": [{"host": "gpu01", "port": "22"}], "program": {"path": "null"}}
    profile, mistakes = judge(data)
    assert not mistakes
    assert (profile.nodes[0].port, profile.program.path) == (22, "null")


PATTERN = "version: 1\nname: a\nnodes: [{host: a}]\nprogram: {path: t.py, metric_pattern: '%s'}\n"


@pytest.mark.parametrize(
    ("pattern", "said"), [("(", "no regular expression"), (r"loss (\d+)", "names nothing to read")]
)
def test_a_metric_pattern_has_to_be_one(pattern: str, said: str) -> None:
    (mistake,) = mistakes(PATTERN % pattern)
    assert said in mistake


def test_a_metric_pattern_with_named_groups_is_taken() -> None:
    assert decode(PATTERN % r"loss (?P<loss>\S+)", "lab.yaml").program.metric_pattern == r"loss (?P<loss>\S+)"
