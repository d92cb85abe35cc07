"""The GPUs of a node as nvidia-smi shows them, and who uses them.

No nvidia-smi is no error: the answer has no GPUs then, and `cards` says how many NVIDIA cards the PCI bus shows all the
same. The query fields are those of `nvidia-smi --help-query-gpu` and `--help-query-compute-apps`.
"""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional, Tuple

from engine.node import proc, shell, who

SECONDS = 20.0
XID_SECONDS = 0.5
_GPU = "index,uuid,name,memory.total,memory.used,driver_version"
_APPS = "gpu_uuid,pid,used_memory"
_HEALTH = "index,ecc.errors.uncorrected.volatile.total,remapped_rows.pending,remapped_rows.failure"
_FORMAT = "--format=csv,noheader,nounits"


def look(env: Dict[str, str], seconds: float = SECONDS) -> Dict[str, Any]:
    """{tool, cards, visible, gpus, processes, xids, error}: memory in MiB, None where nvidia-smi does not tell.

    `env` is the environment of the launch; `visible` its CUDA_VISIBLE_DEVICES (None: not set); `xids` what the driver
    told the kernel's log, where that may be read.
    """
    import shutil

    tool = shutil.which("nvidia-smi", path=env.get("PATH"))
    answer: Dict[str, Any] = {"tool": tool or "", "cards": cards(), "gpus": [], "processes": [], "error": ""}
    answer["xids"] = xids() if answer["cards"] else []
    answer["visible"] = env.get("CUDA_VISIBLE_DEVICES")
    if tool is None:
        return answer
    gpus = shell.Command([tool, "--query-gpu=" + _GPU, _FORMAT], seconds, env)
    try:
        apps = shell.Command([tool, "--query-compute-apps=" + _APPS, _FORMAT], seconds, env)
        health = shell.Command([tool, "--query-gpu=" + _HEALTH, _FORMAT], seconds, env)
    finally:
        first = gpus.finish()
    second, third = apps.finish(), health.finish()
    answer["error"] = trouble(first, seconds)
    if not answer["error"]:
        answer["gpus"] = [gpu for gpu in map(read_gpu, first.out.splitlines()) if gpu is not None]
        if trouble(second, seconds) == "":
            answer["processes"] = [app for app in map(read_app, second.out.splitlines()) if app is not None]
        if third.code == 0:  # a driver that does not know one of these fields gives none of them
            troubles = dict(map(read_health, third.out.splitlines()))
            for gpu in answer["gpus"]:
                gpu["trouble"] = troubles.get(gpu["index"], "")
    return answer


def trouble(result: shell.Result, seconds: float) -> str:
    """What nvidia-smi complains of, or "". Exit status 6 means that it found no device, which is an answer."""
    if result.code == 0 or result.code == 6:
        return ""
    if result.code is None:
        return "nvidia-smi did not answer within %g s" % seconds
    text = " ".join((result.out + " " + result.err).split())
    return text[-500:] or "nvidia-smi ended with exit status %d" % result.code


def read_gpu(line: str) -> Optional[Dict[str, Any]]:
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != 6 or not fields[0].isdigit():
        return None
    return {
        "index": int(fields[0]),
        "uuid": fields[1],
        "name": fields[2],
        "total": number(fields[3]),
        "used": number(fields[4]),
        "driver": fields[5],
    }


def read_app(line: str) -> Optional[Dict[str, Any]]:
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != 3 or not fields[1].isdigit():
        return None
    return dict(who.describe(int(fields[1])), uuid=fields[0], used=number(fields[2]))


def read_health(line: str) -> Tuple[Optional[int], str]:
    """(index, what is wrong or "")."""
    index, ecc, pending, failure = ([field.strip() for field in line.split(",")] + [""] * 4)[:4]
    found = []
    if number(ecc):
        found.append("%s uncorrected ECC errors since the driver was loaded" % ecc)
    if pending in ("Yes", "1"):
        found.append("rows of memory wait for a reset to be remapped")
    if failure in ("Yes", "1"):
        found.append("remapping rows of memory has failed")
    return number(index), ", ".join(found)


def xids(seconds: float = 86400.0) -> List[str]:
    """The last Xid errors (NVIDIA's "XID Errors" page) of a day in the kernel's log, newest last; [] if unreadable."""
    import re
    import time

    found: List[str] = []
    try:
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return found
    now, until = time.monotonic(), time.monotonic() + XID_SECONDS
    try:
        while time.monotonic() < until:
            try:
                head, _, text = os.read(fd, 8192).decode("utf-8", "replace").partition(";")
            except BrokenPipeError:
                continue  # that record has been overwritten
            match = re.match(r"NVRM: (Xid [^\n]*)", text)
            if match and now - int(head.split(",")[2]) / 1e6 < seconds:
                found.append(match.group(1)[:200])
    except (OSError, ValueError, IndexError):
        pass
    finally:
        os.close(fd)
    return found[-8:]


def number(text: str) -> Optional[int]:
    """None for "[N/A]", "[Insufficient Permissions]" and the like."""
    return int(text) if text.isdigit() else None


def cards() -> int:
    """How many NVIDIA display or 3D controllers are on the PCI bus (vendor 10de, class 0300 or 0302)."""
    folder = "/sys/bus/pci/devices"
    found = 0
    try:
        names = os.listdir(folder)
    except OSError:
        return 0
    for name in names:
        try:
            if proc.read(folder + "/" + name + "/vendor").strip() == b"0x10de":
                found += proc.read(folder + "/" + name + "/class")[:6] in (b"0x0300", b"0x0302")
        except OSError:
            continue
    return found
