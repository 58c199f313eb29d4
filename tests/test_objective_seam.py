"""The seams of a planner: any function is an objective, and each optional ability is used where it is there and only there."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import uva_agents as uva
from tests.planner_toys import SPACE, Point, T, at, distance, toy
from uva_agents.agents import Rollout
from uva_agents.errors import InputError
from uva_agents.planners import (
    ActionPenalty,
    HasActionSpace,
    HasLookback,
    Identified,
    MaskedCosts,
    Named,
    Objective,
    OneEnvironment,
    Prepares,
    RequiredFrames,
    SamplingPlanner,
    Screen,
    SimulatorModel,
    StateCost,
    as_objective,
)
from uva_agents.planners.abilities import dynamics_lookback, rollout_options, sample_options


def calm(rollout: Rollout) -> np.ndarray:
    return np.abs(np.asarray(rollout.actions)).mean((1, 2))


class Callable:
    def __call__(self, rollout: Rollout) -> list[float]:
        return calm(rollout).tolist()


@dataclass
class Callables:
    """A dataclass that can be called, as objectives were before there was a base class."""

    weight: float = 2.0

    def __call__(self, rollout: Rollout) -> np.ndarray:
        return self.weight * calm(rollout)


@pytest.mark.parametrize(
    "objective",
    [
        calm,
        lambda rollout: calm(rollout),
        functools.partial(lambda scale, rollout: scale * calm(rollout), 2.0),
        Callable(),
        Callables(),
        Callable().__call__,
        lambda rollout, unused=0: calm(rollout),
        lambda *rollouts: calm(*rollouts),
    ],
)
def test_any_callable_is_an_objective(objective: Any) -> None:
    plan = toy(objective=objective, n_samples=20).plan(at(), seed=0)
    assert plan.valid.all() and plan.best == calm(Point().rollout(at(), plan.candidates)).argmin()
    summed = (0.5 * StateCost(distance) + as_objective(objective)) * 2
    assert np.isfinite(toy(objective=summed, n_samples=5).plan(at(), seed=0).cost)


def two(rollout: Rollout, weight: float) -> np.ndarray:
    return weight * calm(rollout)


class HasRequiredFrames(Callable):
    required_frames = RequiredFrames((-1,))


class HasJudge(Callable):
    def judge(self, rollout: Rollout) -> MaskedCosts:
        raise AssertionError


class NoMask(Objective):
    def __call__(self, rollout: Rollout) -> np.ndarray:
        return calm(rollout)

    def evaluate(self, rollout: Rollout) -> Any:
        return calm(rollout)


class ShortMask(NoMask):
    def evaluate(self, rollout: Rollout) -> MaskedCosts:
        return MaskedCosts(calm(rollout), np.ones(2, bool))


class NotAMethod(NoMask):
    required_frames = RequiredFrames((-1,))  # type: ignore[assignment]


class NoFrames(NoMask):
    def required_frames(self) -> Any:
        return (-1,)


class NothingBound(NoMask):
    def bind(self, obs: Any) -> Any:
        self.obs = obs


@pytest.mark.parametrize(
    ("objective", "match"),
    [
        (3, r"objective=int has no __call__\(\)"),
        (lambda: 0, r"<lambda>\(\) cannot be called with a rollout alone \(too many positional"),
        (two, r"two\(.*weight.*\) cannot be called with a rollout alone \(missing a required argument: 'weight'\)"),
        (Callable, r"objective=Callable is a class: make one of it, objective=Callable\(\.\.\.\)"),
        (ActionPenalty, "objective=ActionPenalty is a class"),
        (HasRequiredFrames(), r"'required_frames', but is no Objective.*let it inherit.*define required_frames\(\)"),
        (NotAMethod(), r"NotAMethod\.required_frames must be a method that returns this"),
        (HasJudge(), r"HasJudge has 'judge', but is no Objective.*define evaluate\(\)"),
    ],
)
def test_what_is_wrong_about_a_function_is_said_when_the_planner_is_made(objective: Any, match: str) -> None:
    for make in (as_objective, lambda o: toy(objective=o), lambda o: Screen(objective=o)):
        with pytest.raises(TypeError, match=match):
            make(objective)


def column(rollout: Rollout) -> np.ndarray:
    return calm(rollout)[:, None]


@pytest.mark.parametrize(
    ("objective", "match"),
    [
        (column, r"column must give one cost per candidate, \(5,\), but gave \(5, 1\)"),
        (StateCost(distance) + column, r"column must give one cost per candidate, \(5,\)"),
        (NoMask(), r"NoMask\.evaluate\(\) must return MaskedCosts, but gave ndarray"),
        (NoFrames(), r"NoFrames\.required_frames\(\) must return RequiredFrames, but gave tuple"),
        (StateCost(distance) + NoFrames(), r"NoFrames\.required_frames\(\) must return RequiredFrames"),
        (NothingBound(), r"NothingBound\.bind\(\) must return an objective, but gave NoneType"),
        (ShortMask(), r"ShortMask must say of each candidate whether its cost is valid, \(5,\) bool"),
    ],
)
def test_a_result_of_the_wrong_shape_is_named_at_first_use(objective: Any, match: str) -> None:
    with pytest.raises(InputError, match=match):
        toy(objective=objective, n_samples=5).plan(at())


def test_a_function_may_say_which_frames_it_needs() -> None:
    shown: list[int] = []

    def last(rollout: Rollout) -> np.ndarray:
        assert rollout.states is not None
        shown.append(len(rollout.states[0]))
        return np.array([distance(row[-1]) for row in rollout.states])

    toy(objective=last, n_samples=4).plan(at())
    toy(objective=as_objective(last, required_frames=RequiredFrames((-1,), pixels=False)), n_samples=4).plan(at())
    assert shown == [T, 1]
    with pytest.raises(TypeError, match="says itself"):
        as_objective(ActionPenalty(), required_frames=RequiredFrames())


def test_objectives_add_up_in_any_order_and_scale_by_any_real_number() -> None:
    rollout = Point().rollout(at(), np.random.default_rng(0).uniform(-1, 1, (3, T, 2)))
    price, where = ActionPenalty(), StateCost(distance)
    expected = price(rollout) + 0.5 * calm(rollout)
    for total in (price + 0.5 * as_objective(calm), as_objective(calm) * np.float32(0.5) + price):
        np.testing.assert_allclose(total(rollout), expected)
    np.testing.assert_allclose((calm + price)(rollout), price(rollout) + calm(rollout))
    np.testing.assert_allclose(sum([price, where, price])(rollout), 2 * price(rollout) + where(rollout))
    for wrong in (lambda: price + 3, lambda: price * "2", lambda: price * price):
        with pytest.raises(TypeError):
            wrong()


def test_an_objective_without_a_call_cannot_be_made() -> None:
    class Nothing(Objective):
        pass

    with pytest.raises(TypeError, match="__call__"):
        Nothing()  # type: ignore[abstract]


def test_a_function_is_told_by_its_name_wherever_it_stands() -> None:
    assert toy(objective=calm).identity["objective"] == "calm"
    assert (2 * ActionPenalty() + calm).identity[1] == "1 * 'calm'"
    assert toy(objective=Callables()).identity["objective"] == {"type": "Callables", "weight": "2.0"}


class Toward(Objective):
    """Goes to the place that the observation names."""

    def __init__(self, goal: Any = None) -> None:
        self.goal = goal

    def bind(self, obs: Any) -> Objective:
        return Toward(np.asarray(obs["goal"], float))

    def __call__(self, rollout: Rollout) -> np.ndarray:
        assert rollout.states is not None
        return np.array([np.square(row[-1] - self.goal).sum() for row in rollout.states])


def test_an_objective_is_bound_to_the_observation_of_the_decision_also_in_a_sum_and_in_a_screen() -> None:
    obs = {**at(), "goal": np.array([1.0, -1.0])}
    for objective in (Toward(), Toward() + 0.01 * ActionPenalty()):
        plan = toy("cem", objective=objective, screen=Screen(keep=0.5, objective=Toward()), n_samples=100).plan(obs)
        np.testing.assert_allclose(plan.actions.sum(0), obs["goal"], atol=0.3)


# -- abilities of dynamics and proposals -----------------------------------------------------------------------------


class Able(Point):
    """Dynamics with every ability."""

    lookback = 3
    one_environment = True
    identity = "able"

    def __init__(self) -> None:
        super().__init__()
        self.given: list[dict[str, Any]] = []

    def prepare(self, obs: Any, *, history: Any = None) -> Any:
        return {"agent_pos": obs["agent_pos"], "prepared": True}

    def rollout(self, obs: Any, actions: Any, **options: Any) -> Rollout:
        assert obs["prepared"]
        self.given.append(options)
        return super().rollout(obs, actions, frames=options.get("frames"))


class Bare:
    """Dynamics and proposals with what a planner cannot do without."""

    def rollout(self, obs: Any, actions: Any) -> Rollout:
        return Point().rollout(obs, actions)

    def sample(self, obs: Any, n: int) -> np.ndarray:
        return np.random.default_rng(0).uniform(-1, 1, (n, T, 2))


def test_every_ability_is_a_protocol_that_the_parts_are_asked_for() -> None:
    abilities: list[Any] = [Prepares, HasLookback, HasActionSpace, OneEnvironment, Identified]
    assert all(isinstance(Able(), ability) for ability in abilities)
    assert not any(isinstance(Bare(), ability) for ability in (*abilities, Named))
    assert issubclass(SimulatorModel, Prepares)
    assert rollout_options(Able()) == {"history", "seed", "frames", "decode", "steps"}
    assert rollout_options(Bare()) == frozenset() and sample_options(Bare()) == frozenset()
    assert rollout_options(Point()) == {"frames"}
    assert dynamics_lookback(Able()) == 3 and dynamics_lookback(Bare()) == 0


def test_dynamics_get_what_they_take_and_nothing_else() -> None:
    able = Able()
    toy(dynamics=able, objective=ActionPenalty(), n_samples=3, steps=2).plan(at(), history=at())
    (given,) = able.given
    assert given == {"seed": given["seed"], "frames": (), "decode": False, "steps": 2}
    bare = Bare()
    planner = SamplingPlanner(dynamics=bare, proposals=bare, objective=calm, n_samples=5, execute=2, action_space=SPACE)
    assert planner.plan(at(), history=at()).considered == 5
    assert planner.name == "SamplingPlanner(Bare)" and planner.identity["dynamics"] == "Bare"


def test_an_objective_that_requires_no_frame_plans_with_weights_that_move_keypoints() -> None:
    model = uva.UVA.from_pretrained("pusht-nano")
    planner = SamplingPlanner(
        dynamics=model.world_model(), objective=ActionPenalty(), proposals=model.policy(), n_samples=2, steps=0
    )
    plan = planner.plan({"pixels": np.full((96, 96, 3), 255, np.uint8), "agent_pos": np.full(2, 256.0, np.float32)})
    assert plan.rollout.keypoints is not None and plan.rollout.keypoints.shape[:2] == (2, 0)
