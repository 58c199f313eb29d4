"""States and copies of every environment: they go on as the original does, and what is not of it is refused."""

import copy
import dataclasses
import pickle
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from tests.env_kinds import HEAVY, IDS, cases, changed, flat, make, moment, reset_environment
from uva_agents.errors import InputError


@pytest.fixture(scope="module", params=cases())
def env(request: pytest.FixtureRequest) -> Iterator[gym.Env[Any, Any]]:
    yield from reset_environment(request.param)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))], ids=["deepcopy", "pickle"]
)
def test_a_copy_goes_on_as_the_original_does(env, duplicate):
    env.action_space.seed(5)
    env.reset(seed=4)
    for _ in range(2):
        env.step(env.action_space.sample())
    other = duplicate(env)
    assert other.unwrapped is not env.unwrapped and other.spec == env.spec
    for turn in range(6):
        actions = [e.action_space.sample() for e in (env, other)]
        assert np.array_equal(*actions)
        one, two = (e.reset() if turn == 3 else e.step(a) for e, a in zip((env, other), actions, strict=True))
        assert flat(one) == flat(two)
    assert np.array_equal(env.render(), other.render())
    other.close()
    env.step(env.action_space.sample())  # and the original does not mind


def test_a_state_that_was_changed_is_refused_and_nothing_has_happened(env):
    env.reset(seed=6)
    env.step(env.action_space.sample())
    base = env.unwrapped
    state = base.get_state()
    base.set_state(pickle.loads(pickle.dumps(state)))
    env.step(env.action_space.sample())
    here = moment(base.get_state())
    wrong = [None, 7, b"", {}, np.zeros(5), dataclasses.astuple(state) if "PushT" in env.spec.id else (), state.stamp]
    wrong += [dataclasses.replace(state, stamp=None)]
    for name, value in (
        ("environment", "uva/Elsewhere-v0"),
        ("task", "another"),
        ("version", 99),
        ("simulator", "mujoco 2.0"),
    ):
        wrong.append(dataclasses.replace(state, stamp=dataclasses.replace(state.stamp, **{name: value})))
    for field in dataclasses.fields(state):
        if field.name != "stamp":
            for value in changed(getattr(state, field.name)):
                wrong.append(dataclasses.replace(state, **{field.name: value}))
    for other in wrong:
        with pytest.raises(InputError, match="state"):
            base.set_state(other)
        assert moment(base.get_state()) == here
    with pytest.raises(InputError, match="is of uva/Elsewhere-v0"):
        base.set_state(wrong[8])
    base.set_state(state)
    assert moment(base.get_state()) == moment(state)


def test_a_state_of_another_environment_is_refused_by_its_name():
    made = [make(env_id) for env_id in IDS if not any(h in env_id for h in HEAVY)]
    states = []
    for env in made:
        env.reset(seed=0)
        states.append(env.unwrapped.get_state())
    for env in made:
        for other, state in zip(made, states, strict=True):
            if other is not env:
                with pytest.raises(
                    InputError, match=rf"this state is of {other.spec.id}.*gym\.make\('{other.spec.id}'\)"
                ):
                    env.unwrapped.set_state(state)
    for env in made:
        env.close()


@pytest.mark.parametrize(
    ("env_id", "argument", "one", "two"),
    [("uva/ArxX5-v0", "task", "cup", "reach"), ("uva/BlockPush-v0", "assignment", "R-G", "G-R")],
)
def test_states_of_another_task_of_the_same_environment_are_refused(env_id, argument, one, two):
    made = [make(env_id, **{argument: task}) for task in (one, two)]
    states = []
    for env in made:
        env.reset(seed=0)
        states.append(env.unwrapped.get_state())
    here = moment(made[1].unwrapped.get_state())
    with pytest.raises(InputError, match=rf"state is of .*{one}.*{two}"):
        made[1].unwrapped.set_state(states[0])
    assert moment(made[1].unwrapped.get_state()) == here
    for env in made:
        env.close()


@pytest.mark.parametrize("count", [12, pytest.param(500, marks=pytest.mark.long)], ids=["a few", "five hundred"])
def test_pickled_states_with_a_flipped_byte_are_refused_or_the_same(env, count):
    """Of the pickle, wherever: it no longer unpickles, or is refused, or nothing that matters was hit. The process lives."""
    env.reset(seed=6)
    base = env.unwrapped
    state = base.get_state()
    whole, rng = pickle.dumps(state), np.random.default_rng(0)
    for _ in range(count):
        damaged = bytearray(whole)
        damaged[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        try:
            loaded = pickle.loads(bytes(damaged))
        except Exception:  # pickle's own, of many kinds
            continue
        try:
            base.set_state(loaded)
        except InputError:
            continue
        assert moment(base.get_state()) == moment(state)
