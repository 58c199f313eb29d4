"""What a measurement ran on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from pathlib import Path

from uva_agents.version import __version__

_PACKAGES = (
    *("torch", "numpy", "gymnasium", "diffusers", "stable-baselines3"),
    *("gym-pusht", "pymunk", "pybullet", "mujoco", "robosuite", "rpent-libero"),  # what simulates
)


def versions() -> dict[str, str]:
    """Versions of Python, this package and what its numbers depend on, where installed."""
    found = {"python": platform.python_version(), "uva_agents": __version__}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def hardware() -> str:
    """CPU, usable cores and, if torch has been imported, the GPU."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [f"{cpu}, {cores} cores"]
    torch = sys.modules.get("torch")
    if torch is not None:
        parts.append(f"{torch.get_num_threads()} torch threads")
        if torch.cuda.is_available():
            parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)
