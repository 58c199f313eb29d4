"""Demonstrations of ``uva/ArxX5-v0`` on disk: a script does the twin's tasks."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial as partial_of
from pathlib import Path

import numpy as np

from uva_agents.data.collect.engine import Collected, EpisodeRecorder, collect_episodes

TASKS = ("cup", "reach")
ACTION_MODES = ("absolute", "absolute_vector", "joints")
"""Those that mean the same whatever was observed before."""


@dataclass(frozen=True)
class ArxX5Plan:
    """What is collected. Two plans that differ never share a working folder.

    Attributes:
        episodes: how many; episode i has seed ``seed + i``.
        seed: of the first episode.
        task: ``"cup"`` or ``"reach"``.
        action_mode: of the recorded actions, see :class:`uva_agents.envs.arx_x5.env.ArxX5Env`.
        control_hz: steps per second.
        image_size: side of the wrist camera's pictures.
        realistic: latencies, lost frames and noise as UMI's deployment assumes them, instead of none.
        max_steps: a demonstration that has not succeeded by then ends.
    """

    episodes: int
    seed: int = 0
    task: str = "cup"
    action_mode: str = "absolute"
    control_hz: float = 20.0
    image_size: int = 96
    realistic: bool = False
    max_steps: int = 700

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ValueError(f"episodes={self.episodes}: at least one")
        if self.task not in TASKS:
            raise ValueError(f"task={self.task!r} is unknown: pass {' or '.join(map(repr, TASKS))}")
        if self.action_mode not in ACTION_MODES:
            raise ValueError(f"action_mode={self.action_mode!r}: pass {', '.join(map(repr, ACTION_MODES))}")
        if self.image_size < 1:
            raise ValueError(f"image_size={self.image_size}: a side in pixels")
        if self.max_steps < 1:
            raise ValueError(f"max_steps={self.max_steps}: at least one")
        if not (self.seed >= 0 and self.seed + self.episodes <= 2**32):
            raise ValueError(f"seed={self.seed} is out of range: from 0 to 2**32 - 1")


def collect_arx_x5(
    out: str | Path,
    plan: ArxX5Plan,
    *,
    workers: int = 1,
    only_successful: bool = False,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Collected:
    """Collect ``plan`` into the replay buffer ``out``.

    Rows: ``img`` uint8 (H, W, 3) and ``agent_pos`` float32 (7,) before the action, ``action`` float32 (A,) what the script asked;
    the safety layer may have made it slower. Per episode: ``meta/seed``, ``meta/success``.

    Args:
        workers: processes.
        only_successful: leave the other episodes out of ``out``.
        force: replace ``out``.
        progress: called with (episodes done, all).

    Raises:
        ValueError: ``out`` exists; its working folder belongs to another plan; no episode is left to write.
        ImportError: MuJoCo is not installed.
    """
    return collect_episodes(
        out,
        plan,
        partial_of(_recorder, plan),
        attributes={"env": "uva/ArxX5-v0", "control_hz": plan.control_hz, "task": plan.task},
        workers=workers,
        method="spawn",
        only_successful=only_successful,
        force=force,
        progress=progress,
    )


def record_arx_x5(plan: ArxX5Plan, index: int) -> dict[str, np.ndarray]:
    """Episode ``index`` of ``plan``: arrays of its rows, and ``success`` ()."""
    from uva_agents.envs.arx_x5.env import ArxX5Env
    from uva_agents.envs.arx_x5.twin.realism import IDEAL, REALISTIC

    env = ArxX5Env(
        render_mode=None,
        task=plan.task,
        action_mode=plan.action_mode,
        control_hz=plan.control_hz,
        image_size=plan.image_size,
        realism=REALISTIC if plan.realistic else IDEAL,
    )
    rows: dict[str, list[np.ndarray]] = {"img": [], "agent_pos": [], "action": []}
    with contextlib.closing(env):
        obs, info = env.reset(seed=plan.seed + index)
        for action in env.demonstration():
            action = np.asarray(action, np.float32)
            for name, value in (("img", obs["pixels"]), ("agent_pos", obs["agent_pos"]), ("action", action)):
                rows[name].append(value)
            obs, _, terminated, truncated, info = env.step(action)
            if terminated or truncated or len(rows["action"]) == plan.max_steps:
                break
    return {**{name: np.stack(values) for name, values in rows.items()}, "success": np.array(info["is_success"])}


def _recorder(plan: ArxX5Plan) -> EpisodeRecorder:
    # That the script is slowed down at times is not worth a line each.
    logging.getLogger("uva_agents.envs.arx_x5").setLevel(logging.ERROR)
    return partial_of(record_arx_x5, plan)
