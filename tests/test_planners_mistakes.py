"""Planners name mistakes, and say what they could not see."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from tests import toys
from tests.planner_toys import Point, T, at, quadratic, toy
from uva_agents.agents import Rollout
from uva_agents.errors import InputError
from uva_agents.planners import (
    CEM,
    ActionPenalty,
    GaussianProposals,
    MaskedCosts,
    Objective,
    RequiredFrames,
    Screen,
    StateCost,
    UniformProposals,
)


class Returns:
    """Proposals that return what they were made with."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def sample(self, obs: Any, n: int) -> Any:
        return self.value(n)


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (lambda n: np.zeros((n, T, 3)), r"must return \(5, T, 2\)"),
        (lambda n: np.zeros((n - 1, T, 2)), r"must return \(5, T, 2\)"),
        (lambda n: np.zeros((n, 2)), r"must return \(5, T, 2\)"),
        (lambda n: np.full((n, T, 2), np.nan), "NaN"),
        (lambda n: np.full((n, T, 2), 1j), "complex"),
        (lambda n: np.full((n, T, 2), "0"), "real numbers"),
        (lambda n: np.ma.masked_all((n, T, 2)), "masked"),
        (lambda n: np.full((n, T, 2), 300.0), "undo their normalisation"),
        (lambda n: np.zeros((n, 2, 2)), "execute=3, but the proposals have 2"),
    ],
)
def test_wrong_proposals_are_named(value: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        toy(proposals=Returns(value), n_samples=5).plan(at())


@pytest.mark.parametrize(
    ("objective", "match"),
    [
        (lambda r: np.zeros(len(r) + 1), "one cost per candidate"),
        (lambda r: np.full(len(r), np.nan), "not finite"),
        (lambda r: np.full(len(r), 1j), "complex"),
        (lambda r: ["1"] * len(r), "real numbers"),
        (lambda r: np.zeros(len(r)) < 1, "bool"),
        (lambda r: np.ma.masked_all(len(r)), "masked"),
        (lambda r: None, "None"),
        (lambda r: np.where(np.arange(len(r)) == 2, np.inf, 0), "not finite .inf. for 1 of 5"),
    ],
)
def test_wrong_costs_are_named(objective: Any, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        toy(objective=objective, n_samples=5).plan(at())


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"n_samples": 0}, ValueError, "at least 1"),
        ({"budget_s": 0}, ValueError, "budget_s"),
        ({"tail": "repeat"}, ValueError, "hold"),
        ({"objective": 3}, TypeError, "__call__"),
        ({"dynamics": object()}, TypeError, "rollout"),
        ({"proposals": lambda obs: 0}, TypeError, "sample"),
        ({"steps": 4}, ValueError, "no denoising steps"),
        ({"screen": Screen(steps=0)}, ValueError, "no denoising steps"),
        ({"proposals": None, "execute": 17}, ValueError, "execute=17"),
    ],
)
def test_wrong_arguments_are_named(options: dict[str, Any], error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        toy(**options)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *(
            ("sampling", {name: value})
            for name in ("n_samples", "execute", "horizon")
            for value in (1.5, True, "1", None)
        ),
        *(("sampling", {"duplicates": value}) for value in (float("nan"), float("inf"), -1e-3, 1.0, "0", None)),
        *(("sampling", {"budget_s": value}) for value in ("1", float("inf"), float("nan"), True, -1.0)),
        ("sampling", {"warm_start": "no"}),
        ("sampling", {"steps": 1.5}),
        *((kind, {"iterations": value}) for kind in ("cem", "mppi") for value in (1.5, True, 0, "1")),
        *((kind, {"min_std": value}) for kind in ("cem", "mppi") for value in (float("nan"), -1, "0")),
        *(("cem", {"elites": value}) for value in (float("nan"), float("inf"), 0, -1, 2.5, "2", True)),
        *(("cem", {"smoothing": value}) for value in (float("nan"), 1, -0.1, "0")),
        *(("mppi", {"temperature": value}) for value in (float("nan"), float("inf"), 0, "1")),
    ],
    ids=str,
)
def test_options_that_mean_nothing_are_named(kind: str, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        toy(kind, **options)


@pytest.mark.parametrize("duplicates", [1e-12, 1e-30, 1e-320])
def test_a_fine_tolerance_calls_no_different_candidates_the_same(duplicates: float) -> None:
    plans = np.random.default_rng(0).uniform(-1, 1, (20, T, 2)).astype(np.float32)
    returns = Returns(lambda n: np.concatenate([plans, plans]))
    plan = toy(proposals=returns, n_samples=40, duplicates=duplicates).plan(at())
    assert plan.duplicates == 20 and len(plan.candidates) == 20


def test_wrong_settings_of_the_parts_are_named() -> None:
    unbounded = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    with pytest.raises(ValueError, match="give both"):
        GaussianProposals(unbounded)
    with pytest.raises(ValueError, match="no bounds"):
        UniformProposals(unbounded)
    with pytest.raises(ValueError, match="the first look is the last"):
        Screen()
    with pytest.raises(ValueError, match="keep"):
        Screen(keep=0, steps=0)
    with pytest.raises(ValueError, match="at least 2"):
        CEM(dynamics=Point(), objective=quadratic(), elites=1)


def test_a_tuple_and_a_foreign_state_are_refused() -> None:
    planner = toy(n_samples=5)
    with pytest.raises(TypeError, match=r"\(obs, info\)"):
        planner.predict((at(), {}))
    with pytest.raises(ValueError, match="2 environments, the observation has 1"):
        planner.predict(at(), planner.initial_state(2, seed=0))
    with pytest.raises(ValueError, match="one observation"):
        planner.plan({"agent_pos": np.zeros((2, 2), np.float32)})


class Blind(Objective):
    """Sees only candidates whose first action goes right, and finds the others cheap."""

    def __init__(self, sees: bool) -> None:
        self.sees = sees

    def required_frames(self) -> RequiredFrames:
        return RequiredFrames(frames=(), pixels=False)

    def evaluate(self, rollout: Rollout) -> MaskedCosts:
        assert rollout.actions is not None
        right = rollout.actions[:, 0, 0] > 0
        return MaskedCosts(np.where(right, 5.0, -5.0), right & self.sees)

    def __call__(self, rollout: Rollout) -> np.ndarray:
        return self.evaluate(rollout).costs


def test_what_was_not_seen_never_beats_what_was() -> None:
    plan = toy(objective=Blind(True), n_samples=30).plan(at(), seed=0)
    assert plan.actions[0, 0] > 0 and plan.valid[plan.best] and not plan.valid.all()


def test_seeing_nothing_at_all_is_said() -> None:
    with pytest.warns(UserWarning, match="Blind cannot see what it judges in any of 30"):
        plan = toy(objective=Blind(False), n_samples=30).plan(at(), seed=0)
    assert not plan.valid.any()


def test_sums_give_each_term_the_frames_that_it_requires() -> None:
    first, last = StateCost(lambda s: float(s[0]), frames=(1,)), StateCost(lambda s: float(s[1]), frames=(-1,))
    both = 2 * first + last * 0.5 + ActionPenalty(smoothness=0, effort=1)
    required = both.required_frames()
    assert required.frames is not None and set(required.frames) == {1, -1} and not required.pixels
    actions = np.random.default_rng(0).uniform(-1, 1, (4, T, 2))
    path = actions.cumsum(1)
    expected = 2 * path[:, 1, 0] + 0.5 * path[:, -1, 1] + np.square(actions).mean((1, 2))
    world = Point()
    np.testing.assert_allclose(both(world.rollout(at(), actions, frames=required.frames)), expected)
    with pytest.raises(ValueError, match=r"no frames at control steps \[8\]"):
        last(world.rollout(at(), actions, frames=(1,)))


def test_penalties_measure_what_they_say() -> None:
    actions = np.zeros((2, 3, 1))
    actions[1, :, 0] = [0, 4, 0]
    roll = Point(toys.Walk.action_space).rollout({"agent_pos": np.zeros(1)}, actions)
    np.testing.assert_allclose(ActionPenalty()(roll), [0, 16])
    np.testing.assert_allclose(ActionPenalty(smoothness=0, effort=3)(roll), [0, 16])
    np.testing.assert_allclose(ActionPenalty(scale=2)(roll), [0, 4])
