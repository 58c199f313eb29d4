"""What a measurement ran on."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys
from collections.abc import Callable
from pathlib import Path

_PACKAGES = (
    *("torch", "numpy", "gymnasium", "diffusers", "stable-baselines3"),
    *("gym-pusht", "pymunk", "pybullet", "mujoco", "robosuite", "rpent-libero"),  # what simulates
)


def parse_arguments(
    description: str | None, add_arguments: Callable[[argparse.ArgumentParser], None], argv: list[str] | None
) -> argparse.Namespace:
    """Command line of a benchmark, ``--threads`` included, and the threads already set."""
    import torch

    module = add_arguments.__module__
    name = module.rsplit(".", 1)[-1].replace("_", "-")
    # Run as a module of its own, argparse's own guess is right.
    parser = argparse.ArgumentParser(
        prog=None if module == "__main__" else f"uva bench {name}", description=description
    )
    add_arguments(parser)
    parser.add_argument("--threads", type=int, default=None, help="CPU threads of torch")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    return args


def versions() -> dict[str, str]:
    """Versions of Python, this package and what its numbers depend on, where installed."""
    from uva_agents import __version__

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
        lines = info.read_text().splitlines()
        cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), cpu)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    parts = [f"{cpu}, {cores} cores"]
    torch = sys.modules.get("torch")
    if torch is not None:
        parts.append(f"{torch.get_num_threads()} torch threads")
        if torch.cuda.is_available():
            parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)
