"""PyBullet as this package uses it: a client in this process that prints nothing, and a folder for the files it writes."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib
import os
import shutil
import sys
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from uva_agents.errors import MachineError


class PyBulletClient:
    """PyBullet's functions, bound to one simulation in this process; disconnected at the latest when it is collected."""

    def __init__(self, pb: ModuleType) -> None:
        self._pb = pb
        self._id: int = pb.connect(pb.DIRECT)
        self.close = weakref.finalize(self, _disconnect, pb, self._id)

    def __getattr__(self, name: str) -> Any:
        function = functools.partial(getattr(self._pb, name), physicsClientId=self._id)
        setattr(self, name, function)
        return function


def _disconnect(pb: ModuleType, client: int) -> None:
    with contextlib.suppress(pb.error):
        pb.disconnect(physicsClientId=client)


def load_pybullet() -> ModuleType:
    """PyBullet's module.

    Raises:
        ImportError: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module("pybullet")
    except ImportError as error:
        raise ImportError(
            "uva/BlockPush-v0 needs PyBullet, which is not installed: pip install "
            # The extra leaves it out where it has no wheel.
            + (
                "'uva-agents[block-push]'"
                if sys.version_info < (3, 12)
                else "pybullet (it is compiled: minutes, and a C++ compiler)"
            )
        ) from error


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Nothing that C code prints reaches the terminal; exceptions do."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    try:
        with open(os.devnull, "wb") as nothing:
            for descriptor in (1, 2):
                os.dup2(nothing.fileno(), descriptor)
        yield
    finally:
        # What is still in C's own buffer must go where it was meant to go, which is nowhere.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).fflush(None)
        for descriptor, original in zip((1, 2), kept, strict=True):
            os.dup2(original, descriptor)
            os.close(original)


class StateFolder:
    """A temporary folder of one process; removed by that process, at the latest when this is collected or the process ends."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        try:
            self.path = Path(tempfile.mkdtemp(prefix="uva-block-push-"))
        except OSError as error:
            raise MachineError(
                f"no temporary folder can be made ({error.strerror}): set TMPDIR to one with space"
            ) from error
        self.remove = weakref.finalize(self, _remove, self.path, self.owner)


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not in a forked child
        shutil.rmtree(folder, ignore_errors=True)
