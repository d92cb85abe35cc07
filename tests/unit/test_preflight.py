"""Every check on observations from data files, and the rules that hold for all of them.

A case of tests/unit/preflight/*.yaml changes the healthy cluster of healthy.yaml and lists every finding to expect, in
order. All nodes have called each other without trouble, but as `links` says, by "CALLER>CALLEE", or "CALLER>master".
Of a finding `text`, `remedy` and `evidence` are parts of what the finding says, and `fix` is the whole of it.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from engine import errors
from engine.plan import make_plan
from engine.preflight import CHECKS, Cell, Finding, Observation, ask, judge, matrix, node_facts, picture, read
from engine.profile import Profile, override

FOLDER = Path(__file__).parent / "preflight"


def load(name: str) -> Any:
    return YAML(typ="safe", pure=True).load((FOLDER / name).read_text())


HEALTHY = load("healthy.yaml")
CASES = {
    case["name"]: case for path in sorted(FOLDER.glob("*.yaml")) if path.stem != "healthy" for case in load(path.name)
}


def merged(base: Any, change: Any) -> Any:
    if not isinstance(base, dict) or not isinstance(change, dict):
        return copy.deepcopy(change)
    return {
        key: merged(base.get(key), change[key]) if key in change else copy.deepcopy(base[key])
        for key in {**base, **change}
    }


def profile_of(case: dict[str, Any]) -> Profile:
    return msgspec.convert(merged(HEALTHY["profile"], case.get("profile", {})), Profile)


def observations_of(case: dict[str, Any]) -> dict[int, Observation | errors.RankdeckError]:
    found: dict[int, Observation | errors.RankdeckError] = {}
    for rank, node in enumerate(profile_of(case).nodes):
        change = case.get("nodes", {}).get(rank, {})
        if "raises" in change:
            kind = getattr(errors, change["raises"])
            found[rank] = kind(change["text"], node=node.host, remedy=change.get("remedy", ""))
        elif "absent" not in change:
            seen = merged(HEALTHY["nodes"][rank], change)
            seen["mesh"] = {"links": links_of(case, rank)}
            found[rank] = read(json.dumps(seen).encode(), peer=seen.pop("peer"))
    return found


def links_of(case: dict[str, Any], rank: int) -> list[dict[str, Any]]:
    """The calls of a node; a link that has a `code` failed, and several for one callee are several ports."""
    links: list[dict[str, Any]] = []
    for to, callee in [*enumerate(profile_of(case).nodes), (0, None)]:
        if to == rank or ("links" not in case and len(profile_of(case).nodes) == 2):
            continue
        changes = case.get("links", {}).get(f"{rank}>{'master' if callee is None else to}", {})
        for change in changes if isinstance(changes, list) else [changes]:
            link = {"to": to, "master": callee is None, "address": f"10.0.0.{to + 11}", "port": 40000 + to}
            fine = {"ok": True, "rtt": 0.0001, "sent": 90, "large": True}
            links.append(
                link | {"port": 29600 if callee is None else 40000 + to} | ({} if "code" in change else fine) | change
            )
    return links


def findings_of(case: dict[str, Any]) -> list[Finding]:
    return judge(profile_of(case), observations_of(case))


@pytest.mark.parametrize("name", CASES)
def test_the_findings_are_these_and_no_others(name: str) -> None:
    found = findings_of(CASES[name])
    assert [finding.check for finding in found] == [wanted["check"] for wanted in CASES[name]["expect"]], found
    for finding, wanted in zip(found, CASES[name]["expect"], strict=True):
        assert finding.severity == wanted["severity"]
        assert finding.node_rank == wanted.get("node_rank")
        for field in ("text", "remedy"):
            assert wanted.get(field, "") in getattr(finding, field)
        assert list(finding.fix) == wanted.get("fix", list(finding.fix))
        assert any(
            wanted.get("evidence", "") in line for line in ("", *finding.evidence) if line or "evidence" not in wanted
        )


@pytest.mark.parametrize("check", CHECKS)
def test_every_check_has_a_case_where_it_fires(check: str) -> None:
    assert any(wanted["check"] == check for case in CASES.values() for wanted in case["expect"])


@pytest.mark.parametrize("check", CHECKS)
def test_every_check_can_be_skipped(check: str) -> None:
    case = next(case for case in CASES.values() if any(wanted["check"] == check for wanted in case["expect"]))
    found = judge(profile_of(case), observations_of(case), skip=[check])
    assert check not in {finding.check for finding in found}


def test_an_unknown_check_to_skip_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(errors.RequestError) as refused:
        judge(profile_of({}), {}, skip=["ports.mastre"])
    assert "did you mean ports.master?" in str(refused.value)


def test_every_finding_that_is_bad_says_what_to_do() -> None:
    missing = [f for case in CASES.values() for f in findings_of(case) if f.severity == "error" and not f.remedy]
    assert missing == []


@pytest.mark.parametrize("name", CASES)
def test_every_fix_is_a_change_that_the_profile_takes(name: str) -> None:
    for finding in findings_of(CASES[name]):
        assert override(profile_of(CASES[name]), finding.fix) != profile_of(CASES[name]) or not finding.fix


def test_a_finding_about_a_node_names_its_host() -> None:
    found = findings_of(CASES["a Python older than 3.8 is an error"])
    assert [finding.host for finding in found] == ["gpu02"]


def test_every_check_has_a_title() -> None:
    assert all(check.title for check in CHECKS.values())


def test_a_profile_without_nodes_is_judged_without_a_finding() -> None:
    profile = msgspec.structs.replace(profile_of({}), nodes=())
    assert judge(profile, {}) == []


# ---- reading what a node says ---------------------------------------------------------------------------------------


def test_fields_that_are_not_known_are_passed_over() -> None:
    assert read({"system": {"hostname": "gpu01", "altitude": 3}, "weather": {}}).system.hostname == "gpu01"


def test_text_of_a_node_is_made_safe() -> None:
    found = read({"system": {"hostname": "gpu\x1b]0;title\x0701\u202e"}, "python": {"output": "a\x1b[2Jb\nc\rd"}})
    assert found.system.hostname == "gpu01"
    assert found.python.output == "ab\nd"


@pytest.mark.parametrize(
    "answer",
    [
        b'{"system": ',
        b"[]",
        b'{"gpus": {"gpus": [{"index": -1}]}}',
        b'{"system": {"cpu_count": "many"}}',
        b'{"x": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"x": ' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"x": "' + b"a" * (1 << 20) + b'"}',
        b'{"gpus": {"gpus": [' + b",".join([b'{"index": 0}'] * 300) + b"]}}",
        b'{"ports": {"free_ports": [70000]}}',
        b"\xff\xfe",
    ],
)
def test_a_hostile_answer_is_refused_by_the_name_of_its_node(answer: bytes) -> None:
    with pytest.raises(errors.NodeRefused) as refused:
        read(answer, node="gpu01")
    assert refused.value.node == "gpu01"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
_PARTS = st.dictionaries(st.sampled_from(list(HEALTHY["nodes"][0])), _JSON)


@given(_PARTS)
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_any_answer_is_read_and_judged_or_refused(parts: dict[str, Any]) -> None:
    try:
        found = read({**HEALTHY["nodes"][0], **parts})
    except errors.NodeRefused:
        return
    judge(profile_of({}), {0: found, 1: found})


# ---- facts for the plan ---------------------------------------------------------------------------------------------


def test_the_facts_of_a_healthy_cluster_fill_in_a_plan() -> None:
    case = {"profile": {"nodes": [{"host": "gpu01"}, {"host": "gpu02"}], "rendezvous": {"master_port": "auto"}}}
    facts = node_facts(profile_of(case), observations_of(case))
    plan = make_plan(profile_of(case), "lab-1", facts)
    assert (plan.master_addr, plan.master_port, plan.world_size) == ("10.0.0.11", 61027, 4)
    assert [fact.interface for fact in facts.values()] == ["eno1", "eno1"]
    assert facts[0].torchrun_flags == {"--nnodes", "--redirects", "--log_dir"}
    assert facts[1].cpu_count == 64


def test_the_interface_is_the_one_on_the_way_to_the_master() -> None:
    way = {"to": "10.9.0.1", "ips": ["10.9.0.1"], "source": "10.9.0.2", "interface": "ib0"}
    interfaces = [{"name": "eno1", "ipv4": ["10.0.0.12"]}, {"name": "ib0", "ipv4": ["10.9.0.2"]}]
    case = {
        "profile": {"rendezvous": {"master_addr": "10.9.0.1"}},
        "nodes": {1: {"addresses": {"routes": [way], "interfaces": interfaces}}},
    }
    assert node_facts(profile_of(case), observations_of(case))[1].interface == "ib0"


def test_the_master_uses_the_interface_that_holds_its_own_address() -> None:
    way = {"to": "10.9.0.1", "ips": ["10.9.0.1"], "source": "10.9.0.1", "interface": "ib0"}
    loop = dict(way, source="127.0.0.1", interface="lo")
    interfaces = [{"name": "lo", "loopback": True, "ipv4": ["127.0.0.1"]}, {"name": "ib0", "ipv4": ["10.9.0.1"]}]
    for route in (way, loop):
        case = {
            "profile": {"nodes": [{"host": "gpu01", "addr": "10.9.0.1"}, {"host": "gpu02"}]},
            "nodes": {0: {"addresses": {"routes": [route], "interfaces": interfaces}}},
        }
        assert node_facts(profile_of(case), observations_of(case))[0].interface == "ib0"


def test_an_address_behind_a_gateway_is_not_a_node_s_own() -> None:
    case = {"nodes": {0: {"peer": "203.0.113.7"}}}
    assert node_facts(profile_of(case), observations_of(case))[0].addr == "10.0.0.11"


def test_a_bridge_of_containers_is_no_training_address() -> None:
    interfaces = [{"name": "docker0", "bridge": True, "ipv4": ["172.17.0.1"]}, {"name": "eth1", "ipv4": ["10.0.0.5"]}]
    case = {"nodes": {0: {"peer": "", "addresses": {"default_interface": "", "interfaces": interfaces}}}}
    assert node_facts(profile_of(case), observations_of(case))[0].addr == "10.0.0.5"


def test_nodes_that_are_all_this_machine_meet_on_loopback() -> None:
    case = {"profile": {"nodes": [{"host": "localhost", "gpus": 1}, {"host": "localhost", "gpus": 1}]}}
    facts = node_facts(profile_of(case), observations_of(case))
    assert {(fact.addr, fact.interface) for fact in facts.values()} == {("127.0.0.1", "lo")}


def test_gpus_that_could_not_be_counted_are_not_known() -> None:
    case = CASES["a driver that does not fit its library is an error and no lack of GPUs"]
    assert [fact.gpus for fact in node_facts(profile_of(case), observations_of(case)).values()] == [2, None]


def test_a_node_that_did_not_answer_has_no_facts() -> None:
    case = {"nodes": {0: {"raises": "Unreachable", "text": "no route"}}}
    assert list(node_facts(profile_of(case), observations_of(case))) == [1]


def test_the_port_is_asked_for_where_it_is_listened_on() -> None:
    profile = profile_of({})
    assert [ask(profile, rank)["ports"] for rank in (0, 1)] == [[29600], []]
    assert ask(profile, 1)["activate"] == "source /opt/venv/bin/activate"


# ---- the matrix, while answers come ---------------------------------------------------------------------------------

EVERYTHING = tuple({part for check in CHECKS.values() for part in check.needs})


def cells_of(case: dict[str, Any], waiting: dict[int, tuple[str, ...]]) -> dict[tuple[int | None, str], Cell]:
    profile, seen = profile_of(case), observations_of(case)
    seen = {rank: found for rank, found in seen.items() if "reach" not in waiting.get(rank, ())}
    return matrix(profile, seen, judge(profile, seen, (), waiting), waiting)


def test_a_node_that_has_not_answered_waits_and_the_other_is_judged() -> None:
    case = {"nodes": {0: {"system": {"python": "3.7.1"}, "program": {"sha256": "other"}}}}
    cells = cells_of(case, {1: EVERYTHING})
    assert (cells[0, "node.python"].state, cells[0, "program.present"].state) == ("error", "ok")
    assert {cells[1, name].state for name in CHECKS} == {"waiting"}
    assert (cells[0, "program.same"].state, cells[None, "program.same"].state) == ("waiting", "waiting")


def test_a_slow_activation_delays_only_the_checks_that_need_it() -> None:
    cells = cells_of({}, {1: ("python", "program", "gpus")})
    assert {cells[1, name].state for name in ("reach.ssh", "node.state", "jobs.ours", "addresses.master")} == {"ok"}
    assert {cells[1, name].state for name in ("program.activate", "devices.driver")} == {"waiting"}


def test_a_node_that_does_not_answer_is_an_error_once_and_unseen_elsewhere() -> None:
    cells = cells_of({"nodes": {1: {"raises": "Unreachable", "text": "no route"}}}, {})
    assert cells[1, "reach.ssh"].state == "error"
    assert {cells[1, name].state for name in CHECKS if name != "reach.ssh"} == {"unseen"}


def test_what_an_environment_that_does_not_come_up_hides_is_not_called_in_order() -> None:
    broken = {"python": {"activated": False, "code": 1, "torch": "", "torchrun": ""}}
    cells = cells_of({"nodes": {1: broken}}, {})
    assert cells[1, "program.activate"].state == "error"
    assert {cells[1, name].state for name in ("program.torch", "program.versions", "devices.cuda")} == {"unseen"}
    assert {cells[1, name].state for name in ("limits.shm", "devices.driver")} == {"ok"}


def test_a_check_that_is_skipped_is_shown_as_skipped() -> None:
    cells = matrix(profile_of({}), observations_of({}), [], {}, ["jobs.ours"])
    assert {cells[rank, "jobs.ours"].state for rank in (None, 0, 1)} == {"skipped"}


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_found_early_that_is_not_found_in_the_end(name: str) -> None:
    profile, seen = profile_of(CASES[name]), observations_of(CASES[name])
    final = findings_of(CASES[name])
    for some in ({1: EVERYTHING}, {0: ("python", "gpus")}, {1: ("addresses", "system")}):
        waiting = {rank: parts for rank, parts in some.items() if rank in seen}
        early = [f for f in judge(profile, seen, (), waiting) if not f.check.startswith("mesh.")]
        assert [f for f in early if f not in final] == []


def test_a_blocked_pair_is_shown_before_the_last_node_comes() -> None:
    case = next(case for name, case in CASES.items() if name.startswith("a node that is cut off"))
    cells = cells_of(case, {2: ("mesh",)})
    assert cells[1, "mesh.connect"].state == "error"
    assert cells[2, "mesh.connect"].state == "waiting"


def test_of_many_nodes_those_with_trouble_have_a_row_and_the_others_are_counted() -> None:
    profile = profile_of({"profile": {"nodes": [{"host": f"gpu{n:02}", "gpus": 8} for n in range(64)]}})
    away = [Finding(check="reach.ssh", severity="error", text="no answer", node_rank=rank) for rank in range(40, 42)]
    lines = picture(profile, matrix(profile, {}, away, {}, ["speed.bandwidth"]))
    assert [line.split()[:2] for line in lines[1:]] == [["40", "gpu40"], ["41", "gpu41"], ["all", "✓"], ["and", "62"]]
    many = [Finding(check="reach.ssh", severity="error", text="no answer", node_rank=rank) for rank in range(30)]
    assert (
        picture(profile, matrix(profile, {}, many, {}))[-1] == "and 6 nodes with trouble, and 34 nodes without trouble"
    )
