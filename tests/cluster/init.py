"""The first process of a test host: makes the host's own world, starts its sshd, then reaps, as every PID 1 does.

Started as `… unshare --uts --mount --pid --fork --mount-proc --kill-child python -I -S init.py FOLDER`, in the host's
network namespace. FOLDER/boot.json says what to make:
    name       the hostname
    binds      [source, target] pairs, bind-mounted after the covers
    covers     folders that get a fresh tmpfs: [folder, octal mode]
    keep       folders that stay visible though they lie under a cover
    sshd       the command line of sshd, run last
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys


def run(*argv: str) -> None:
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


def make_world(folder: str) -> None:
    with open(os.path.join(folder, "boot.json"), encoding="utf-8") as file:  # noqa: PTH118, PTH123 (pathlib takes 20 ms)
        boot = json.load(file)
    run("hostname", boot["name"])
    stages = []
    for number, path in enumerate(boot["keep"]):
        stage = f"{folder}/stage/{number}"
        os.makedirs(stage, exist_ok=True)  # noqa: PTH103
        run("mount", "--rbind", path, stage)
        stages.append((stage, path))
    for path, mode in boot["covers"]:
        run("mount", "-t", "tmpfs", "-o", f"mode={mode}", "tmpfs", path)
    for stage, path in stages:
        os.makedirs(path, exist_ok=True)  # noqa: PTH103
        run("mount", "--rbind", stage, path)
        run("umount", "--lazy", stage)
    for source, target in boot["binds"]:
        run("mount", "--bind", source, target)
    os.makedirs("/run/sshd", exist_ok=True)  # noqa: PTH103
    run(*boot["sshd"])


def reap() -> None:
    """Reap until standard input ends: with the tests gone, however they ended, the power of their hosts is off."""
    wake, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
        ready, _, _ = select.select([0, wake], [], [])
        if 0 in ready:
            return
        os.read(wake, 4096)


if __name__ == "__main__":
    os.umask(0o022)
    make_world(sys.argv[1])
    reap()
