"""What the answers come to, and what is proposed: from a draft and what nodes said. No screen in here."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import Unreachable
from engine.preflight import Observation, node_facts, read
from tests.tui.test_wizard_draft import typed
from tui.wizard.proposals import proposals
from tui.wizard.sheet import Sheet
from tui.wizard.sums import sums

A100 = {"index": 0, "uuid": "GPU-1", "name": "NVIDIA A100-SXM4-80GB", "total": 81920}
L4 = {"index": 0, "uuid": "GPU-2", "name": "NVIDIA L4", "total": 23034}


def answer(addr: str = "10.0.0.1", gpus: list[Any] | None = None, **ports: Any) -> Observation:
    """What a healthy node would say; reached at `addr`, which it has on eth0."""
    here = {"interfaces": [{"name": "eth0", "ipv4": [addr]}], "default_interface": "eth0"}
    cards = [{**card, "index": i, "uuid": f"GPU-{i}"} for i, card in enumerate(gpus or [])]
    return read({"gpus": {"gpus": cards}, "addresses": here, "ports": ports}, peer=addr)


def asked(port: int, free: bool, **holder: Any) -> dict[str, Any]:
    return {"port": port, "free": free, "holder": holder or None}


TWO = typed(
    nodes="gpu01,gpu02", batch__per_device="4", batch__grad_accum="2", batch__base_lr="2e-4", batch__base_batch="16"
)


def test_the_sums_of_a_batch_show_how_they_come_about() -> None:
    profile = (
        typed(
            nodes="gpu[01-02] slots=8",
            batch__per_device="4",
            batch__grad_accum="2",
            batch__base_lr="2e-4",
            batch__base_batch="16",
        )
        .judged()
        .profile
    )
    made = sums(profile, {}, {})
    assert dict(made.lines) == {
        "ranks": "2 × 8 = 16",
        "global batch": "4 × 16 ranks × 2 = 128 samples a step",
        "learning rate": "0.0002 × 128 ÷ 16 = 0.0016",
    }
    assert made.split == ("gpu01, gpu02 each: 8 ranks, 64 samples a step (50%)",)
    assert made.warnings == ()


def test_tokens_a_step_are_told_of_samples_that_are_text() -> None:
    asked = typed(nodes="gpu[01-02] slots=8", batch__per_device="4", batch__sequence_length="2048")
    assert dict(sums(asked.judged().profile, {}, {}).lines)["tokens"] == "64 × 2,048 = 131,072 tokens a step"


def test_nodes_that_nobody_has_counted_are_named() -> None:
    assert dict(sums(TWO.judged().profile, {}, {}).lines) == {"ranks": "gpu01, gpu02 not counted yet"}


def test_what_nodes_said_counts_their_ranks() -> None:
    profile, seen = TWO.judged().profile, {0: answer(gpus=[A100] * 4), 1: answer("10.0.0.2", [A100] * 2)}
    made = sums(profile, node_facts(profile, seen), seen)
    assert made.world_size == 6
    assert made.split == (
        "gpu01: 4 ranks, 32 samples a step (67%)",
        "gpu02: 2 ranks, 16 samples a step (33%)",
    )
    assert made.warnings == (
        "nodes have 2 and 4 ranks: every rank takes the same batch, and a step waits for the slowest of them",
    )


def test_unlike_cards_are_pointed_out_by_the_smallest() -> None:
    profile, seen = TWO.judged().profile, {0: answer(gpus=[A100]), 1: answer("10.0.0.2", [L4])}
    (warning,) = sums(profile, node_facts(profile, seen), seen).warnings
    assert warning.endswith("the batch per device has to fit NVIDIA L4 (23,034 MiB)")


def test_a_rate_far_from_where_it_was_tuned_is_doubted() -> None:
    profile = typed(nodes="gpu01 slots=8", batch__per_device="64", batch__base_lr="0.1", batch__base_batch="8").judged()
    assert sums(profile.profile, {}, {}).warnings[0].startswith("the global batch is 64 times the base batch")


def test_a_slurm_job_counts_what_it_asks_for() -> None:
    profile = typed(launcher="slurm", slurm__nodes="3", slurm__gpus_per_node="8").judged().profile
    assert sums(profile, {}, {}).world_size == 24


def test_the_address_is_where_node_0_is_reached() -> None:
    profile, seen = TWO.judged().profile, {0: answer()}
    found = proposals(profile, node_facts(profile, seen), seen)
    assert found["rendezvous.master_addr"].why == "10.0.0.1: gpu01 on eth0, where this machine reaches it too"
    assert found["rendezvous.interface"].why == "auto: eth0 on gpu01, on the way to the master"


def test_nothing_is_claimed_of_a_node_that_has_not_answered() -> None:
    found = proposals(TWO.judged().profile, {}, {0: Unreachable("no route", node="gpu01")})
    assert {proposal.good for proposal in found.values()} == {None}


def test_on_one_machine_no_rank_leaves_it() -> None:
    profile = typed(nodes="localhost slots=2\nlocalhost slots=2").judged().profile
    found = proposals(profile, {}, {})
    assert found["rendezvous.master_addr"].why == "127.0.0.1: no rank leaves the machine"


@pytest.mark.parametrize(
    ("port", "said", "why", "value"),
    [
        ("29500", [asked(29500, True)], "29500 is free on gpu01", ""),
        ("29500", [asked(29500, False, pid=7, comm="python")], "29500 is held by python (pid 7) on gpu01", "29611"),
        ("40000", [asked(40000, True)], "40000 is free, but gpu01 hands out 32768-60999", "29611"),
        ("auto", [], "auto: 29611, free on gpu01 now", ""),
    ],
)  # fmt: skip
def test_the_port_is_judged_by_what_node_0_says(port: str, said: list[Any], why: str, value: str) -> None:
    profile = typed(nodes="gpu01,gpu02", rendezvous__master_port=port).judged().profile
    seen = {0: answer(asked=said, free_ports=[29611], ephemeral=[32768, 60999])}
    found = proposals(profile, node_facts(profile, seen), seen)["rendezvous.master_port"]
    assert found.why.startswith(why)
    assert found.value == value


def test_the_preview_says_what_is_missing_until_it_can_show_the_commands() -> None:
    sheet = Sheet(typed(nodes="gpu01,gpu02", program__path=""))
    assert sheet.preview.missing == ("Path: found nothing; allowed: the file, module or command to run",)
    sheet.draft.put("program.path", "train.py")
    sheet.judge()
    assert "gpu01 has not answered yet: how many ranks? `slots=8` behind its name would say" in sheet.preview.missing
    sheet.hear({0: answer(gpus=[A100] * 4), 1: answer("10.0.0.2", [A100] * 2)})
    assert sheet.preview.plan is not None
    assert "--nproc_per_node=4" in sheet.preview.text
    assert f"--rdzv_id={sheet.run}" in sheet.preview.text


def test_the_preview_of_a_slurm_job_is_its_script() -> None:
    sheet = Sheet(typed(launcher="slurm", slurm__nodes="2", slurm__gpus_per_node="8"))
    assert sheet.preview.text.startswith("#!/bin/bash")
    assert "#SBATCH --nodes=2" in sheet.preview.text


def test_the_name_of_the_run_follows_the_name_of_the_profile_and_then_stays() -> None:
    sheet = Sheet(typed())
    first = sheet.run
    sheet.judge()
    assert sheet.run == first
    sheet.draft.put("name", "other")
    sheet.judge()
    assert sheet.run.startswith("other-")
