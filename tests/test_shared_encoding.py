"""A decision encodes its observation once where the policy and the world model stand on the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.tiny import observation, tiny_bundle
from uva_agents.agents import Policy
from uva_agents.agents.uva import UVA
from uva_agents.planners import (
    CEM,
    ActionPenalty,
    GoalImage,
    MixedProposals,
    SamplingPlanner,
    SharesEncoding,
    UniformProposals,
)


@pytest.fixture
def model() -> UVA:
    return UVA(tiny_bundle())


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[UVA]:
    """Whose ``encode`` was called, once per call."""
    calls: list[UVA] = []
    encode = UVA.encode

    def counted(self: UVA, *args: Any, **options: Any) -> Any:
        calls.append(self)
        return encode(self, *args, **options)

    monkeypatch.setattr(UVA, "encode", counted)
    return calls


class OnlySamples:
    """A policy without the ability to share an encoding."""

    def __init__(self, policy: Policy) -> None:
        self.action_space, self.lookback, self._policy = policy.action_space, policy.lookback, policy

    def sample(self, obs: Any, n: int, *, history: Any = None, seed: int | None = None) -> np.ndarray:
        return self._policy.sample(obs, n, history=history, seed=seed)


class Noisy(Policy):
    """A policy that samples in a way of its own."""

    def sample(self, obs: Any, n: int = 1, *, history: Any = None, seed: int | None = None) -> np.ndarray:
        return np.clip(super().sample(obs, n, history=history, seed=seed) + 1, 0, 512)


def past() -> dict[str, np.ndarray]:
    seen = [observation(t) for t in range(5, 15)]
    return {key: np.stack([obs[key] for obs in seen]) for key in ("pixels", "agent_pos")}


def made(kind: Any, model: UVA, proposals: Any, **options: Any) -> Any:
    objective = GoalImage(observation(99)["pixels"]) + ActionPenalty(scale=512)
    return kind(dynamics=model.world_model(), objective=objective, proposals=proposals, n_samples=4, **options)


@pytest.mark.parametrize(
    ("kind", "options"),
    [(SamplingPlanner, {}), (CEM, {"iterations": 2, "elites": 2}), (SamplingPlanner, {"budget_s": 60.0})],
    ids=["sampling", "cem", "in batches that fit a budget"],
)
@pytest.mark.parametrize("history", [None, past()], ids=["first", "later"])
def test_a_decision_encodes_its_observation_once_and_plans_the_same(
    model: UVA, encoded: list[UVA], kind: Any, options: dict[str, Any], history: Any
) -> None:
    plan = made(kind, model, model.policy(), **options).plan(observation(0), history=history, seed=3)
    assert len(encoded) == 1
    encoded.clear()
    apart = made(kind, model, OnlySamples(model.policy()), **options).plan(observation(0), history=history, seed=3)
    assert len(encoded) >= 2, "the policy and the world model for themselves"
    if "budget_s" not in options:
        np.testing.assert_array_equal(plan.candidates, apart.candidates)
        np.testing.assert_array_equal(plan.rollout.frames, apart.rollout.frames)
        assert plan.costs.tolist() == apart.costs.tolist() and plan.best == apart.best


def test_an_episode_encodes_every_decision_once(model: UVA, encoded: list[UVA]) -> None:
    planner = made(SamplingPlanner, model, model.policy(), execute=2)
    planner.reset(seed=0)
    for t in range(5):
        planner.act(observation(t))
    assert len(encoded) == 3


def test_a_mixture_shares_the_encoding_with_the_part_that_can(model: UVA, encoded: list[UVA]) -> None:
    uniform = UniformProposals(model.policy().action_space)
    plan = made(SamplingPlanner, model, MixedProposals(uniform, model.policy())).plan(observation(0), seed=1)
    assert len(encoded) == 1
    apart = MixedProposals(uniform, OnlySamples(model.policy()))
    again = made(SamplingPlanner, model, apart).plan(observation(0), seed=1)
    np.testing.assert_array_equal(plan.candidates, again.candidates)


def test_other_weights_and_a_policy_that_samples_its_own_way_encode_for_themselves(
    model: UVA, encoded: list[UVA]
) -> None:
    other = UVA(tiny_bundle(seed=1))
    assert isinstance(other.policy(), SharesEncoding)
    made(SamplingPlanner, model, other.policy()).plan(observation(0), seed=0)
    assert encoded == [model, other]
    noisy, plain = (
        made(SamplingPlanner, model, policy).plan(observation(0), seed=0) for policy in (Noisy(model), model.policy())
    )
    np.testing.assert_allclose(noisy.candidates, np.clip(plain.candidates + 1, 0, 512))
