"""Held-out recordings of the arm's wrist camera, and the twin that executes their actions again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.data import held_out_split, open_dataset
from uva_agents.data.readers.dataset import Dataset
from uva_agents.envs.arx_x5.arm.poses import tool_axes
from uva_agents.envs.arx_x5.observing import camera_keys
from uva_agents.errors import DataError
from uva_agents.training.layout import held_out_count
from uva_agents.utils.rotations import ROTATION_FORMS, pose_matrix

_FORMS = {10: ROTATION_FORMS["rot6d"], 7: ROTATION_FORMS["vector"]}
"""Numbers of an action -> how its rotation is written."""


@dataclass(frozen=True, eq=False)
class ArmRecording:
    """One episode of N steps.

    Attributes:
        videos: camera -> uint8 (N, H, W, 3).
        actions: (N, A) poses of the tool and openings of the gripper, base frame.
        reached: (N, 4, 4) where the tool was when each picture was taken, in the axes of ``actions``.
        environment: options of the environment that it was recorded in.
        seed: of its reset, ``None`` where that is not known.
        task: its instruction.
        disturbed: something else than ``actions`` was executed.
    """

    videos: Mapping[str, np.ndarray]
    actions: np.ndarray
    reached: np.ndarray
    environment: Mapping[str, Any]
    seed: int | None = None
    task: str = ""
    disturbed: bool = False

    def __len__(self) -> int:
        return len(self.actions)

    def video(self, camera: str) -> np.ndarray:
        """uint8 (N, H, W, 3).

        Raises:
            DataError: it was not recorded.
        """
        if camera not in self.videos:
            raise DataError(f"the {camera} camera was not recorded, only the {' and '.join(self.videos)} one")
        return self.videos[camera]

    def in_sdk_axes(self, poses: np.ndarray) -> np.ndarray:
        """Poses (..., 4, 4) of :attr:`reached` with the tool's axes as the SDK has them."""
        return np.asarray(poses @ _turn(self._axes.T))

    def in_own_axes(self, poses: np.ndarray) -> np.ndarray:
        """Inverse of :meth:`in_sdk_axes`."""
        return np.asarray(poses @ _turn(self._axes))

    @property
    def _axes(self) -> np.ndarray:
        return tool_axes(str(self.environment.get("tool_frame", "umi")))


def arm_recordings(path: Path, held_out: int | None = None) -> list[ArmRecording]:
    """The episodes that training keeps from its networks, of what ``uva data collect arx-x5`` wrote.

    Raises:
        FileNotFoundError: no data there.
        DataError: no pictures, no poses, or only one episode.
    """
    dataset = open_dataset(path)
    environment = dataset.beside.get("attributes/env_kwargs") or {}
    keys = _keys(dataset, environment)
    for name in ("action", "agent_pos"):
        if name not in dataset.arrays:
            raise DataError(f"{path} has no {name}: recordings of the arm have poses and actions")
    width = dataset.arrays["action"].shape[-1]
    if width not in _FORMS or environment.get("action_mode") == "joints":
        raise DataError(
            f"{path}: actions of {width} numbers are no poses of a tool: collect them with --action-mode absolute"
        )
    count = held_out_count(len(dataset)) if held_out is None else held_out
    if not 0 < count < len(dataset):
        raise DataError(f"{path}: {count} of {len(dataset)} episodes cannot be held out")
    seeds, disturbed = dataset.beside.get("meta/seed"), dataset.beside.get("meta/disturbed")
    found = []
    for index in held_out_split(len(dataset), count, seed=42)[1]:
        rows = slice(int(dataset.starts[index]), int(dataset.ends[index]))
        if rows.stop - rows.start < 2:
            continue
        found.append(
            ArmRecording(
                {camera: np.asarray(dataset.arrays[key][rows]) for camera, key in keys.items()},
                np.asarray(dataset.arrays["action"][rows]),
                pose_matrix(np.asarray(dataset.arrays["agent_pos"][rows])[:, :6]),
                environment,
                None if seeds is None else int(seeds[index]),
                "" if dataset.tasks is None else dataset.tasks[index],
                disturbed is not None and bool(disturbed[index]),
            )
        )
    return found


def _keys(dataset: Dataset, environment: Mapping[str, Any]) -> dict[str, str]:
    """Camera -> name of the array with its pictures; the wrist's is among them."""
    asked = camera_keys(environment.get("cameras", "outside,wrist" if "pixels_wrist" in dataset.arrays else "wrist"))
    keys = {camera: key for key, camera in asked.items() if key in dataset.arrays}
    if "wrist" not in keys:
        found = ", ".join(dataset.cameras) or "none"
        raise DataError(f"{dataset.path} has no wrist camera; its pictures are {found}")
    return keys


def poses_of(actions: np.ndarray) -> np.ndarray:
    """(n, A) -> (n, 4, 4)."""
    return _FORMS[actions.shape[-1]].pose_matrix(actions)


def actions_of(poses: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Poses (n, 4, 4) in the form of actions (n, A), with the gripper of ``like``."""
    return np.concatenate([_FORMS[like.shape[-1]].pose(poses), like[:, -1:]], axis=-1)


class ReplayedArm:
    """The twin, which executes actions from where a recording began.

    Args:
        environment: its options.
        tasks: instruction -> task.
    """

    def __init__(self, environment: Mapping[str, Any], tasks: Mapping[str, str]) -> None:
        from uva_agents.envs.arx_x5.env import ArxX5Env

        options = {
            key: value for key, value in environment.items() if key not in ("image_size", "instruction", "cameras")
        }
        self._env = ArxX5Env(render_mode=None, render_observations=False, **options)
        self._tasks = tasks

    @classmethod
    def of(cls, recordings: Sequence[ArmRecording]) -> ReplayedArm | None:
        """For these; ``None`` where they do not say how they began."""
        from uva_agents.data.collect.arx_x5 import INSTRUCTIONS

        tasks = {instruction: task for task, instruction in INSTRUCTIONS.items()}
        if not recordings or any(r.seed is None or r.task not in tasks or not r.environment for r in recordings):
            return None
        return cls(recordings[0].environment, tasks)

    def replay(self, recording: ArmRecording, actions: np.ndarray) -> np.ndarray:
        """Where the tool is after each of ``actions`` (n, A): (n, 4, 4), fewer where the task is done earlier."""
        env = self._env
        env.reset(seed=recording.seed, options={"task": self._tasks[recording.task]})
        went = []
        for action in actions:
            obs, _, terminated, truncated, _ = env.step(action)
            went.append(pose_matrix(obs["agent_pos"][:6]))
            if terminated or truncated:
                break
        return np.array(went)

    def close(self) -> None:
        """End the simulation."""
        self._env.close()


def _turn(rotation: np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation
    return matrix
