"""Every registered environment, and what the tests of all of them share."""

import dataclasses
import importlib.util
import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import uva_agents.envs

EXTRAS = {
    "BlockPush": ("pybullet", "block-push"),
    "ToolHang": ("robosuite", "toolhang"),
    "Libero": ("libero", "libero"),
    "ArxX5": ("mujoco", "arx"),
}
"""What an id holds -> the module that it cannot do without, and the extra that installs it."""
HEAVY = ("ToolHang", "Libero")
"""Seconds per reset: their tests are long ones; what they say is tested in small with each environment."""
IDS = sorted(name for name in gym.registry if name.startswith("uva/") and name != uva_agents.envs.RECORDED)
"""All that can be made without an argument; recorded episodes need a dataset, and have a file of tests to themselves."""


def cases(ids: list[str] = IDS) -> list[Any]:
    return [pytest.param(n, marks=pytest.mark.long) if any(h in n for h in HEAVY) else n for n in ids]


def make(env_id: str, **options: Any) -> gym.Env[Any, Any]:
    for part, (module, extra) in EXTRAS.items():
        if part in env_id and importlib.util.find_spec(module) is None:
            pytest.skip(f"{env_id} needs {module}: pip install 'uva-agents[{extra}]'")
    return gym.make(env_id, **options)


def reset_environment(env_id: str) -> Iterator[gym.Env[Any, Any]]:
    """For fixtures: one for all tests of a file, in its first episode."""
    made = make(env_id)
    made.action_space.seed(0)
    made.reset(seed=0)
    yield made
    made.close()


def known_options(env: gym.Env[Any, Any]) -> tuple[str, ...]:
    names = {
        "uva/BlockPush-v0": ("assignment",),
        "uva/Libero10-v0": ("task_id", "initial_states", "initial_state", "wait_steps"),
        "uva/ToolHang-v0": (),
        "uva/ArxX5-v0": ("home", "release_stop"),
    }
    own: Any = env.unwrapped
    known: tuple[str, ...] = names.get(env.spec.id) or getattr(own, "_options", ())
    return known


def argument_names(env: gym.Env[Any, Any]) -> list[str]:
    return list(inspect.signature(type(env.unwrapped).__init__).parameters)


def values(observation: dict[str, Any]) -> list[Any]:
    return [observation[key] for key in sorted(observation)]


def flat(thing: Any) -> Any:
    """Comparable: what is nested, with arrays as bytes."""
    if isinstance(thing, np.ndarray):
        return thing.shape, thing.tobytes()
    if isinstance(thing, dict):
        return {key: flat(value) for key, value in thing.items()}
    if isinstance(thing, tuple | list):
        return [flat(value) for value in thing]
    if dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        return [flat(getattr(thing, field.name)) for field in dataclasses.fields(thing)]
    return thing


def moment(state: Any) -> Any:
    """Comparable. PyBullet does not write what it has read as it had written it before, though it goes on alike."""
    kept = [
        name
        for name in state.__dataclass_fields__
        if "BlockPush" not in type(state).__name__ or name not in ("physics", "stamp")
    ]
    return [flat(getattr(state, name)) for name in kept]


def changed(value: Any) -> Iterator[Any]:
    """Values that are like ``value`` and not it."""
    yield "x"
    if value is not None:
        yield None
    if isinstance(value, bytes):
        middle = len(value) // 2
        yield value[:middle] + bytes([value[middle] ^ 1]) + value[middle + 1 :]
        yield value[:-1]
        yield value + b"\0" * 8
        yield b""
        yield b"\0" * len(value)
        yield np.full(len(value) // 8, np.nan).tobytes()
        yield np.full(len(value) // 8, 1e30).tobytes()
    elif isinstance(value, float):
        yield from (float("nan"), 1e30, value + 1e-9, float("-inf"), [value])
    elif isinstance(value, tuple) and value and isinstance(value[0], float):
        yield from (
            value[:3] if len(value) > 3 else value[:1],
            (float("nan"), *value[1:]),
            (1e30, *value[1:]),
            (*value, 0.0),
            (),
        )
    elif isinstance(value, tuple) and value:
        yield from (value[1:], (*value, value[-1]), ((float("nan"), 1.0), *value[1:]), (*value[:-1], None))
    elif isinstance(value, int):
        yield from (value + 1, -1, 10**6)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            for other in list(changed(getattr(value, field.name)))[:4]:
                yield dataclasses.replace(value, **{field.name: other})


def resident() -> int:
    """Bytes of this process in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
