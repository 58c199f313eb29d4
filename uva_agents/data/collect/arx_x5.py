"""Demonstrations of ``uva/ArxX5-v0`` on disk: a script does the twin's tasks."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial as partial_of
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from uva_agents.data.collect.engine import Collected, EpisodeRecorder, collect_episodes
from uva_agents.data.writers.lerobot_names import arx_names, arx_units
from uva_agents.data.writers.zarr import ZARR_NAMES

if TYPE_CHECKING:
    from uva_agents.envs.arx_x5.env import ArxX5Env

INSTRUCTIONS = {"reach": "reach the green ball", "cup": "put the blue cup on the white saucer"}
"""Task -> what to do, in words, as the environment says it."""
TASKS = tuple(INSTRUCTIONS)
CAMERAS = ("wrist", "outside")
LOOKS = ("plain", "varied")
"""Those to train on; there are others, to be tested with."""
ACTION_MODES = ("absolute", "absolute_vector", "joints")
"""Those that mean the same whatever was observed before."""
_STREAM = 0xD157


@dataclass(frozen=True)
class ArxX5Plan:
    """What is collected. Two plans that differ never share a working folder.

    Attributes:
        episodes: how many in all; episode i has seed ``seed + i``.
        seed: of the first episode.
        tasks: ``"reach"``, ``"cup"`` or both, which then take turns.
        action_mode: of the recorded actions, see :class:`uva_agents.envs.arx_x5.env.ArxX5Env`.
        control_hz: steps per second.
        image_size: side of the pictures.
        cameras: ``"outside"``, ``"wrist"`` or both, the main one first.
        looks: ``"varied"`` (colours, light and things around are others in every episode) or ``"plain"``.
        disturbed: share of episodes in which something pushes the arm about; the recorded actions stay the good ones.
        realistic: latencies, lost frames and noise as UMI's deployment assumes them, instead of none.
        max_steps: a demonstration that has not succeeded by then ends.
    """

    episodes: int
    seed: int = 0
    tasks: tuple[str, ...] = TASKS
    action_mode: str = "absolute"
    control_hz: float = 20.0
    image_size: int = 96
    cameras: tuple[str, ...] = ("outside", "wrist")
    looks: str = "varied"
    disturbed: float = 0.5
    realistic: bool = False
    max_steps: int = 700

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ValueError(f"episodes={self.episodes}: at least one")
        for name, known in (("tasks", TASKS), ("cameras", CAMERAS)):
            chosen = getattr(self, name)
            unknown = [value for value in chosen if value not in known]
            if unknown:
                raise ValueError(f"{name}: {unknown[0]!r} is unknown: pass {' or '.join(map(repr, known))}")
            if not chosen or len({*chosen}) < len(chosen):
                raise ValueError(f"{name}={chosen!r}: one at least, and none twice")
        if self.action_mode not in ACTION_MODES:
            raise ValueError(f"action_mode={self.action_mode!r}: pass {', '.join(map(repr, ACTION_MODES))}")
        if self.looks not in LOOKS:
            raise ValueError(f"looks={self.looks!r}: pass {' or '.join(map(repr, LOOKS))}; others are for tests")
        if not 0 <= self.disturbed <= 1:
            raise ValueError(f"disturbed={self.disturbed}: a share of the episodes lies in [0, 1]")
        if self.image_size < 1:
            raise ValueError(f"image_size={self.image_size}: a side in pixels")
        if self.max_steps < 1:
            raise ValueError(f"max_steps={self.max_steps}: at least one")
        if not (self.seed >= 0 and self.seed + self.episodes <= 2**32):
            raise ValueError(f"seed={self.seed} is out of range: from 0 to 2**32 - 1")

    def task(self, index: int) -> str:
        """Of an episode."""
        return self.tasks[index % len(self.tasks)]


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

    Rows: ``img`` uint8 (H, W, 3) of the main camera, ``img_wrist`` or ``pixels_outside`` of the other, and ``agent_pos`` float32
    (7,) before the action; ``action`` float32 (A,) what the script asked; the safety layer may have made it slower, and a
    disturbance something else. Per episode: ``meta/seed``, ``meta/success``, ``meta/disturbed``, and its instruction in the
    attribute ``tasks``. The attributes ``names`` and ``units`` say what the numbers are.

    Args:
        workers: processes.
        only_successful: leave the other episodes out of ``out``.
        force: replace ``out``.
        progress: called with (episodes done, all).

    Raises:
        ValueError: ``out`` exists; its working folder belongs to another plan; no episode is left to write.
        ImportError: MuJoCo is not installed.
    """
    settings = {"env": "uva/ArxX5-v0", "action_mode": plan.action_mode}
    width = ("agent_pos", "action")
    described = {
        **settings,
        "control_hz": plan.control_hz,
        # What an environment is made with that shows and takes the same.
        "env_kwargs": {
            "action_mode": plan.action_mode,
            "control_hz": plan.control_hz,
            "image_size": plan.image_size,
            "cameras": ",".join(plan.cameras),
            "instruction": True,
        },
        "cameras": {ZARR_NAMES.get(key, key): name for key, name in _keys(plan).items()},
        "names": {key: list(value) for key, value in arx_names(settings).items() if key in width},
        "units": {key: list(value) for key, value in arx_units(settings).items() if key in width},
    }
    return collect_episodes(
        out,
        plan,
        partial_of(_recorder, plan),
        attributes=described,
        instruction=lambda index: INSTRUCTIONS[plan.task(index)],
        workers=workers,
        method="spawn",
        only_successful=only_successful,
        force=force,
        progress=progress,
    )


def _keys(plan: ArxX5Plan) -> dict[str, str]:
    """Key of the pictures in an observation -> camera."""
    from uva_agents.envs.arx_x5.observing import camera_keys

    return camera_keys(plan.cameras)


def record_arx_x5(plan: ArxX5Plan, index: int) -> dict[str, np.ndarray]:
    """Episode ``index`` of ``plan``: arrays of its rows, ``success`` () and ``disturbed`` ()."""
    with contextlib.closing(_environment(plan)) as env:
        return _record(plan, env, index)


def _environment(plan: ArxX5Plan) -> ArxX5Env:
    from uva_agents.envs.arx_x5.env import ArxX5Env
    from uva_agents.envs.arx_x5.twin.realism import IDEAL, REALISTIC

    return ArxX5Env(
        render_mode=None,
        action_mode=plan.action_mode,
        control_hz=plan.control_hz,
        image_size=plan.image_size,
        cameras=_keys(plan),
        looks=plan.looks,
        realism=REALISTIC if plan.realistic else IDEAL,
    )


def _record(plan: ArxX5Plan, env: ArxX5Env, index: int) -> dict[str, np.ndarray]:
    from uva_agents.envs.arx_x5.tasks.disturbance import Disturbance

    seed = plan.seed + index
    rng = np.random.default_rng([_STREAM, seed])
    disturbed = bool(rng.random() < plan.disturbed)
    rows: dict[str, list[np.ndarray]] = {}
    obs, info = env.reset(seed=seed, options={"task": plan.task(index)})
    pushes = Disturbance(rng, rate_hz=plan.control_hz) if disturbed else None
    for wanted, executed in env.disturbed_demonstration(pushes):
        row: dict[str, Any] = {**obs, "action": np.asarray(wanted, np.float32)}
        for name, value in row.items():
            rows.setdefault(ZARR_NAMES.get(name, name), []).append(value)
        obs, _, terminated, truncated, info = env.step(executed)
        if terminated or truncated or len(rows["action"]) == plan.max_steps:
            break
    arrays = {name: np.stack(values) for name, values in rows.items()}
    return {**arrays, "success": np.array(info["is_success"]), "disturbed": np.array(disturbed)}


def _recorder(plan: ArxX5Plan) -> EpisodeRecorder:
    # That the script is slowed down at times is not worth a line each.
    logging.getLogger("uva_agents.envs.arx_x5").setLevel(logging.ERROR)
    return partial_of(_record, plan, _environment(plan))
