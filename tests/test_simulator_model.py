"""The simulator as dynamics: true futures, everything put back, and the same planners on top."""

from __future__ import annotations

import copy
import pickle
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import pytest

import uva_agents as uva
from uva_agents.envs.pusht import PushTEnv
from uva_agents.planners import PushTCoverage, SamplingPlanner, SimulatorModel, StateCost, UniformProposals
from uva_agents.planners.coverage import block_share


def pusht(steps: int | None = None) -> gym.Env[Any, Any]:
    return gym.make("uva/PushT-v0", **({} if steps is None else {"max_episode_steps": steps}))


def candidates(n: int, steps: int = 16, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(100, 400, (n, steps, 2)).astype(np.float32)


def test_futures_are_what_then_happens() -> None:
    env, plans = pusht(), candidates(2)
    obs, _ = env.reset(seed=100_000)
    roll = SimulatorModel(env).rollout(obs, plans)
    assert roll.frames.shape == (2, 4, 96, 96, 3) and roll.frame_steps.tolist() == [4, 8, 12, 16]
    np.testing.assert_array_equal(roll.now, obs["pixels"])
    for t, action in enumerate(plans[1], start=1):
        obs, *_ = env.step(action)
        if t % 4 == 0:
            np.testing.assert_array_equal(roll.frames[1, t // 4 - 1], obs["pixels"])
            assert roll.states is not None
            assert roll.states[1][t // 4 - 1].actions == env.unwrapped.get_state().actions


def test_the_environment_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    env, twin = pusht(), pusht()
    for e in (env, twin):
        e.reset(seed=100_001)
        e.step(np.array([200.0, 200.0]))
    model = SimulatorModel(env)
    model.rollout({}, candidates(2), decode=False)
    calls: list[int] = []

    def explodes(self: PushTEnv, action: Any) -> None:
        calls.append(1)
        if len(calls) == 20:
            raise ZeroDivisionError("the simulator blew up")
        self._advance(tuple(float(a) for a in action))

    with monkeypatch.context() as patch:
        patch.setattr(PushTEnv, "advance", explodes)
        with pytest.raises(ZeroDivisionError):
            model.rollout({}, candidates(2), decode=False)
    assert env.unwrapped.get_state() == twin.unwrapped.get_state()
    one, other = (e.step(np.array([300.0, 250.0]))[0] for e in (env, twin))
    np.testing.assert_array_equal(one["pixels"], other["pixels"])


def test_only_frames_that_are_looked_at_are_drawn_or_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    env = pusht()
    obs, _ = env.reset(seed=0)
    counts = {"get_obs": 0, "advance": 0}
    for name in counts:
        original = getattr(PushTEnv, name)

        def counted(self: Any, *args: Any, name: str = name, original: Any = original) -> Any:
            counts[name] += 1
            return original(self, *args)

        monkeypatch.setattr(PushTEnv, name, counted)
    model = SimulatorModel(env)
    assert model.rollout(obs, candidates(3), frames=(1,)).frames.shape == (3, 1, 96, 96, 3)
    assert counts == {"get_obs": 3, "advance": 24}
    hidden = model.rollout(obs, candidates(3), frames=(-1,), decode=False)
    assert counts["get_obs"] == 3 and hidden.states is not None and len(hidden.states) == len(hidden) == 3


class Line(gym.Env[dict[str, np.ndarray], np.ndarray]):
    """Has nothing but the state interface, and ends at 1."""

    observation_space = gym.spaces.Dict({"agent_pos": gym.spaces.Box(-9, 9, (1,), np.float32)})
    action_space = gym.spaces.Box(-1.0, 1.0, (1,), np.float32)
    metadata: ClassVar[dict[str, Any]] = {"render_modes": []}
    pixels = True

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.x = 0.0
        return self._obs(), {}

    def step(self, action: np.ndarray) -> Any:
        assert self.x < 1, "stepped on after the end"
        self.x += float(action[0])
        return self._obs(), 0.0, self.x >= 1, False, {}

    def get_state(self) -> float:
        return self.x

    def set_state(self, state: float) -> None:
        self.x = state

    def _obs(self) -> dict[str, np.ndarray]:
        obs: dict[str, np.ndarray] = {"agent_pos": np.array([self.x], np.float32)}
        return obs | ({"pixels": np.full((4, 4, 3), int(20 * abs(self.x)), np.uint8)} if self.pixels else {})


def test_any_environment_with_the_state_interface_will_do() -> None:
    env = Line()
    obs, _ = env.reset()
    plans = np.array([[[0.1]] * 4, [[0.5]] * 4], np.float32)
    roll = SimulatorModel(env, frame_stride=2).rollout(obs, plans)
    np.testing.assert_allclose([list(s) for s in roll.states], [[0.2, 0.4], [1.0, 1.0]], atol=1e-6)
    assert roll.frames[:, :, 0, 0, 0].tolist() == [[4, 8], [20, 20]], "an episode that has ended keeps its last frame"
    env.pixels = False
    with pytest.raises(ValueError, match="no 'pixels'"):
        SimulatorModel(env).rollout(env.reset()[0], plans)


def test_a_simulator_without_set_state_is_refused() -> None:
    with pytest.raises(TypeError, match=r"no get_state\(\) and no set_state\(\)"):
        SimulatorModel(gym.make("Pendulum-v1"))


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (candidates(2, steps=15), "multiple of the frame stride 4"),
        (candidates(2)[..., :1], r"\(S, T, 2\)"),
        (np.full((1, 16, 2), np.nan), "NaN"),
        (np.full((1, 16, 2), 600.0), "600 is outside"),
    ],
)
def test_wrong_actions_are_named(wrong: np.ndarray, match: str) -> None:
    env = pusht()
    obs, _ = env.reset(seed=0)
    with pytest.raises(ValueError, match=match):
        SimulatorModel(env).rollout(obs, wrong)


def planner(env: gym.Env[Any, Any], **options: Any) -> SamplingPlanner:
    proposals = UniformProposals(env.action_space, horizon=8, hold=8)
    defaults = {"n_samples": 12, "execute": 4}
    return SamplingPlanner(
        dynamics=SimulatorModel(env), objective=PushTCoverage(), proposals=proposals, **defaults | options
    )


def test_stable_baselines3_evaluates_a_planner() -> None:
    from stable_baselines3.common.evaluation import evaluate_policy

    env = pusht(8)
    rewards, lengths = evaluate_policy(
        planner(env, n_samples=4), env, n_eval_episodes=2, return_episode_rewards=True, warn=False
    )
    assert lengths == [8, 8] and np.isfinite(rewards).all()


def test_several_environments_need_their_states_in_the_observation() -> None:
    envs = [pusht() for _ in range(2)]
    observations = [e.reset(seed=i)[0] for i, e in enumerate(envs)]
    batch: dict[str, Any] = {k: np.stack([o[k] for o in observations]) for k in observations[0]}
    agent = planner(pusht(), n_samples=4)
    agent.dynamics.env.reset(seed=9)
    with pytest.raises(ValueError, match="put each environment's get_state"):
        agent.predict(batch)
    batch["state"] = np.array([e.unwrapped.get_state() for e in envs], dtype=object)
    together, _ = agent.predict(batch, agent.initial_state(2, seed=0))
    for i, env in enumerate(envs):
        alone = planner(env, n_samples=4)
        action, _ = alone.predict(observations[i], alone.initial_state(1, seed=i))
        np.testing.assert_array_equal(action, together[i])


def test_coverage_read_from_frames_is_the_simulators() -> None:
    env = pusht().unwrapped
    errors, middles = [], []
    for block in ([256, 256, np.pi / 4], [240, 270, 0.9], [300, 200, 2.0], [120, 380, 4.0], [262, 250, 0.8]):
        obs, info = env.reset(options={"reset_to_state": [60, 60, *block]})
        model = SimulatorModel(env)
        roll = model.rollout(obs, np.full((1, 4, 2), 60.0), frames=(-1,))
        coverage, middle, seen = PushTCoverage().read(roll)
        assert seen.all()
        errors.append(abs(float(coverage[0, 0]) - info["coverage"]))
        middles.append(np.linalg.norm(middle[0, 0] - np.array(env.block.local_to_world(env.block.center_of_gravity))))
    assert max(errors) < 0.06, errors
    assert max(middles) < 10, middles  # the middle of the area, where the simulator has the centre of two equal masses


def test_coverage_survives_blur_and_says_when_no_block_is_there() -> None:
    from PIL import Image, ImageFilter

    env = pusht().unwrapped
    obs, info = env.reset(options={"reset_to_state": [60, 60, 240, 270, 0.9]})
    roll = SimulatorModel(env).rollout(obs, np.full((1, 4, 2), 60.0), frames=(-1,))
    soft = Image.fromarray(roll.frames[0, 0]).filter(ImageFilter.GaussianBlur(1.5))
    blurred = np.asarray(soft)[None, None]
    changed = type(roll)(blurred, None, roll.frame_steps, all_steps=roll.all_steps)
    assert abs(float(PushTCoverage().read(changed)[0][0, 0]) - info["coverage"]) < 0.1
    empty = np.full((2, 1, 96, 96, 3), 255, np.uint8)
    result = PushTCoverage(reach=0.5).evaluate(type(roll)(empty, None, roll.frame_steps, all_steps=roll.all_steps))
    assert result.costs.tolist() == [1.5, 1.5] and not result.valid.any()
    assert block_share(empty[0]).sum() == 0


def test_a_plan_in_the_true_simulator_pushes_the_block_nearer() -> None:
    env = pusht()
    env.reset(seed=0)
    obs = env.reset(options={"reset_to_state": [100, 380, 180, 300, 0.8]})[0]
    target = StateCost(lambda s: -s.max_coverage)
    plan = planner(env, n_samples=40).plan(obs, seed=0)
    assert plan.cost <= np.median(plan.costs) - 0.005, "candidates must differ for this to test anything"
    assert target.required_frames().pixels is False
    model = SimulatorModel(env)
    chosen, worst = (
        model.rollout(obs, plan.candidates[[i]], frames=(-1,)) for i in (plan.best, int(plan.costs.argmax()))
    )
    assert PushTCoverage()(chosen)[0] < PushTCoverage()(worst)[0]


@pytest.mark.slow
def test_guided_by_the_simulator_the_shipped_policy_does_better() -> None:
    """Two episodes of 90 steps: the best of 8 proposals beats the first of them."""
    model = uva.UVA.from_pretrained("pusht-nano")
    best = {"alone": [], "guided": []}  # type: ignore[var-annotated]
    for seed in (100_003, 100_007):
        for name in best:
            env = pusht(90)
            obs, _ = env.reset(seed=seed)
            agent: Any = model.policy()
            if name == "guided":
                agent = SamplingPlanner(
                    dynamics=SimulatorModel(env), objective=PushTCoverage(), proposals=model.policy(), n_samples=8
                )
            agent.reset(seed=seed)
            done, rewards = False, [0.0]
            while not done:
                obs, reward, terminated, truncated, _ = env.step(agent.act(obs))
                rewards.append(float(reward))
                done = terminated or truncated
            best[name].append(max(rewards))
    assert np.mean(best["guided"]) > np.mean(best["alone"]), best


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda thing: pickle.loads(pickle.dumps(thing))], ids=["deepcopy", "pickle"]
)
def test_a_copy_of_the_simulator_has_its_own_environment_and_sees_the_same(duplicate: Any) -> None:
    env, plans = pusht(), candidates(2)
    obs, _ = env.reset(seed=7)
    env.step(np.array([250.0, 200.0]))
    model = SimulatorModel(env)
    other = duplicate(model)
    assert other.env is not env and other._base is other.env.unwrapped and other.identity == model.identity
    one, two = (m.rollout(obs, plans) for m in (model, other))
    np.testing.assert_array_equal(one.frames, two.frames)
    other.env.step(np.array([100.0, 100.0]))
    np.testing.assert_array_equal(model.rollout(obs, plans).frames, one.frames)
    agent = planner(env, n_samples=4)
    again = duplicate(agent)
    np.testing.assert_array_equal(agent.plan(obs, seed=1).actions, again.plan(obs, seed=1).actions)
    copied = duplicate(SimulatorModel(pusht()))
    np.testing.assert_array_equal(copied.env.reset(seed=7)[0]["pixels"], obs["pixels"])


def test_states_of_another_environment_and_a_closed_one_are_named() -> None:
    env, other = pusht(), gym.make("uva/PushTMulti-v0")
    obs, _ = env.reset(seed=0)
    other.reset(seed=0)
    model = SimulatorModel(env)
    with pytest.raises(ValueError, match="is of uva/PushTMulti-v0"):
        model.rollout({**obs, "state": other.unwrapped.get_state()}, candidates(1))
    env.close()
    with pytest.raises(RuntimeError, match=r"get_state\(\) after close\(\)"):
        model.rollout(obs, candidates(1))
