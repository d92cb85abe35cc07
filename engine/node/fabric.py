"""InfiniBand and RoCE devices as the kernel shows them in /sys/class/infiniband."""

from __future__ import annotations

import os
from typing import Any, Dict, List, Optional

from engine.node import proc

FOLDER = "/sys/class/infiniband"


def look() -> Dict[str, Any]:
    """{ports: [{device, port, state, rate [Gbit/s], layer, interfaces}]}: `layer` is InfiniBand, or Ethernet (RoCE)."""
    ports: List[Dict[str, Any]] = []
    for device in _names(FOLDER)[:64]:
        folder = os.path.join(FOLDER, device)
        for port in _names(folder + "/ports")[:16]:
            at = folder + "/ports/" + port
            ports.append(
                {
                    "device": device,
                    "port": int(port) if port.isdigit() else 0,
                    "state": _text(at + "/state").partition(":")[2].strip(),
                    "rate": _rate(_text(at + "/rate")),
                    "layer": _text(at + "/link_layer"),
                    "interfaces": _names(folder + "/device/net"),
                }
            )
    return {"ports": ports}


def _names(folder: str) -> List[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _text(path: str) -> str:
    try:
        return proc.read(path).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _rate(text: str) -> Optional[float]:
    """Gbit/s out of "100 Gb/sec (4X EDR)"."""
    try:
        return float(text.split()[0])
    except (IndexError, ValueError):
        return None
