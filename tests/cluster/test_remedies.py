"""What preflight says to do, done literally until it has nothing to say: then the launch works."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tests.cluster.patient import MEET, PORT

if TYPE_CHECKING:
    from tests.cluster.patient import Patient


def test_a_cluster_where_everything_is_wrong_is_mended_by_its_remedies_alone(patient: Patient) -> None:
    first, second, third = patient.hosts
    patient.asked["program"] |= {"path": "train.py", "workdir": "~/exp"}
    patient.asked["nodes"][1]["activate"] = "source /opt/nowhere/bin/activate"
    patient.asked["nodes"][2]["workdir"] = "~/experiments/first"
    patient.write()
    for host, width in ((first, 1), (second, 2)):
        host.run("mkdir exp && cat > exp/train.py", input=f"import net\n{MEET}")
        host.run(f"echo width = {width} > exp/net.py")
    second.path(".venv").symlink_to(sys.prefix)
    third.mount("-o", "remount,size=40M", "/dev/shm")
    third.wall(22, action="reject")
    squatter = first.start(["python3", "-m", "http.server", str(PORT)])
    first.run(f"until ss -ltn | grep -q :{PORT}; do sleep 0.05; done")
    flags: list[str] = []
    seen: dict[str, tuple[str, int | None]] = {}
    try:
        while found := patient.check("--no-speed", *flags):
            now = {finding["text"] + str(finding.get("evidence")): where for where, finding in found.items()}
            assert not now.keys() & seen.keys(), "a remedy did not help"
            seen |= now
            for finding in found.values():
                flags += patient.obey(finding)
    finally:
        squatter.kill()
        squatter.wait()
    assert set(seen.values()) == {
        ("ports.master", 0), ("program.activate", 1), ("program.workdir", 2), ("limits.shm", 2), ("mesh.connect", 2),
        ("program.present", 2), ("program.same", None),
    }  # fmt: skip
    patient.launch(*flags)
