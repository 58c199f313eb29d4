"""Mistakes in using any environment: wrong arguments, options, seeds and actions, before a reset and after the end."""

import copy
import pickle
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from tests.env_kinds import argument_names, cases, known_options, make, moment, reset_environment, values
from uva_agents.errors import InputError


@pytest.fixture(scope="module", params=cases())
def env(request: pytest.FixtureRequest) -> Iterator[gym.Env[Any, Any]]:
    yield from reset_environment(request.param)


def test_options_of_other_libraries_are_ignored_and_misspelt_ones_are_named(env):
    _, info = env.reset(seed=1, options={"lerobot_new_rollout": True, "lerobot_": None})
    assert info["is_success"] is False
    known = known_options(env)
    for name in ("lerobo_new_rollout", "no_such_option", 7, *(f"{option}_" for option in known)):
        with pytest.raises(InputError, match=f"unknown reset option {name!r}: {env.spec.id}") as caught:
            env.reset(options={name: 1})
        assert not (known and name == f"{known[0]}_") or f"did you mean {known[0]!r}?" in str(caught.value)
    for options in (7, "home", [("home", True)], True):
        with pytest.raises(InputError, match=r"reset\(options="):
            env.reset(options=options)


def test_reset_options_of_wrong_types_are_named(env):
    for name in known_options(env):
        for value in (None, "x", 7.5, object(), {}, float("nan")):
            if (name, value) in (("assignment", None), ("variation", {})):  # which mean something
                continue
            with pytest.raises(InputError, match=name):
                env.reset(options={name: value})


def test_seeds_that_are_none_are_named(env):
    for seed in (-1, 2**32, 1.0, 1.5, "1", True, [1], np.nan):
        with pytest.raises(InputError, match="seed"):
            env.unwrapped.reset(seed=seed)
    one, other = env.unwrapped.reset(seed=np.int64(3))[0], env.unwrapped.reset(seed=3)[0]
    assert all(np.array_equal(one[key], other[key]) for key in one)


def test_actions_that_are_none_are_named_and_nothing_moves(env):
    env.reset(seed=0)
    good, base = env.action_space.sample(), env.unwrapped
    before = base.get_state()
    wrong = [
        None,
        "left",
        b"x",
        {},
        {"action": good},
        object(),
        True,
        [],
        np.zeros((2, *good.shape)),
        good[:-1],
        good.astype(str),
    ]
    wrong += [good.astype(complex), good.astype(object), good > 0, [[1, 2], [3]]]
    if "ArxX5" not in env.spec.id:  # whose safety layer makes a hold of them, and says so
        wrong += [np.full_like(good, np.nan), np.where(np.arange(len(good)), good, np.inf)]
    for action in wrong:
        for call in (base.step, base.advance) if hasattr(base, "advance") else (base.step,):
            with pytest.raises(InputError, match=r"action"):
                call(action)
    assert moment(base.get_state()) == moment(before)


def test_arguments_that_are_none_are_named(env):
    def refused(match: str, **wrong: Any) -> None:
        with pytest.raises((InputError, TypeError), match=match):
            gym.make(env.spec.id, **wrong)

    refused("render_siz", render_siz=96)
    with pytest.raises(InputError, match="render_mode='human' is not offered"):
        type(env.unwrapped)(render_mode="human")
    names = argument_names(env)
    sizes = [name for name in ("image_size", "render_size") if name in names]
    assert "render_size" in sizes
    for name in sizes:
        for size in (10**6, 0, -1, 96.5, True, "96", None, (96, 96, 96), np.nan):
            refused(f"{name}=.*at least 8 pixels and at most", **{name: size})
    for name in set(names) & {"render_observations", "outside", "draw_arm", "timestamp"}:
        refused(f"{name}='no'", **{name: "no"})
    for name in set(names) & {
        "assignment",
        "action_mode",
        "camera",
        "quality",
        "suite",
        "instruction",
        "initial_states",
    }:
        for value in ("X-Y", 7, ["R-R"]):
            # Of the arm, a text may be a camera's file, and any text says what to do.
            if "ArxX5" not in env.spec.id or not (name == "camera" or (name == "instruction" and value == "X-Y")):
                refused(f"{name}=", **{name: value})
    for value in (99, -1, "0", 1.0, True) if "task_id" in names else ():
        refused("task_id=", task_id=value)


# -- life cycle -----------------------------------------------------------------------------------------------------------

CALLS = (
    "step",
    "advance",
    "render",
    "get_obs",
    "observe",
    "get_state",
    "hold_action",
    "tick",
    "draw_state",
    "set_state",
    "reset",
)


@pytest.mark.parametrize("env_id", cases())
def test_before_reset_and_after_close_every_call_says_so_and_a_copy_is_alike(env_id):
    env = make(env_id)
    base, action = env.unwrapped, env.action_space.sample()

    def calls(names: tuple[str, ...]) -> Iterator[Any]:
        for name in names:
            if hasattr(base, name):
                arguments = (
                    (action,) if name in ("step", "advance") else (None,) if name in ("set_state", "draw_state") else ()
                )
                yield lambda base=base, name=name, arguments=arguments: getattr(base, name)(*arguments)

    for call in calls(CALLS[:8]):
        with pytest.raises(gym.error.ResetNeeded, match=r"before reset\(\): call env\.reset\(\) first") as caught:
            call()
        assert isinstance(caught.value, InputError) and isinstance(caught.value, RuntimeError)
    copied = copy.deepcopy(env)
    assert all(np.array_equal(a, b) for a, b in zip(*(values(e.reset(seed=2)[0]) for e in (env, copied)), strict=True))
    copied.close()
    env.close()
    env.close()
    for call in calls(CALLS):
        with pytest.raises(gym.error.ClosedEnvironmentError, match=r"after close\(\)") as caught:
            call()
        assert isinstance(caught.value, InputError) and isinstance(caught.value, RuntimeError)
    gone = pickle.loads(pickle.dumps(env))
    with pytest.raises(gym.error.ClosedEnvironmentError):
        gone.reset()
