"""What a measurement ran on."""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from uva_agents.utils.files import check_file_target, check_folder_target
from uva_agents.utils.results import save_text

_PACKAGES = (
    *("torch", "numpy", "gymnasium", "diffusers", "stable-baselines3"),
    *("gym-pusht", "pymunk", "pybullet", "mujoco", "robosuite", "rpent-libero"),  # what simulates
)


def parse_arguments(
    description: str | None, add_arguments: Callable[[argparse.ArgumentParser], None], argv: list[str] | None
) -> argparse.Namespace:
    """Command line of a benchmark, ``--threads`` included, and the threads already set.

    Raises:
        MachineError: nothing can be written at ``--json`` or ``--out``.
    """
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
    check_targets(args)
    return args


def check_targets(args: argparse.Namespace) -> None:
    """That what a benchmark will have found can be written at ``args.json`` and in ``args.out``, before it is worked for.

    Raises:
        MachineError: it cannot.
    """
    if getattr(args, "json", None) is not None:
        check_file_target(args.json)
    if getattr(args, "out", None) is not None:
        check_folder_target(args.out)


def save_json(path: Path, found: Mapping[str, Any]) -> None:
    """Numbers, with what they were measured on.

    Raises:
        UnwrittenError: they are somewhere else, or nowhere; the message says.
    """
    save_text(path, json_text(found))


def json_text(found: Mapping[str, Any]) -> str:
    """What :func:`save_json` writes."""
    return json.dumps({**found, "hardware": hardware(), "versions": versions()}, indent=1, default=str) + "\n"


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
