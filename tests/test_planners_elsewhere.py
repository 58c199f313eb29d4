"""Planners in an environment that they were not written for: a puck on ice, seen from above, pushed by its two thrusters."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import uva_agents as uva
from uva_agents.agents import Rollout
from uva_agents.planners import (
    CEM,
    MPPI,
    GaussianProposals,
    GoalImage,
    RandomWalk,
    SamplingPlanner,
    SimulatorModel,
    StateCost,
    UniformProposals,
)

GOAL = np.array([20.0, 28.0])


class Puck(gym.Env[Any, np.ndarray]):
    """Actions are accelerations, of another range along each axis; what is observed is a picture that is not square.

    Args:
        shown: key of the picture; ``None`` for an observation that is the picture.
    """

    metadata = {"render_modes": [], "render_fps": 5}  # noqa: RUF012

    def __init__(self, shown: str | None = "pixels", bound: float = 1.0, dtype: Any = np.float32) -> None:
        picture = gym.spaces.Box(0, 255, (40, 56, 3), np.uint8)
        self.shown = shown
        self.observation_space = picture if shown is None else gym.spaces.Dict({shown: picture})
        high = np.array([bound, 2 * bound], dtype)
        self.action_space = gym.spaces.Box(-high, high, dtype=dtype)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.speed = self.np_random.uniform(5, 35, 2), np.zeros(2)
        return self.observe(), {"is_success": False}

    def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert np.shape(action) == (2,) and self.action_space.dtype is not None
        self.speed = np.clip(self.speed + action, -3, 3)
        self.place = np.clip(self.place + self.speed, 3, 36)
        success = bool(np.linalg.norm(self.place - GOAL) < 3)
        return self.observe(), float(success), success, False, {"is_success": success}

    def observe(self) -> Any:
        picture = np.zeros((40, 56, 3), np.uint8)
        y, x = self.place.astype(int)
        picture[y - 2 : y + 3, x - 2 : x + 3] = 255
        return picture if self.shown is None else {self.shown: picture}

    def get_state(self) -> Any:
        return self.place.copy(), self.speed.copy()

    def set_state(self, state: Any) -> None:
        self.place, self.speed = state[0].copy(), state[1].copy()


def far(rollout: Rollout) -> np.ndarray:
    """How far the bright spot ends from the goal, read from the last frame."""
    light = rollout.frames[:, -1, ..., 0].astype(float)
    mass = light.sum((1, 2))
    place = np.stack([light.sum(2) @ np.arange(40), light.sum(1) @ np.arange(56)], -1) / mass[:, None]
    return np.asarray(np.linalg.norm(place - GOAL, axis=1))


def reached(kind: Any, env: Puck, seed: int = 1, **options: Any) -> bool:
    """Whether an episode of at most 20 steps succeeds."""
    limited: gym.Env[Any, np.ndarray] = gym.wrappers.TimeLimit(env, 20)
    obs, _ = limited.reset(seed=seed)
    defaults: dict[str, Any] = {"dynamics": SimulatorModel(limited), "objective": far, "n_samples": 32, "execute": 2}
    planner = kind(**defaults | options)
    planner.reset(seed=0)
    over = False
    while not over:
        action = planner.act(obs)
        assert limited.action_space.contains(action.astype(limited.action_space.dtype))
        obs, _, success, truncated, _ = limited.step(action)
        over = success or truncated
    return success


@pytest.mark.parametrize(("kind", "more"), [(SamplingPlanner, {}), (CEM, {"iterations": 3}), (MPPI, {"iterations": 3})])
@pytest.mark.parametrize("horizon", [8, 16])
def test_the_puck_is_brought_to_the_goal(kind: Any, more: dict[str, Any], horizon: int) -> None:
    assert reached(kind, Puck(), horizon=horizon, tail="zero", **more)


@pytest.mark.parametrize("shown", ["pixels", "camera_top", None])
def test_pictures_may_have_any_key_or_be_the_observation(shown: str | None) -> None:
    env = Puck(shown)
    dynamics = SimulatorModel(env, frame_stride=2, image_key=shown or "pixels")
    assert reached(CEM, env, dynamics=dynamics, iterations=2)
    env.place = GOAL.copy()
    picture = env.observe() if shown is None else env.observe()[shown]
    assert reached(CEM, env, dynamics=dynamics, objective=GoalImage(picture, frames=None), iterations=2, horizon=6)


def test_a_picture_under_another_key_is_asked_for() -> None:
    with pytest.raises(ValueError, match=r"shows no 'pixels'.*image_key="):
        reached(SamplingPlanner, Puck("camera_top"))


def test_states_are_judged_without_any_picture_and_double_precision_actions_are_taken() -> None:
    nearness = StateCost(lambda state: float(np.linalg.norm(state[0] - GOAL)))
    assert reached(MPPI, Puck(None, dtype=np.float64), objective=nearness)


def test_an_action_space_without_bounds_needs_proposals_that_say_how_far_they_go() -> None:
    env = Puck(bound=np.inf)
    with pytest.raises(ValueError, match=r"give both, GaussianProposals"):
        reached(CEM, env)
    assert reached(CEM, env, proposals=GaussianProposals(env.action_space, mean=0.0, std=[0.5, 1.0]))
    with pytest.raises(ValueError, match="stride="):
        RandomWalk(env.action_space)
    assert RandomWalk(gym.spaces.Box(0.0, 512.0, (2,), np.float32)).stride == 16
    assert RandomWalk(gym.spaces.Box(-1.0, 1.0, (3,), np.float32)).stride == 1 / 16


def test_it_is_evaluated_like_any_agent() -> None:
    env = gym.wrappers.TimeLimit(Puck(), 20)
    planner = SamplingPlanner(
        dynamics=SimulatorModel(env),
        objective=far,
        proposals=UniformProposals(env.action_space, horizon=8, hold=2),
        n_samples=24,
        execute=2,
    )
    report = uva.evaluate(planner, env, 2, protocol="success", progress=False)
    assert report.success_rate == 1.0
