"""How much memory there is, so that what does not fit is refused before the machine swaps."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path

from uva_agents.errors import MachineError


def available_memory() -> int | None:
    """Bytes that this process can still take without swapping, within its container's limit; ``None`` if it cannot be told."""
    found = [_of_the_machine(), _of_the_container(), _of_the_process()]
    known = [n for n in found if n is not None]
    return min(known) if known else None


def check_fits(size: int, what: str) -> None:
    """Refuse to load what is larger than the memory.

    Raises:
        MachineError: it does not fit, with both numbers.
    """
    free = available_memory()
    if free is not None and size > free:
        raise MachineError(
            f"{what} says it has {in_words(size)}, and {in_words(free)} of memory are free: it is damaged, or needs "
            "a larger machine"
        )


def peak_memory() -> int:
    """Bytes that this process has held at most so far; 0 where it cannot be told."""
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def in_words(size: float) -> str:
    """Bytes as KB, MB, GB, TB."""
    for unit in ("bytes", "KB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _of_the_machine() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    if hasattr(os, "sysconf"):
        # Not what is free but what there is: the best that a machine without /proc says.
        with contextlib.suppress(ValueError, OSError):
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _of_the_container() -> int | None:
    """What is left of a control group's limit, version 2 or 1."""
    for limit, used, facts in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current", "/sys/fs/cgroup/memory.stat"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
            "/sys/fs/cgroup/memory/memory.stat",
        ),
    ):
        try:
            most, now = (int(Path(name).read_text(encoding="utf-8")) for name in (limit, used))
            lines = Path(facts).read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError):  # "max": no limit
            continue
        # Files that were read stay in memory until it is needed: that is not taken.
        cache = sum(int(line.split()[1]) for line in lines if line.split()[0] in ("inactive_file", "active_file"))
        return max(0, most - now + cache)
    return None


def _of_the_process() -> int | None:
    try:
        import resource

        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit == resource.RLIM_INFINITY:
            return None
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0])
        return max(0, limit - pages * os.sysconf("SC_PAGE_SIZE"))
    except (ImportError, OSError, ValueError):
        return None
