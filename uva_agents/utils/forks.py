"""Processes forked from one that has computed on several threads compute on one, instead of waiting for threads that are not there.

A fork copies memory and one thread. OpenMP's memory says that its other threads are there too, so the first sum in the child that
is large enough to be shared among them waits for ever (pytorch#41197). One thread asks nobody.
"""

from __future__ import annotations

import os

import torch

from uva_agents.errors import MachineError

_registered = False
_parallel = False
"""Whether this process has computed on several threads, or may have."""
_cut_off = False
"""Whether it was forked from one that had."""


def keep_forks_safe() -> None:
    """From now on, forked processes compute on one thread. Whoever makes an agent calls it; once is enough."""
    global _registered
    if not _registered and hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_in_child)
        _registered = True
    _note_threads()


def check_process(device: torch.device) -> None:
    """Refuse at once what would hang or fail in a forked process.

    Args:
        device: that is about to compute.

    Raises:
        MachineError: several threads were asked for in a forked process, or its parent has used CUDA.
    """
    _note_threads()
    if _cut_off and torch.get_num_threads() > 1:
        raise MachineError(
            f"torch.set_num_threads({torch.get_num_threads()}) in a process forked from one that has computed on several threads "
            "would hang: keep one thread here, or start the process with the method 'spawn' or 'forkserver'"
        )
    if device.type == "cuda" and getattr(torch.cuda, "_is_in_bad_fork", lambda: False)():
        raise MachineError(
            "these weights are on a CUDA device that the parent of this forked process has opened: start the process with the "
            "method 'spawn' or 'forkserver', or load the weights in it before the parent does"
        )


def _note_threads() -> None:
    global _parallel
    _parallel = _parallel or torch.get_num_threads() > 1


def _in_child() -> None:
    global _cut_off
    _note_threads()
    if _parallel:
        _cut_off = True
        torch.set_num_threads(1)
