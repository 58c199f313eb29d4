"""Demonstrations of ``uva/BlockPush-v0`` on disk: by a script, or by replaying recorded actions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial as partial_of
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import zarr

from uva_agents.data.collect.engine import Collected, EpisodeRecorder, collect_episodes

if TYPE_CHECKING:
    from uva_agents.envs.block_push import BlockPushEnv, Oracle, Pusher

Info = dict[str, Any]

DEMONSTRATORS = ("oracle", "pusher")
STATE_NAMES = (
    *("effector_x", "effector_y"),
    *("red_block_x", "red_block_y", "red_block_yaw"),
    *("green_block_x", "green_block_y", "green_block_yaw"),
    *("target_x", "target_y"),
    *("green_square_x", "green_square_y", "green_square_yaw"),
    *("red_square_x", "red_square_y", "red_square_yaw"),
)
"""Columns of the collected ``state``: metres and radians, yaws in [0, pi)."""
CONTROL_HZ = 10
"""Steps per second of the environment."""
_ASIDE = 0.015
"""Standard deviation of the steps of a shove, per axis, metres."""
_STEP, _TABLE = 0.03, ((0.2, -0.35), (0.6, 0.35))
"""Longest step to somewhere else, and where that is, metres."""
_DECISIONS, _EXECUTED = 8, 6
"""At most so many decisions of a policy that drives, and actions of each."""
_FROM_ENV = [6, 7, *range(6), *range(8, 16)]


class ChunkPolicy(Protocol):
    """A policy that proposes chunks of commanded points."""

    def sample(self, obs: Any, n: int, *, seed: int | None = None) -> np.ndarray:
        """(n, T, 2), metres."""
        ...


@dataclass(frozen=True)
class BlockPushPlan:
    """What is collected. Two plans that differ never share a working folder.

    Attributes:
        episodes: how many; episode i has seed ``seed + i``.
        seed: of the first episode.
        demonstrator: ``"oracle"``, the published script; ``"pusher"``, which looks at positions only and recovers, see
            :class:`uva_agents.envs.block_push.Pusher`.
        noise: standard deviation of what is added to every step of the demonstrator, metres. The pusher needs some.
        disturbed: share of episodes that begin later than the seed's start: the demonstrator works for up to 100 steps, something
            moves its pusher elsewhere, through whatever is in the way, and only then does the record begin. Half of these end
            up near a block, mostly the one that was pushed, the others anywhere on the table or a few steps aside.
        policy: name of the weights that drive the pusher for a while in disturbed episodes, instead of something that moves it, see
            :func:`collect_block_push`. What the demonstrator then corrects are the policy's own mistakes (DAgger, Ross et al.
            2011, with whole episodes from there on).
        replay: a replay buffer whose relative ``data/action`` are executed instead of a script's; ``seed`` is that of
            its first episode, 0 for the published one.
        image_size: side of the pictures; 0 for none, which takes less than half the time.
        camera: see :class:`uva_agents.envs.block_push.BlockPushEnv`.
        max_steps: a demonstrator that has not succeeded by then is stopped.
    """

    episodes: int
    seed: int = 0
    demonstrator: str = "oracle"
    noise: float = 0.0
    disturbed: float = 0.0
    policy: str | None = None
    replay: str | None = None
    image_size: int = 96
    camera: str = "workspace"
    max_steps: int = 350

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ValueError(f"episodes={self.episodes}: at least one")
        if self.noise < 0:
            raise ValueError(f"noise={self.noise}: a standard deviation in metres is not negative")
        if self.demonstrator not in DEMONSTRATORS:
            raise ValueError(
                f"demonstrator={self.demonstrator!r} is unknown: pass {' or '.join(map(repr, DEMONSTRATORS))}"
            )
        if not 0 <= self.disturbed <= 1:
            raise ValueError(f"disturbed={self.disturbed}: a share of the episodes lies in [0, 1]")
        if (self.noise or self.disturbed) and self.replay:
            raise ValueError("a replay executes what was recorded: noise and disturbances are for demonstrators")
        if self.policy is not None and not self.disturbed:
            raise ValueError("a policy drives in disturbed episodes: give disturbed above 0")
        if self.image_size < 0:
            raise ValueError(f"image_size={self.image_size}: a side in pixels, or 0 for no pictures")
        if self.max_steps < 1:
            raise ValueError(f"max_steps={self.max_steps}: at least one")
        if not (self.seed >= 0 and self.seed + self.episodes <= 2**32):
            raise ValueError(f"seed={self.seed} is out of range: BlockPush seeds go from 0 to 2**32 - 1")


def recorded_ends(path: str | Path) -> np.ndarray:
    """``meta/episode_ends`` of recorded actions.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: it has no two-dimensional relative actions with episode ends.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"no recording at {path}")
    try:
        root = zarr.open_group(str(path), mode="r")
        ends, actions = np.asarray(root["meta/episode_ends"]), root["data/action"]
    except Exception as error:  # zarr raises several unrelated types
        raise ValueError(f"{path} is no replay buffer with data/action and meta/episode_ends: {error}") from error
    if (
        not isinstance(actions, zarr.Array)
        or actions.shape[1:] != (2,)
        or not len(ends)
        or ends[-1] != actions.shape[0]
    ):
        raise ValueError(f"{path}: data/action must be (N, 2) with N the last of meta/episode_ends")
    if np.abs(np.asarray(actions[: ends[0]])).max() > 0.1:
        raise ValueError(f"{path} holds absolute actions: a replay needs changes of the pusher's target, in metres")
    return ends


def collect_block_push(
    out: str | Path,
    plan: BlockPushPlan,
    *,
    driver: Callable[[], ChunkPolicy] | None = None,
    workers: int = 1,
    only_successful: bool = False,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Collected:
    """Collect ``plan`` into the replay buffer ``out``.

    Rows: ``img`` uint8 (H, W, 3) before the action (with pictures), ``action`` float32 (2,) the commanded target, metres, clipped
    to the table; ``state`` float32 (16,) before the action, see :data:`STATE_NAMES`. Per episode: ``meta/seed``, ``meta/success``.
    A script's episode ends, like the published ones, with the moment after success and one more action.

    Args:
        driver: makes the policy of ``plan.policy``, in every process.
        workers: processes.
        only_successful: leave the other episodes out of ``out``.
        force: replace ``out``.
        progress: called with (episodes done, all).

    Raises:
        ValueError: ``out`` exists; a plan with a policy and no driver, or the reverse; its working folder belongs to another
            plan; no episode is left to write.
        ImportError: PyBullet is not installed.
    """
    if (plan.policy is None) != (driver is None):
        raise ValueError("policy= in the plan and driver= belong together")
    if plan.replay is not None and plan.episodes > (found := len(recorded_ends(plan.replay))):
        raise ValueError(f"{plan.replay} has {found} episodes, not {plan.episodes}")
    attributes = {"env": "uva/BlockPush-v0", "control_hz": CONTROL_HZ, "state": list(STATE_NAMES)}
    return collect_episodes(
        out,
        plan,
        partial_of(_recorder, plan, driver),
        attributes=attributes,
        workers=workers,
        only_successful=only_successful,
        force=force,
        progress=progress,
    )


def record_block_push(plan: BlockPushPlan, index: int, driver: ChunkPolicy | None = None) -> dict[str, np.ndarray]:
    """Episode ``index`` of ``plan``: arrays of its rows, and ``success`` (). ``driver`` is the plan's policy."""
    from uva_agents.envs.block_push import BlockPushEnv, Oracle, Pusher, order_of_seed

    seed = plan.seed + index
    replayed = None if plan.replay is None else _recorded_actions(plan.replay, index)
    env = BlockPushEnv(
        action_mode="absolute" if replayed is None else "relative",
        image_size=plan.image_size or 96,
        camera=plan.camera,
        render_observations=False,
    )
    with contextlib.closing(env):
        _, info = env.reset(seed=seed)
        script = Oracle if plan.demonstrator == "oracle" else Pusher
        demonstrator = script(order_of_seed(seed), noise=plan.noise, seed=seed)
        rng = np.random.default_rng([seed, 1])
        if rng.random() < plan.disturbed:
            info = _disturb(env, demonstrator, info, rng, driver)
            if isinstance(demonstrator, Pusher):
                demonstrator.decide(info["state"])
            if info["is_success"]:  # it was over before it began
                _, info = env.reset(seed=seed)
                demonstrator = script(order_of_seed(seed), noise=plan.noise, seed=seed)
        images, states, actions = [], [], []
        length = plan.max_steps + 1 if replayed is None else len(replayed)
        for t in range(length):
            over = info["is_success"]
            if plan.image_size:
                images.append(env.observe()["pixels"])
            states.append(info["state"][_FROM_ENV])
            # Rounded before it is executed, so that what is stored leads to what is stored.
            action = demonstrator.act(info["state"]).astype(np.float32) if replayed is None else replayed[t]
            *_, info = env.step(action)
            actions.append(info["state"][8:10])
            if over and replayed is None:
                break
    return {
        **({"img": np.stack(images)} if images else {}),
        "action": np.array(actions, np.float32),
        "state": np.array(states, np.float32),
        "success": np.array(info["p2"]),
    }


def _disturb(
    env: BlockPushEnv, demonstrator: Oracle | Pusher, info: Info, rng: np.random.Generator, driver: ChunkPolicy | None
) -> Info:
    """Let the demonstrator work for a while, then move its pusher elsewhere, or let a policy; returns the last info."""
    for _ in range(int(rng.integers(0, 100 if driver is None else 60))):
        if info["is_success"]:
            return info
        *_, info = env.step(demonstrator.act(info["state"]))
    if driver is not None:
        seed = int(rng.integers(2**31))
        for decision in range(int(rng.integers(1, _DECISIONS + 1))):
            for action in driver.sample(env.observe(), n=1, seed=seed + decision)[0, :_EXECUTED]:
                if not info["is_success"]:
                    *_, info = env.step(action)
        return info
    here, kind = info["state"][8:10], rng.random()
    if kind < 0.25:
        goal = here + rng.normal(0.0, _ASIDE, 2) * int(rng.integers(2, 7))
    elif kind < 0.45:
        goal = rng.uniform(*_TABLE)
    else:
        block = demonstrator.block if rng.random() < 0.75 else 1 - demonstrator.block
        distance, angle = rng.uniform(0.02, 0.12), rng.uniform(0, 2 * np.pi)
        goal = info["state"][3 * block : 3 * block + 2] + distance * np.array([np.cos(angle), np.sin(angle)])
    return _move(env, info, goal)


def _move(env: BlockPushEnv, info: Info, goal: np.ndarray) -> Info:
    """The pusher in a straight line to ``goal`` (2,), metres."""
    way = goal - info["state"][8:10]
    steps = max(1, int(np.ceil(np.linalg.norm(way) / _STEP)))
    for _ in range(steps):
        *_, info = env.step(info["state"][8:10] + way / steps)
    return info


def _recorded_actions(path: str, index: int) -> np.ndarray:
    ends = recorded_ends(path)
    start = 0 if index == 0 else int(ends[index - 1])
    return np.asarray(zarr.open_group(path, mode="r")["data/action"][start : int(ends[index])])  # type: ignore[index]


def _recorder(plan: BlockPushPlan, make_driver: Callable[[], ChunkPolicy] | None) -> EpisodeRecorder:
    driver = None if make_driver is None else make_driver()
    return lambda index: record_block_push(plan, index, driver)
