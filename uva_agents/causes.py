"""Whose fault an error is: what the command line answers to it with, in one line and a status. See :mod:`uva_agents.errors`.

| status | cause | errors |
|---|---|---|
| 1 | the command found a problem, or an episode failed | none, ``EvaluationError``, or ``AgentError`` |
| 2 | what was asked for | ``InputError``, other ``ValueError``, ``FileNotFoundError``, unknown environments, ``DriverError`` |
| 3 | data or weights | ``DataError``, ``WeightsError``, ``NotFiniteError``, text that is not UTF-8 |
| 4 | the machine | ``MachineError``, other ``OSError``, ``ConnectionError``, ``MemoryError``, a library that is not installed |
| 70 | a mistake in this package | everything else; only these show a traceback |
| 130, 143 | Ctrl-C, SIGTERM | |
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from uva_agents.errors import UVAError

BUG = 70

_EXTRAS = {
    "pybullet": "block-push",
    "h5py": "data",
    "pyarrow": "data",
    "imagecodecs": "data",
    "robosuite": "toolhang",
    "mujoco": "arx",
    "arx5_interface": "arx",
    "libero": "libero",
    "websockets": "serve",
    "msgpack": "serve",
    "tensorboard": "train",
    "stable_baselines3": "sb3",
    "transformers": "text",
}


@dataclass(frozen=True, slots=True)
class Cause:
    """The status that a command ends with, and the line that it says."""

    status: int
    line: str


def cause_of(error: BaseException) -> Cause | None:
    """What an error comes from; ``None`` where it can only be a mistake in this package."""
    status = _status(error)
    return None if status is None else Cause(status, _line(error))


def _status(error: BaseException) -> int | None:
    if isinstance(error, UVAError):
        return error.exit_status
    if isinstance(error, UnicodeError):
        return 3
    if isinstance(error, ValueError | FileNotFoundError):
        return 2
    if isinstance(error, OSError | MemoryError):
        return 4
    if isinstance(error, ImportError):
        # One of our own modules that is missing is a broken package.
        return None if (error.name or "").partition(".")[0] == "uva_agents" else 4
    return _status_of_libraries(error)


def _status_of_libraries(error: BaseException) -> int | None:
    """Errors of classes that need not be imported: one cannot have been raised if its module has not been."""
    from gymnasium import error as gym

    if isinstance(error, gym.UnregisteredEnv | gym.DeprecatedEnv):
        return 2
    if isinstance(error, gym.DependencyNotInstalled):
        return 4
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return 4
    interface = sys.modules.get("uva_agents.envs.arx_x5.arm.interface")
    if interface is not None and isinstance(error, interface.DriverError):
        return 2
    return None


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    if isinstance(error, UVAError):
        return text or type(error).__name__
    if isinstance(error, OSError) and error.strerror:
        # "[Errno 13] Permission denied: 'x'" names what, but the number says nothing.
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return f"{' and '.join(names)}: {error.strerror}" if names else error.strerror
    if isinstance(error, ModuleNotFoundError) and error.name is not None and "pip install" not in text:
        extra = _EXTRAS.get(error.name.partition(".")[0])
        return f"{error.name} is not installed" + (f": pip install 'uva-agents[{extra}]'" if extra else "")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return f"the memory is not enough: {text}" if text else "the memory is not enough"
    return text or type(error).__name__
