"""Planners: they find known optima, keep their time, and are agents with state as a value."""

from __future__ import annotations

import functools
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import uva_agents as uva
from tests import toys
from tests.planner_toys import GOAL, PLANNERS, SPACE, FakeTime, Point, SlowPoint, T, at, distance, optimum, toy
from uva_agents.agents import Agent, AgentState, Rollout
from uva_agents.planners import (
    Dynamics,
    GaussianProposals,
    Objective,
    Proposals,
    SamplingPlanner,
    Screen,
    StateCost,
    UniformProposals,
)
from uva_agents.planners import planner as planner_module
from uva_agents.planners.budget import TimeBudget

# -- finding the best plan -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PLANNERS)
def test_the_quadratic_is_solved(kind: str) -> None:
    best, cost = optimum()
    plan = toy(kind).plan(at(), seed=0)
    assert plan.actions.shape == (T, 2) and plan.complete
    # Independent sampling is coarse in 16 dimensions; what it must find is the end point.
    tolerance = 0.1 if kind == "sampling" else 0.01
    assert cost - 1e-6 <= plan.cost <= cost + tolerance
    np.testing.assert_allclose(plan.actions.sum(0), best.sum(0), atol=0.2)
    assert plan.cost == plan.costs.min() and plan.costs[plan.best] == plan.cost
    np.testing.assert_array_equal(plan.candidates[plan.best], plan.actions)


@pytest.mark.parametrize("kind", ["cem", "mppi"])
def test_iterating_improves_on_the_proposals(kind: str) -> None:
    once = toy(kind, iterations=1, proposals=None, horizon=T).plan(at(), seed=1)
    often = toy(kind, iterations=6, proposals=None, horizon=T).plan(at(), seed=1)
    assert often.cost < once.cost - 0.01


@pytest.mark.parametrize("kind", ["cem", "mppi"])
def test_proposals_are_where_refinement_begins(kind: str) -> None:
    """Proposals of a small corner of the action space: nothing far from them is ever tried."""
    corner = GaussianProposals(SPACE, horizon=T, mean=[0.25, -0.2], std=0.02)
    plan = toy(kind, proposals=corner, duplicates=0).plan(at(), seed=0)
    assert np.abs(plan.candidates - [0.25, -0.2]).max() < 0.3
    assert distance(plan.actions.sum(0)) < 0.02


def test_the_shifted_last_plan_is_a_candidate() -> None:
    best, _ = optimum()
    poor = GaussianProposals(SPACE, horizon=T, mean=[-0.5, 0.5], std=0.01)
    planner = toy(proposals=poor, n_samples=5)
    moved = at(*best[:3].sum(0))
    plan = planner.plan(moved, seed=0, previous=best)
    # Three of eight actions are done: the five that remain lead to the goal, the last one is held.
    np.testing.assert_allclose(plan.actions[:5], best[3:], atol=1e-6)
    np.testing.assert_allclose(plan.actions[5:], best[-1:].repeat(3, 0), atol=1e-6)
    ends = toy(proposals=poor, n_samples=5, tail="zero").plan(moved, seed=0, previous=best)
    np.testing.assert_allclose(ends.actions.sum(0), best[3:].sum(0), atol=1e-5)
    assert distance(toy(proposals=poor, n_samples=5, warm_start=False).plan(moved, previous=best).actions[0]) > 1


class Fixed:
    """The same few candidates again and again."""

    def __init__(self, plans: np.ndarray) -> None:
        self.plans = plans

    def sample(self, obs: Any, n: int) -> np.ndarray:
        return np.asarray(self.plans[np.arange(n) % len(self.plans)])


def test_duplicates_are_imagined_once() -> None:
    plans = np.random.default_rng(0).uniform(-1, 1, (7, T, 2)).astype(np.float32)
    world = Point()
    plan = toy(dynamics=world, proposals=Fixed(plans), n_samples=100).plan(at())
    assert sum(world.calls) == len(plan.candidates) == 7
    assert plan.considered == 100 and plan.duplicates == 93
    nearly = np.concatenate([plans, plans + 1e-6])
    world = Point()
    toy(dynamics=world, proposals=Fixed(np.clip(nearly, -1, 1)), n_samples=14).plan(at())
    assert sum(world.calls) <= 9, (
        "candidates that differ by a millionth are the same, but for a few on the edge of a cell"
    )


def test_a_screen_lets_only_the_best_part_through() -> None:
    first = StateCost(distance, frames=(3,))
    world = Point()
    screen = Screen(keep=0.2, objective=first)
    plan = toy(dynamics=world, n_samples=100, screen=screen).plan(at(), seed=0)
    assert world.calls == [100, 20] and plan.screened == 80 and len(plan.costs) == 20
    everything = toy(n_samples=100).plan(at(), seed=0)
    halfway = first(Point().rollout(at(), everything.candidates))
    kept = set(map(bytes, everything.candidates[np.argsort(halfway)[:20]]))
    assert set(map(bytes, plan.candidates)) == kept


@pytest.mark.parametrize("kind", PLANNERS)
def test_the_same_seed_gives_the_same_plan(kind: str) -> None:
    first, again, other = (toy(kind, n_samples=50).plan(at(), seed=s) for s in (3, 3, 4))
    np.testing.assert_array_equal(first.candidates, again.candidates)
    np.testing.assert_array_equal(first.actions, again.actions)
    assert not np.array_equal(first.actions, other.actions)


# -- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PLANNERS)
@pytest.mark.parametrize(("call", "each"), [(0.0, 0.001), (0.0, 0.03), (0.05, 0.001), (0.02, 0.02), (0.15, 0.0)])
def test_the_budget_is_kept_whatever_a_batch_costs(
    kind: str, call: float, each: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeTime()
    monkeypatch.setattr(planner_module, "TimeBudget", functools.partial(TimeBudget, now=clock))
    world = SlowPoint(clock, call=call, each=each)
    plan = toy(kind, dynamics=world, n_samples=5000, budget_s=1.0).plan(at(), seed=0)
    assert 0.8 <= plan.latency_s <= 1.2
    assert not plan.complete and len(plan.costs) == sum(world.calls)


@pytest.mark.parametrize("hiccup", range(12))
def test_one_batch_twice_as_slow_stays_within_a_fifth(hiccup: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeTime()
    monkeypatch.setattr(planner_module, "TimeBudget", functools.partial(TimeBudget, now=clock))
    world = SlowPoint(clock, call=0.01, each=0.003, hiccup=hiccup)
    plan = toy(dynamics=world, n_samples=5000, budget_s=1.0).plan(at(), seed=0)
    assert plan.latency_s <= 1.2


def test_slow_proposals_count_too(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeTime()
    monkeypatch.setattr(planner_module, "TimeBudget", functools.partial(TimeBudget, now=clock))

    class Slow(UniformProposals):
        def sample(self, obs: Any, n: int, *, seed: int | None = None) -> np.ndarray:
            clock.now += 0.02 * n
            return super().sample(obs, n, seed=seed)

    plan = toy(proposals=Slow(SPACE, horizon=T), n_samples=5000, budget_s=1.0).plan(at(), seed=0)
    assert 0.8 <= plan.latency_s <= 1.2


def test_an_impossible_budget_still_gives_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = FakeTime()
    monkeypatch.setattr(planner_module, "TimeBudget", functools.partial(TimeBudget, now=clock))
    plan = toy(dynamics=SlowPoint(clock, call=5.0, each=0.0), budget_s=0.1).plan(at(), seed=0)
    assert len(plan.costs) >= 1 and np.isfinite(plan.cost) and not plan.complete


def test_the_budget_is_of_real_time_where_nobody_says_otherwise() -> None:
    class Sleepy(Point):
        def rollout(self, obs: Any, actions: np.ndarray, *, frames: Any = None) -> Rollout:
            time.sleep(0.02 * len(actions))
            return super().rollout(obs, actions, frames=frames)

    plan = toy(dynamics=Sleepy(), n_samples=1000, budget_s=0.5).plan(at(), seed=0)
    # How exactly is the simulated clock's matter above: here another process may take the time.
    assert not plan.complete and len(plan.costs) <= 25
    assert plan.latency_s >= plan.model_s >= 0.02 * len(plan.costs)


def test_without_a_budget_all_candidates_go_in_one_batch() -> None:
    world = Point()
    toy(dynamics=world, n_samples=100).plan(at(), seed=0)
    assert world.calls == [100]


# -- the agent -------------------------------------------------------------------------------------------------------


def test_a_planner_is_an_agent() -> None:
    planner = toy(n_samples=20)
    assert isinstance(planner, Agent) and isinstance(planner.initial_state(2, seed=0), AgentState)
    assert isinstance(planner.dynamics, Dynamics) and isinstance(planner.objective, Objective)
    assert isinstance(planner.proposals, Proposals)
    planner.reset(seed=0)
    first = [planner.act(at(*GOAL)) for _ in range(4)]
    assert all(SPACE.contains(a) and a.dtype == np.float32 for a in first)
    planner.reset(seed=0)
    np.testing.assert_array_equal(planner.act(at(*GOAL)), first[0])


def test_predict_is_a_function_of_its_state_and_changes_nothing() -> None:
    planner = toy(n_samples=20)
    state = planner.initial_state(1, seed=5)
    for _ in range(4):
        _, state = planner.predict(at(), state)
    before = replace(state[0])
    first, after = planner.predict(at(1, 1), state)
    again, _ = planner.predict(at(1, 1), state)
    np.testing.assert_array_equal(first, again)
    assert state[0] == before and after[0].decisions == state[0].decisions


def test_a_plan_is_followed_for_execute_actions() -> None:
    planner = toy(n_samples=20, execute=3)
    state = planner.initial_state(1, seed=0)
    decisions, actions = [], []
    for _ in range(7):
        action, state = planner.predict(at(), state)
        decisions.append(int(state.decisions[0]))
        actions.append(action)
        if len(actions) == 3:
            np.testing.assert_array_equal(np.stack(actions), state[0].plan.actions[:3])
    assert decisions == [1, 1, 1, 2, 2, 2, 3]


def test_a_batch_equals_the_single_runs_whatever_resets_when() -> None:
    planner = toy("cem", n_samples=20, iterations=2)
    seeds, restarts = [11, 22, 33], {(4, 0): 44, (5, 1): 55}
    seen = {(t, row): at(0.1 * t, -0.3 * row) for t in range(9) for row in range(3)}
    state, together = planner.initial_state(3, seed=seeds), []
    for t in range(9):
        mask = np.array([(t, row) in restarts for row in range(3)])
        state = state.restarted(mask, [restarts.get((t, row), 0) for row in range(3)])
        batch = {"agent_pos": np.stack([seen[t, row]["agent_pos"] for row in range(3)])}
        actions, state = planner.predict(batch, state)
        together.append(actions)
    for row in range(3):
        single = planner.initial_state(1, seed=seeds[row])
        for t in range(9):
            if (t, row) in restarts:
                single = planner.initial_state(1, seed=restarts[t, row])
            action, single = planner.predict(seen[t, row], single)
            np.testing.assert_array_equal(action, together[t][row])


def test_episode_start_drops_plan_and_queue_of_that_row_only() -> None:
    planner = toy(n_samples=10)
    state = planner.initial_state(2, seed=0)
    batch = {"agent_pos": np.zeros((2, 2), np.float32)}
    _, state = planner.predict(batch, state)
    _, state = planner.predict(batch, state, episode_start=np.array([True, False]))
    assert [len(row.queue) for row in state.rows] == [2, 1]
    assert (
        state[0].seed == 1 and state[1].seed == 1
    )  # the first row went on to its own next seed; the second began with 1


def test_deterministic_decisions_ignore_the_seed() -> None:
    planner = toy(n_samples=20)
    run = lambda s, d: planner.predict(at(), planner.initial_state(1, seed=s), deterministic=d)[0]  # noqa: E731
    np.testing.assert_array_equal(run(1, True), run(2, True))
    assert not np.array_equal(run(1, False), run(2, False))


class Remembering(Point):
    """Notes the history that it is given."""

    lookback = 2

    def __init__(self) -> None:
        super().__init__()
        self.histories: list[Any] = []

    def rollout(self, obs: Any, actions: np.ndarray, *, history: Any = None, frames: Any = None) -> Rollout:
        self.histories.append(None if history is None else history["agent_pos"][:, 0].tolist())
        return super().rollout(obs, actions, frames=frames)


def test_dynamics_get_the_history_that_they_look_at() -> None:
    world = Remembering()
    planner = toy(dynamics=world, n_samples=5, execute=2)
    state = planner.initial_state(1, seed=0)
    for t in range(5):
        _, state = planner.predict(at(t, 0), state)
    assert world.histories == [None, [0, 1], [2, 3]]


def walker() -> SamplingPlanner:
    world = Point(toys.Walk.action_space)
    proposals = UniformProposals(toys.Walk.action_space, horizon=4)
    return SamplingPlanner(dynamics=world, objective=StateCost(distance), proposals=proposals, n_samples=8, execute=2)


def test_an_evaluation_does_not_depend_on_how_many_run_side_by_side() -> None:
    toys.register()
    reports = [uva.evaluate(walker(), toys.WALK, 6, n_envs=n, protocol="success", progress=False) for n in (1, 3)]
    assert [vars(e) for e in reports[0].episodes] == [vars(e) for e in reports[1].episodes]
    # Candidates that go furthest towards the goal win, so the walker walks.
    assert reports[0].success_rate > 0.5
