"""The draft of the wizard: what was typed, and what it comes to. No screen in here."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given

from engine.errors import RequestError
from engine.profile import Profile, load, override
from tests.unit.test_profile import PROFILES
from tui.wizard.draft import Draft
from tui.wizard.fields import FIELDS, STEP_OF, field_of

EXAMPLES = sorted((Path(__file__).parents[2] / "profiles").glob("*.yaml"))


def typed(**answers: str) -> Draft:
    """A draft with a name, a program and these answers; `__` stands for a dot."""
    draft = Draft()
    for key, text in {"name": "lab", "program.path": "train.py", "nodes": "gpu01", **answers}.items():
        draft.put(key.replace("__", "."), text)
    return draft


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_a_saved_profile_comes_back_as_it_is(path: Path) -> None:
    known = load(path)
    judged = Draft.of(known, str(path)).judged()
    assert judged.profile == known
    assert judged.complete


@given(PROFILES)
def test_any_profile_comes_back_as_it_is(known: Profile) -> None:
    assert Draft.of(known).judged().profile == known


def test_every_key_of_a_profile_has_its_question() -> None:
    rows = {"version", "nodes"} | {key.partition(".")[0] for key in FIELDS}
    assert rows == set(Profile.__struct_fields__)
    assert {key.partition(".")[0] for key in FIELDS} <= set(STEP_OF)


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("nodes[3].host", "nodes"),
        ("env.A", "env"),
        ("program.args[1]", "program.args"),
        ("batch", ""),
        ("name", "name"),
    ],
)
def test_a_mistake_belongs_to_the_question_that_it_was_typed_under(path: str, key: str) -> None:
    assert field_of(path) == key


def test_nothing_typed_says_what_is_missing() -> None:
    assert set(Draft().judged().mistakes) == {"name", "program.path", "nodes"}


def test_pasted_hosts_become_nodes_in_their_order() -> None:
    nodes = typed(nodes="gpu[01-02] slots=8\nml@gpu07 port=2222  # the spare").judged().profile.nodes
    assert [(n.host, n.gpus, n.user, n.port) for n in nodes] == [
        ("gpu01", 8, "", None),
        ("gpu02", 8, "", None),
        ("gpu07", "auto", "ml", 2222),
    ]


def test_a_wrong_host_list_says_where_and_keeps_its_text() -> None:
    draft = typed(nodes="gpu[8-1]")
    assert draft.judged().mistakes["nodes"].startswith("line 1, column 1: 'gpu[8-1]': 8-1 runs backwards")
    assert draft.get("nodes") == "gpu[8-1]"


def test_what_one_node_needs_of_its_own_stays_with_its_host() -> None:
    draft = typed(nodes="gpu01,gpu02")
    draft.per_node[draft.node_key(1)] = {"devices": "2, 3", "workdir": "/data"}
    draft.put("nodes", "gpu02,gpu01")
    first = draft.judged().profile.nodes[0]
    assert (first.devices, first.workdir) == ((2, 3), "/data")


def test_two_nodes_on_this_machine_are_told_apart() -> None:
    draft = typed(nodes="localhost slots=2\nlocalhost slots=2")
    draft.per_node[draft.node_key(1)] = {"workdir": "/b"}
    assert [node.workdir for node in draft.judged().profile.nodes] == ["", "/b"]


def test_a_mistake_on_a_node_names_the_host() -> None:
    draft = typed(nodes="gpu[01-02]")
    draft.per_node["gpu02"] = {"gpus": "many"}
    assert draft.judged().mistakes["nodes"].startswith("gpu02: ranks: found 'many'")


def test_arguments_are_split_as_a_shell_does() -> None:
    draft = typed(program__args="--lr {lr} --note 'two words' \"\"", batch__per_device="4", batch__base_lr="1e-3")
    assert draft.judged().profile.program.args == ("--lr", "{lr}", "--note", "two words", "")


def test_an_open_quote_is_explained() -> None:
    assert "a quote that opens also closes" in typed(program__args="--note 'two").judged().mistakes["program.args"]


def test_a_number_that_is_none_is_explained_in_the_words_of_profile_files() -> None:
    assert typed(batch__per_device="4x").judged().mistakes == {
        "batch.per_device": "found '4x'; allowed: a whole number"
    }


def test_a_placeholder_without_a_batch_asks_for_the_batch() -> None:
    assert "batch.per_device" in typed(program__args="--lr {lr}").judged().mistakes


def test_variables_are_read_a_line_each() -> None:
    draft = typed(env='NCCL_DEBUG=WARN\nexport A="two\\nlines"\nB=')
    assert draft.judged().profile.env == {"NCCL_DEBUG": "WARN", "A": "two\nlines", "B": ""}


@pytest.mark.parametrize(
    ("env", "text"),
    [
        ("NCCL_DEBUG", "line 1: no '='"),
        ("A=1\nA=2", "line 2: A is written twice"),
        ("RANK=1", "RANK: reserved"),
        ("HF_TOKEN=hf_abc", "HF_TOKEN: this looks like a secret"),
    ],
)
def test_a_variable_that_cannot_stand_says_why(env: str, text: str) -> None:
    assert typed(env=env).judged().mistakes["env"].startswith(text)


def test_no_interface_can_be_asked_for() -> None:
    assert typed(rendezvous__interface="none").judged().profile.rendezvous.interface == ""


def test_choosing_slurm_keeps_the_nodes_that_were_typed() -> None:
    judged = typed(launcher="slurm").judged()
    assert judged.profile.slurm is not None
    assert [node.host for node in judged.profile.nodes] == ["gpu01"]


def test_a_step_is_untouched_until_it_is_seen_and_then_right_or_wrong() -> None:
    draft = Draft()
    assert set(draft.states(draft.judged()).values()) == {"untouched"}
    draft.visited |= {"program", "network"}
    states = draft.states(draft.judged())
    assert (states["program"], states["network"], states["nodes"]) == ("mistakes", "ok", "untouched")
    draft.put("program.path", "train.py")
    assert draft.states(draft.judged())["program"] == "ok"


def test_what_no_question_asks_stays_as_it_is() -> None:
    groups = ["slurm.groups=[{nodes: 2, gpus_per_node: 8}, {nodes: 1, gpus_per_node: 4}]", "slurm.partition=train"]
    known = override(typed(launcher="slurm").judged().profile, groups)
    draft = Draft.of(known)
    draft.put("slurm.partition", "debug")
    slurm = draft.judged().profile.slurm
    assert slurm is not None
    assert (slurm.partition, [group.nodes for group in slurm.groups]) == ("debug", [2, 1])


def test_a_profile_that_no_form_can_say_is_not_opened() -> None:
    odd = override(typed().judged().profile, ["nodes[0].host=gpu#1"])
    with pytest.raises(RequestError, match="says something that this form cannot"):
        Draft.of(odd, "lab.yaml")
