"""check_env explains what an environment does that agents would trip over."""

import gymnasium as gym
import numpy as np
import pytest

from uva_agents.envs import check_env


class Good(gym.Env):
    """A dot that moves."""

    def __init__(self):
        self.observation_space = gym.spaces.Dict(
            {
                "pixels": gym.spaces.Box(0, 255, (8, 8, 3), np.uint8),
                "agent_pos": gym.spaces.Box(-10, 10, (2,), np.float32),
            }
        )
        self.action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.np_random.uniform(-1, 1, 2).astype(np.float32)
        return self.get_obs(), {"is_success": False}

    def step(self, action):
        self.advance(action)
        return self.get_obs(), 0.0, False, False, {"is_success": False}

    def advance(self, action):
        if not np.isfinite(action).all():
            raise ValueError("not finite")
        self.place = np.clip(self.place + action, -10, 10).astype(np.float32)

    def get_obs(self):
        return {"pixels": np.full((8, 8, 3), int(10 * abs(self.place[0])), np.uint8), "agent_pos": self.place.copy()}

    def get_state(self):
        return self.place.copy()

    def set_state(self, state):
        self.place = state.copy()


def broken(**methods):
    return type("Broken", (Good,), methods)()


def spaces(**changed):
    env = Good()
    for name, space in changed.items():
        if name == "action_space":
            env.action_space = space
        elif space is None:
            del env.observation_space.spaces[name]
        else:
            env.observation_space.spaces[name] = space
    return env


def unseeded(self, *, seed=None, options=None):
    self.place = np.random.default_rng().uniform(-1, 1, 2).astype(np.float32)
    return self.get_obs(), {"is_success": False}


def remembered(self):
    return {"pixels": np.zeros((8, 8, 3), np.uint8), "agent_pos": self.place}


def moved_in_place(self, action):
    if not np.isfinite(action).all():
        raise ValueError("not finite")
    self.place += action


def strict(self, *, seed=None, options=None):
    if options:
        raise ValueError("unknown option")
    return Good.reset(self, seed=seed)


CASES = {
    "observations are dicts": lambda: broken(observation_space=None, __init__=lambda self: flat(self)),
    "the camera's picture is obs['pixels']": lambda: spaces(pixels=None),
    "pictures are uint8 with the colours last": lambda: spaces(pixels=gym.spaces.Box(0, 1, (3, 8, 8), np.float32)),
    "obs['agent_pos'] is a float32 vector": lambda: spaces(agent_pos=gym.spaces.Box(-1, 1, (2,), np.float64)),
    "actions are float32 vectors": lambda: spaces(action_space=gym.spaces.Discrete(4)),
    "actions are bounded": lambda: spaces(action_space=gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)),
    "observations are in observation_space": lambda: spaces(agent_pos=gym.spaces.Box(5, 6, (2,), np.float32)),
    "info['is_success'] is a bool on every reset and step": lambda: broken(
        step=lambda self, action: (self.advance(action), (self.get_obs(), 0.0, False, False, {}))[1]
    ),
    "the same seed begins the same episode": lambda: broken(reset=unseeded),
    "an observation stays what it was": lambda: broken(get_obs=remembered, advance=moved_in_place),
    "an action stays as it was": lambda: broken(advance=lambda self, action: action.fill(0)),
    "rewards are finite": lambda: broken(
        step=lambda self, a: (self.advance(a), (self.get_obs(), np.nan, False, False, {"is_success": False}))[1]
    ),
    "the ends are booleans": lambda: broken(
        step=lambda self, a: (self.advance(a), (self.get_obs(), 0.0, None, False, {"is_success": False}))[1]
    ),
    "an action that is not finite is refused": lambda: broken(
        advance=lambda self, a: setattr(self, "place", np.clip(self.place + np.nan_to_num(a), -10, 10).astype("f4"))
    ),
    "after set_state(get_state()) the same actions lead to the same observations": lambda: broken(
        set_state=lambda self, state: None
    ),
    "advance() leads where step() leads": lambda: broken(
        step=lambda self, a: (Good.advance(self, a), (self.get_obs(), 0.0, False, False, {"is_success": False}))[1],
        advance=lambda self, a: None,
    ),
    "reset options of other code bases (lerobot_...) are passed over": lambda: broken(reset=strict),
}


def flat(self):
    self.observation_space = gym.spaces.Box(0, 1, (3,), np.float32)
    self.action_space = gym.spaces.Box(-1, 1, (2,), np.float32)


def test_a_good_environment_has_nothing_to_explain():
    assert check_env(Good()) == ()


@pytest.mark.parametrize("rule", CASES)
def test_each_violation_is_explained(rule):
    found = check_env(CASES[rule]())
    assert rule in [violation.rule for violation in found], [str(violation) for violation in found]
    assert all(violation.found and violation.fix for violation in found)


def test_an_environment_that_raises_is_named_with_its_error():
    (violation,) = check_env(broken(step=lambda self, action: 1 / 0))
    assert "ZeroDivisionError" in violation.found and "sampled actions" in violation.rule


@pytest.mark.parametrize("env_id", ["uva/PushT-v0", "uva/PushTMulti-v0", "uva/PushTDisturbed-v0", "uva/PushTGoal-v0"])
def test_our_own_environments_keep_to_it(env_id):
    env = gym.make(env_id)
    found = [v for v in check_env(env) if "lerobot" not in v.rule]
    env.close()
    assert found == []
