"""A profile for one rank on each host, what preflight finds of it, and a user who does what the remedies say."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from typing import TYPE_CHECKING, Any

from tests.cluster.workstation import VENV, Workstation

if TYPE_CHECKING:
    from tests.cluster.hosts import Host

    Hosts = tuple[Host, ...]
    Found = dict[str, Any]

PORT = 29600
MEET = """\
import torch
import torch.distributed as dist
dist.init_process_group("gloo")
total = torch.ones(1)
dist.all_reduce(total)
print(f"{total.item():.0f} of {dist.get_world_size()} met", flush=True)
dist.destroy_process_group()
"""


class Patient:
    """`asked` is the profile, written by `write`."""

    def __init__(self, user: Workstation, hosts: Hosts) -> None:
        self.user = user
        self.hosts = hosts
        self.path = user.home / "lab.yaml"
        self.asked: dict[str, Any] = {
            "version": 1,
            "name": "lab",
            "nodes": [{"host": host.name, "gpus": 1} for host in hosts],
            "rendezvous": {"master_port": PORT},
            "program": {"path": user.script("meet.py", MEET), "activate": VENV},
        }

    def write(self) -> None:
        self.path.write_text(json.dumps(self.asked))  # which is YAML too

    def check(self, *flags: str) -> dict[tuple[str, int | None], Found]:
        """What is found that is worse than an info, by check and node rank."""
        done = self.user.run("check", str(self.path), "--json", *flags)
        assert done.returncode in (0, 3), done.stderr
        found = [json.loads(line) for line in done.stdout.splitlines()]
        bad = {(each["check"], each["node_rank"]): each for each in found if each["severity"] != "info"}
        assert len(bad) == sum(each["severity"] != "info" for each in found), "a finding is told twice"
        return bad

    def launch(self, *flags: str, ranks: int = 0) -> None:
        """A launch in which all ranks (one a host without `ranks`) meet."""
        done = self.user.run("launch", str(self.path), *flags)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count(" met\n") == (ranks or len(self.hosts))

    def obey(self, finding: Found) -> list[str]:
        """Do literally what the remedy says first: the flags for `--set`, or run its command, here or as root there."""
        remedy = finding["remedy"]
        if settings := re.findall(r"--set (?:'[^']*'|\S+)", remedy.partition("; ")[0]):
            return shlex.split(" ".join(settings))
        if found := re.search(r"sudo ([^;]+)", remedy):
            assert finding["node_rank"] is not None
            self.hosts[finding["node_rank"]].run(found.group(1).replace("| sudo tee", "| tee"), root=True)
            return []
        # "make it: COMMAND; or …": what a user pastes into the shell of the workstation.
        command = remedy.partition(": ")[2].partition("; or ")[0]
        assert command.startswith("ssh "), finding
        folder = self.user.home / "bin"
        folder.mkdir(exist_ok=True)
        ssh = self.user.cluster.ssh_argv("$1", "$2")[:-2]
        (folder / "ssh").write_text(f'#!/bin/sh\nexec /usr/bin/{shlex.join(ssh)} "$@"\n')
        (folder / "ssh").chmod(0o755)
        env = {**self.user.env, "PATH": f"{folder}:{os.environ['PATH']}"}
        subprocess.run(["bash", "-c", command], env=env, check=True, stdin=subprocess.DEVNULL, timeout=60)
        return []
