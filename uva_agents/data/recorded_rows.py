"""What a dataset's rows are to an environment that replays them: observations, bounds of actions, and how far two are apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np

from uva_agents.data.conventions import AbsolutePoses, RotationName
from uva_agents.data.episodes import Episodes
from uva_agents.data.meaning import meaning
from uva_agents.data.readers.dataset import Dataset
from uva_agents.errors import DataError, InputError

_TASK_VECTOR = "task_embedding"


def require_arrays(dataset: Dataset) -> None:
    """Raise a DataError, with what there is, where a dataset has no camera or no actions."""
    for name in ("pixels", "action"):
        if name not in dataset.arrays:
            found = ", ".join(f"{key} {value.shape[1:]}" for key, value in dataset.arrays.items())
            raise DataError(
                f"{dataset.path} has no {name!r}, it has {found}: say which it is, fields={{{name!r}: KEY}}"
            )


def observed_arrays(dataset: Dataset, origins: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Canonical name -> rows of what is in an observation; frames still on disk.

    Args:
        origins: of arrays that somebody named; where there are cameras among them, there are no others.

    Raises:
        DataError: numbers that are not finite, frames that are none.
    """
    named = [name for name in origins if name.startswith("pixels")]
    cameras = [name for name in dataset.cameras if name in (named or dataset.cameras)]
    numbers = [name for name in ("agent_pos", _TASK_VECTOR) if name in dataset.arrays]
    numbers += [name for name in origins if not name.startswith("pixels") and name not in ("action", *numbers)]
    used = {name: dataset.arrays[name] for name in (*cameras, *numbers, "action")}
    Episodes(used, dataset.ends, source=str(dataset.path), numbers=dataset.numbers)  # checks them
    rows = {name: dataset.arrays[name].reshape(len(dataset.arrays[name]), -1).astype(np.float32) for name in numbers}
    return {**{name: dataset.arrays[name] for name in cameras}, **rows}


def space_of(name: str, values: np.ndarray) -> gym.spaces.Box:
    """Of an array's rows."""
    if name.startswith("pixels"):
        return gym.spaces.Box(0, 255, values.shape[1:], np.uint8)
    low, high = values.min(0), values.max(0)
    return gym.spaces.Box(low, np.where(high > low, high, low + 1).astype(np.float32), dtype=np.float32)


def rotation_of(dataset: Dataset) -> RotationName | None:
    """Form of the rotation in an action, where its numbers are named as those of a pose."""
    return meaning(dataset.names.get("action", ()), dataset.arrays["action"]).rotation


def recorded_bounds(dataset: Dataset, rotation: RotationName | None) -> tuple[np.ndarray, np.ndarray]:
    """(A,) each: of everything recorded, and of rotations what their form can reach, as weights trained on it have them."""
    actions = dataset.arrays["action"].reshape(len(dataset.arrays["action"]), -1).astype(np.float64)
    low, high = np.nanmin(actions, 0), np.nanmax(actions, 0)
    if rotation is not None:
        for column, limits in AbsolutePoses(environment=rotation).environment_limits().items():
            low[column], high[column] = limits
    return low, high


def given_bounds(limits: Any, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(width,) each.

    Raises:
        InputError: ``limits`` are no (low, high).
    """
    try:
        low, high = (np.broadcast_to(np.asarray(one, np.float64), width).copy() for one in limits)
        if not (np.isfinite(low).all() and np.isfinite(high).all() and (low <= high).all()):
            raise ValueError("they must be finite, low before high")
    except (TypeError, ValueError) as error:
        raise InputError(f"limits={limits!r:.200} are no (low, high) of these actions: {error}") from error
    return low, high


def equivalent_actions(action: np.ndarray, rotation: RotationName | None) -> list[np.ndarray]:
    """An action, and the other way to write its rotation: a turn the other way round, or all four numbers of the other sign."""
    if rotation == "quaternion":
        other = action.copy()
        other[3:7] *= -1
        return [action, other]
    if rotation == "vector":
        angle = float(np.linalg.norm(action[3:6]))
        if angle > 1e-6:
            other = action.copy()
            other[3:6] *= 1 - 2 * np.pi / angle
            return [action, other]
    return [action]
