"""A recorded episode again: its actions, at their times, through the same loop and the same safety layer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uva_agents.realtime.chunk_source import ChunkRequest
from uva_agents.realtime.trajectory import ActionLayout
from uva_agents.utils.files import write_text

_PREFIX = "replay:"
_SPEED, _TURN, _JOINTS = 0.1, 0.4, 0.3
"""Of the way to where the recording begins: m/s (and of the gripper), rad/s, rad/s."""
_STILL_S = 0.5
"""Standing still before that: the loop drops what is late of a chunk, and must not drop any of this one."""


@dataclass(frozen=True, eq=False)
class RecordedActions:
    """An episode's actions.

    Attributes:
        actions: (T, A) that were sent.
        control_hz: of these.
        task: what was to be done.
        settings: of the environment that it was recorded in, where the recording says: ``action_mode`` and others.
    """

    actions: np.ndarray
    control_hz: float
    task: str = ""
    settings: Mapping[str, Any] | None = None

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return len(self.actions) / self.control_hz


def is_replay(agent: str) -> bool:
    """Whether an agent's name means a recording."""
    return agent.startswith(_PREFIX)


def open_recording(agent: str) -> RecordedActions:
    """``replay:FOLDER#EPISODE`` or ``FOLDER#EPISODE``; without a number, the last episode. Any dataset with actions.

    Raises:
        FileNotFoundError: no such dataset.
        ValueError: no such episode, no actions, or no rate.
    """
    from uva_agents.data import open_dataset

    text = agent.removeprefix(_PREFIX)
    found = re.fullmatch(r"(.+?)(?:#(-?\d+))?", text)
    if found is None:
        raise ValueError(f"{agent!r}: write replay:FOLDER#EPISODE")
    path, number = Path(found[1]), int(found[2] or -1)
    data = open_dataset(path)
    if not -len(data) <= number < len(data):
        raise ValueError(f"{path} has episodes 0 to {len(data) - 1}, not {number}")
    number %= len(data)
    if "action" not in data.arrays:
        raise ValueError(f"{path} has no actions to replay")
    if data.control_hz is None:
        raise ValueError(f"{path} does not say its control rate")
    rows = slice(int(data.starts[number]), int(data.ends[number]))
    actions = np.asarray(data.arrays["action"][rows], np.float64)
    return RecordedActions(actions, data.control_hz, data.tasks[number] if data.tasks else "", read_settings(path))


def approach(here: np.ndarray, there: np.ndarray, *, dt: float, layout: ActionLayout) -> np.ndarray:
    """Slowly from one action (A,) to another: (n, A), the first half a second of it standing still."""
    from uva_agents.realtime.trajectory import rotation_between

    turning, turns = rotation_between(here, there, layout)
    moves = np.abs(there - here)[~turning]
    # Positions where something turns; joints where nothing does. The gripper's metres are few either way.
    speed = _SPEED if layout.rotations else _JOINTS
    seconds = max(float(moves.max(initial=0.0)) / speed, turns / _TURN)
    still = np.repeat(here[None], max(1, round(_STILL_S / dt)), axis=0)
    steps = int(np.ceil(seconds / dt))
    if steps == 0:
        return still
    share = np.arange(1, steps + 1) / steps
    return np.concatenate([still, layout.mix(np.repeat(here[None], steps, 0), np.repeat(there[None], steps, 0), share)])


class ReplayChunkSource:
    """Answers the first request with the way to the beginning and the whole recording, and the next ones with an empty chunk.

    Args:
        recording: what to do again.
        stay: the action that keeps the arm where it is.
        layout: of an action.
    """

    def __init__(
        self, recording: RecordedActions, stay: Callable[[Mapping[str, Any]], np.ndarray | None], layout: ActionLayout
    ) -> None:
        self._recording, self._stay, self._layout = recording, stay, layout

    def __call__(self, request: ChunkRequest) -> np.ndarray:
        """Chunk (T, A) in environment units, (0, A) after the first.

        Raises:
            ValueError: the recording's actions are not those of the environment.
        """
        actions = self._recording.actions
        if request.number:
            return np.zeros((0, actions.shape[1]))
        here = self._stay(request.obs)
        if here is None:
            return actions
        if here.shape != actions.shape[1:]:
            raise ValueError(
                f"the recording has actions of {actions.shape[1]} numbers, the environment takes {len(here)}"
            )
        way = approach(here, actions[0], dt=1 / self._recording.control_hz, layout=self._layout)
        return np.concatenate([way, actions])


def write_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Beside a dataset's own files: in which environment it was recorded. Whole or not at all."""
    write_text(folder / "meta" / "recording.json", json.dumps(dict(settings), indent=1, default=str))


def read_settings(folder: Path) -> dict[str, Any] | None:
    """What :func:`write_settings` wrote, if it did."""
    path = folder / "meta" / "recording.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8"))
    return found if isinstance(found, dict) else None
