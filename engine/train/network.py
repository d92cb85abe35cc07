"""What the ranks of a node have to talk over: interfaces, InfiniBand or RoCE, the settings of NCCL and gloo."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

SETTINGS = ("NCCL_", "GLOO_SOCKET_IFNAME", "TORCH_NCCL_")
VIRTUAL = ("lo", "docker", "veth", "br-", "virbr", "cni", "flannel")


def described(device: torch.device, env: Mapping[str, str] = os.environ, sys: Path = Path("/sys/class")) -> str:
    """One line: the backend and why, interfaces that are up, InfiniBand and RoCE devices, variables that are set."""
    if device.type == "cuda":
        version = ".".join(map(str, torch.cuda.nccl.version()))  # type: ignore[no-untyped-call]
        backend = f"nccl {version} (the ranks have GPUs)"
    else:
        backend = "gloo (no GPU is used)"
    names = sorted(f"{name}={value}" for name, value in env.items() if name.startswith(SETTINGS))
    return "  ".join(
        [
            f"network: {backend}",
            f"interfaces {' '.join(interfaces(sys / 'net')) or 'none but loopback'}",
            f"rdma {' '.join(rdma(sys / 'infiniband')) or 'none'}",
            f"settings {' '.join(names) or 'none'}",
        ]
    )


def interfaces(folder: Path) -> list[str]:
    """`eth0` or, where the driver knows, `eth0:25Gb/s`, for every real interface that is up."""
    found = []
    for path in sorted(folder.glob("*")):
        if path.name.startswith(VIRTUAL) or text(path / "operstate") not in ("up", "unknown"):
            continue
        speed = text(path / "speed")
        found.append(f"{path.name}:{int(speed) / 1000:g}Gb/s" if speed.isdigit() else path.name)
    return found


def rdma(folder: Path) -> list[str]:
    """`mlx5_0:InfiniBand:ACTIVE:200` (link layer, state, Gb/s) for every port; RoCE has the link layer Ethernet."""
    return [
        f"{port.parent.parent.name}:{text(port / 'link_layer')}:{text(port / 'state').split(' ')[-1]}"
        f":{text(port / 'rate').split(' ')[0]}"
        for port in sorted(folder.glob("*/ports/*"))
    ]


def text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # a virtual interface has no speed
        return ""
