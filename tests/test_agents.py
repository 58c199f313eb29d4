"""Policy, WorldModel, InverseModel: the contract, state as a value, and errors that name the mistake."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import uva_agents as uva
from tests.tiny import observation, tiny_bundle, tiny_weights
from uva_agents.agents import Agent, AgentState, Policy, WorldModel
from uva_agents.agents.uva import UVA
from uva_agents.envs.pusht import PushTEnv
from uva_agents.model import SamplerConfig


@pytest.fixture(scope="module")
def model() -> UVA:
    return UVA(tiny_bundle())


def test_weights_round_trip_and_the_three_agents_share_them(tmp_path: Path) -> None:
    folder = tiny_weights(tmp_path / "w")
    loaded = uva.UVA.from_pretrained(folder)
    policy, world, inverse = loaded.policy(), loaded.world_model(), loaded.inverse_model()
    assert policy.weights.net is world.weights.net is inverse.weights.net
    original, again = tiny_bundle().model.state_dict(), loaded.bundle.model.state_dict()
    for name, tensor in original.items():
        torch.testing.assert_close(again[name], tensor, atol=1e-3, rtol=1e-3)
    assert isinstance(uva.Policy.from_pretrained(folder), Agent)


def test_act_gives_one_action_inside_the_action_space(model: UVA) -> None:
    policy = model.policy()
    policy.reset(seed=0)
    for i in range(20):
        action = policy.act(observation(i))
        assert action.shape == (2,) and action.dtype == np.float32 and policy.action_space.contains(action)


def test_unbatched_in_unbatched_out_and_torch_observations_are_accepted(model: UVA) -> None:
    policy = model.policy()
    one, _ = policy.predict(observation(0), policy.initial_state(1, seed=3))
    batch = {k: torch.from_numpy(v)[None] for k, v in observation(0).items()}
    many, state = policy.predict(batch, policy.initial_state(1, seed=3))
    assert one.shape == (2,) and many.shape == (1, 2)
    np.testing.assert_array_equal(one, many[0])
    assert isinstance(state, AgentState) and len(state) == 1


def test_predict_is_a_function_of_its_state_and_changes_nothing(model: UVA) -> None:
    policy = model.policy()
    state = policy.initial_state(1, seed=5)
    for i in range(3):
        _, state = policy.predict(observation(i), state)
    first, after = policy.predict(observation(9), state)
    again, after_again = policy.predict(observation(9), state)
    np.testing.assert_array_equal(first, again)
    assert len(after[0].frames) == len(after_again[0].frames) == 4 and len(state[0].frames) == 3


def test_a_batch_equals_the_single_runs_bit_for_bit_whatever_resets_when(model: UVA) -> None:
    policy = model.policy()
    seeds, steps = [11, 22, 33], 30
    restarts = {(7, 0): 44, (19, 1): 55, (20, 0): 66}  # (step, row): seed of the next episode
    together = []
    state = policy.initial_state(3, seed=seeds)
    for t in range(steps):
        mask = np.array([(t, row) in restarts for row in range(3)])
        state = state.restarted(mask, [restarts.get((t, row), 0) for row in range(3)])
        rows = [observation(100 * row + t) for row in range(3)]
        action, state = policy.predict({k: np.stack([r[k] for r in rows]) for k in rows[0]}, state)
        together.append(action)
    for row in range(3):
        single = policy.initial_state(1, seed=seeds[row])
        for t in range(steps):
            if (t, row) in restarts:
                single = policy.initial_state(1, seed=restarts[t, row])
            action, single = policy.predict(observation(100 * row + t), single)
            np.testing.assert_array_equal(action, together[t][row])


def test_episode_start_empties_the_queue_and_the_history_of_that_row_only(model: UVA) -> None:
    policy = model.policy()
    state = policy.initial_state(2, seed=0)
    for t in range(3):
        _, state = policy.predict(observation(t, 2), state)
    _, state = policy.predict(observation(9, 2), state, episode_start=np.array([True, False]))
    assert len(state[0].frames) == 1 and len(state[1].frames) == 4
    assert state[0].decisions == 1 and len(state[0].queue) == policy.execute - 1


def test_reset_forgets_history_and_queued_actions(model: UVA) -> None:
    policy = model.policy()
    policy.reset(seed=4)
    first = policy.act(observation(0))
    policy.act(observation(1))
    policy.reset(seed=4)
    np.testing.assert_array_equal(policy.act(observation(0)), first)


def test_deterministic_prediction_ignores_the_seed(model: UVA) -> None:
    policy = model.policy()
    runs = [
        policy.predict(observation(0), policy.initial_state(1, seed=s), deterministic=d)[0]
        for d in (True, False)
        for s in (1, 2)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[2], runs[3])


def test_smoothing_averages_neighbouring_actions_and_repeats_the_ends(model: UVA) -> None:
    rough, smooth = (Policy(model, smooth=taps).sample(observation(0), n=1, seed=3)[0] for taps in (1, 3))
    near = np.stack([np.concatenate([rough[:1], rough[:-1]]), rough, np.concatenate([rough[1:], rough[-1:]])])
    inside = ((near > 0) & (near < 512)).all(0)  # the action space cuts off what goes beyond it, before and after
    assert inside.any(axis=0).all()
    np.testing.assert_allclose(smooth[inside], near.mean(0)[inside], rtol=1e-4)
    with pytest.raises(ValueError, match="odd"):
        Policy(model, smooth=2)


def test_a_new_decision_comes_after_execute_actions(model: UVA) -> None:
    policy = Policy(model, execute=5)
    state = policy.initial_state(1, seed=0)
    decisions = []
    for t in range(11):
        _, state = policy.predict(observation(t), state)
        decisions.append(state[0].decisions)
    assert decisions == [1] * 5 + [2] * 5 + [3]
    with pytest.raises(ValueError, match="between 1 and the chunk length 16"):
        Policy(model, execute=17)


def test_a_frame_is_encoded_once(model: UVA, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    original = UVA.encode
    monkeypatch.setattr(
        UVA, "encode", lambda self, frames, *wrist: encoded.append(len(frames)) or original(self, frames)
    )
    policy = model.policy()
    state = policy.initial_state(1, seed=0)
    for t in range(33):
        _, state = policy.predict(observation(t), state)
    # Decisions at 0, 8, 16, 24, 32; frames 0, 4, 8, ... 32 are looked at.
    assert sum(encoded) == 9


def test_history_changes_the_sample_and_padding_repeats_the_first_frame(model: UVA) -> None:
    policy = model.policy()
    now = observation(0)
    past = {k: np.stack([observation(i)[k] for i in range(1, 13)]) for k in now}
    alone = policy.sample(now, n=2, seed=0)
    assert alone.shape == (2, 16, 2)
    assert not np.allclose(alone, policy.sample(now, n=2, seed=0, history=past))
    repeated = {k: np.stack([now[k]] * 12) for k in now}
    # Not to the bit: four frames encoded together round differently from one.
    np.testing.assert_allclose(alone, policy.sample(now, n=2, seed=0, history=repeated), atol=0.05)
    assert policy.sample(observation(0, 3), n=4).shape == (3, 4, 16, 2)


def test_world_model_rolls_out_multiples_of_the_chunk(model: UVA) -> None:
    world = model.world_model()
    actions = np.random.default_rng(0).uniform(0, 512, (3, 32, 2))
    roll = world.rollout(observation(0), actions)
    assert roll.frames.shape == (3, 8, 96, 96, 3) and roll.frames.dtype == np.uint8
    assert roll.frame_steps.tolist() == [4, 8, 12, 16, 20, 24, 28, 32]
    assert world.generate(observation(0), n=2).frames.shape == (2, 4, 96, 96, 3)
    joint = world.imagine(observation(0), n=2)
    assert joint.actions is not None and joint.actions.shape == (2, 16, 2)
    for wrong in (actions[:, :15], actions[..., :1], np.full((1, 16, 2), np.nan)):
        with pytest.raises(ValueError, match="actions"):
            world.rollout(observation(0), wrong)


def test_a_video_of_any_length_is_labelled_by_overlapping_windows(model: UVA) -> None:
    inverse = model.inverse_model()
    video = np.stack([observation(i)["pixels"] for i in range(30)])
    exactly = inverse.label(video[:17])
    np.testing.assert_array_equal(exactly, inverse.infer(video[[4, 8, 12, 16]]))
    whole = inverse.label(video)
    assert whole.shape == (29, 2) and np.isfinite(whole).all()
    # Windows begin at 0, 4, 8, 12 and, last, 13: actions 4 to 7 are seen by the first two.
    first, second = inverse.infer(video[[4, 8, 12, 16]]), inverse.infer(video[[8, 12, 16, 20]])
    np.testing.assert_allclose(whole[4:8], (first[4:8] + second[:4]) / 2, rtol=1e-4, atol=0.1)
    np.testing.assert_allclose(whole[28], inverse.infer(video[[17, 21, 25, 29]])[15], rtol=1e-4, atol=0.1)
    np.testing.assert_allclose(inverse.label(video, batch_size=2), whole, rtol=1e-4, atol=0.1)
    assert inverse.label(video[:5]).shape == (4, 2)
    with pytest.raises(ValueError, match="at least 2 frames"):
        inverse.label(video[:1])


def test_inverse_model_takes_frames_alone(model: UVA) -> None:
    inverse = model.inverse_model()
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 96, 96, 3), dtype=np.uint8)
    both = inverse.infer(frames)
    assert both.shape == (2, 16, 2)
    assert inverse.infer(frames[0]).shape == (16, 2)
    np.testing.assert_array_equal(inverse.infer(frames), both)
    with pytest.raises(ValueError, match="4 frames"):
        inverse.infer(frames[0, :3])
    # History before the future changes nothing; a video at the control rate is another stride.
    np.testing.assert_array_equal(inverse.infer(np.concatenate([frames[1], frames[0]])), inverse.infer(frames[0]))
    with pytest.raises(ValueError, match=r"4 control steps apart, got 16.*every 4th.*label\(\)"):
        inverse.infer(np.repeat(frames[0], 4, axis=0))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda o: (o, {}), TypeError, r"\(obs, info\)"),
        (lambda o: o["pixels"], TypeError, "dict"),
        (lambda o: {"agent_pos": o["agent_pos"]}, KeyError, "no 'pixels'"),
        (lambda o: {"pixels": o["pixels"]}, KeyError, "no 'agent_pos'"),
        (lambda o: {**o, "pixels": o["pixels"] / 255}, ValueError, r"uint8 in \[0, 255\].*scaled"),
        (lambda o: {**o, "pixels": o["pixels"].transpose(2, 0, 1)}, ValueError, "channels-first"),
        (lambda o: {**o, "pixels": o["pixels"][:80]}, ValueError, "96x96"),
        (lambda o: {**o, "pixels": o["pixels"][..., :1]}, ValueError, "3 channels"),
        (lambda o: {**o, "agent_pos": np.zeros(3)}, ValueError, "agent_pos"),
        (lambda o: {**o, "agent_pos": np.array([np.nan, 0])}, ValueError, "NaN"),
    ],
)
def test_a_wrong_observation_is_named(model: UVA, change: object, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        model.policy().predict(change(observation(0)))  # type: ignore[operator]


def test_a_state_of_another_batch_is_refused(model: UVA) -> None:
    policy = model.policy()
    with pytest.raises(ValueError, match="2 environments, the observation has 3"):
        policy.predict(observation(0, 3), policy.initial_state(2, seed=0))


def test_a_foreign_action_space_is_refused(model: UVA) -> None:
    with pytest.raises(ValueError, match="use weights trained for it"):
        model.policy().check_env(gym.make("Pendulum-v1"))
    model.policy().check_env(gym.make("uva/PushT-v0"))


def test_unknown_and_damaged_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no weights called 'pusht-mano'"):
        uva.Policy.from_pretrained("pusht-mano")
    folder = tiny_weights(tmp_path / "w")
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged or truncated"):
        uva.Policy.from_pretrained(folder)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing"):
        uva.Policy.from_pretrained(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        uva.Policy.from_pretrained(folder)


def test_a_renamed_tensor_is_named_with_the_closest(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tiny_weights(tmp_path / "w")
    tensors = load_file(folder / "model.safetensors")
    tensors["mixx.weight"] = tensors.pop("mix.weight")
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"'mix\.weight'.*mixx\.weight"):
        uva.Policy.from_pretrained(folder)


def test_stable_baselines3_evaluates_the_policy(model: UVA) -> None:
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import DummyVecEnv

    make = lambda: gym.make("uva/PushT-v0", max_episode_steps=20)  # noqa: E731
    rewards, lengths = evaluate_policy(
        model.policy(), DummyVecEnv([make, make]), n_eval_episodes=3, return_episode_rewards=True, warn=False
    )
    assert len(rewards) == 3 and all(n <= 20 for n in lengths)
    mean, _ = evaluate_policy(model.policy(), make(), n_eval_episodes=1, warn=False)
    assert np.isfinite(mean)


class UnequalPushT(PushTEnv):
    """PushT whose episodes end after a number of steps that depends on the seed."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.left = 10 + 5 * ((seed or 0) % 4)
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        obs, reward, terminated, _, info = super().step(action)
        self.left -= 1
        return obs, reward, terminated, self.left <= 0, info


@pytest.fixture
def unequal() -> Iterator[str]:
    name = "tests/UnequalPushT-v0"
    gym.register(name, entry_point=UnequalPushT)
    yield name
    del gym.registry[name]


def test_a_vectorised_evaluation_equals_the_single_runs_bit_for_bit(model: UVA, unequal: str) -> None:
    reports = [uva.evaluate(model.policy(), unequal, 7, n_envs=n, progress=False) for n in (1, 3)]
    episodes = [[vars(e) for e in report.episodes] for report in reports]
    assert len({e["length"] for e in episodes[0]}) > 2, "the lengths must differ for this to test anything"
    assert episodes[0] == episodes[1]


def test_selected_frames_are_those_of_the_whole_rollout(model: UVA) -> None:
    """Whatever is left out, batched or prepared beforehand: the frames that are asked for stay the same."""
    actions = np.random.default_rng(0).uniform(0, 512, (5, 32, 2))
    for sampler in (None, SamplerConfig(), SamplerConfig(iterations=3)):
        world = WorldModel(model, sampler=sampler)
        whole = world.rollout(observation(0), actions, seed=3)
        assert whole.decoded and whole.actions is not None and whole.actions.shape == (5, 32, 2)
        np.testing.assert_array_equal(whole.now, observation(0)["pixels"])
        small = WorldModel(model, sampler=sampler, batch_size=2)
        for frames in ((1, 5), (0, -1)):
            part = small.rollout(world.prepare(observation(0)), actions, seed=3, frames=frames)
            expected = whole.select(frames)
            assert part.frame_steps.tolist() == expected.frame_steps.tolist() == [4 * (i % 8 + 1) for i in frames]
            assert part.frames.shape == (5, len(frames), 96, 96, 3)
            # Not to the bit: products of another batch size round differently.
            torch.testing.assert_close(part.latents, expected.latents, rtol=1e-3, atol=1e-3)
            assert np.abs(part.frames.astype(int) - expected.frames).max() <= 2
        hidden = small.rollout(observation(0), actions, seed=3, frames=frames, decode=False)
        assert hidden.frames.shape == (5, 0, 96, 96, 3) and not hidden.decoded
        torch.testing.assert_close(hidden.latents, expected.latents, rtol=1e-3, atol=1e-3)
    nothing = world.rollout(observation(0), actions, frames=())
    assert len(nothing) == 5 and nothing.frame_steps.size == 0
    with pytest.raises(ValueError, match=r"no frames at control steps \[8\]"):
        part.select((0, 1))
    with pytest.raises(ValueError, match="has 8 frames, 8 is not one of them"):
        world.rollout(observation(0), actions, frames=(8,))


def test_only_what_is_looked_at_is_decoded(model: UVA, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[int] = []
    original = UVA.decode
    monkeypatch.setattr(
        UVA,
        "decode",
        lambda self, tokens, **kw: decoded.append(tokens[..., 0, 0].numel()) or original(self, tokens, **kw),
    )
    actions = np.full((6, 16, 2), 200.0)
    world = model.world_model()
    world.rollout(observation(0), actions, frames=(-1,))
    world.rollout(observation(0), actions, decode=False)
    assert decoded == [6]


def test_the_history_is_encoded_once_for_all_candidates(model: UVA, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded: list[int] = []
    original = UVA.encode
    monkeypatch.setattr(
        UVA, "encode", lambda self, frames, *wrist: encoded.append(len(frames)) or original(self, frames)
    )
    world = WorldModel(model, batch_size=4)
    past = {k: np.stack([observation(i)[k] for i in range(1, 13)]) for k in observation(0)}
    start = world.prepare(observation(0), history=past)
    for n in (10, 3):
        world.rollout(start, np.full((n, 16, 2), 200.0), frames=(-1,))
    assert sum(encoded) == 4
    with pytest.raises(ValueError, match="prepare"):
        world.rollout(start, np.full((1, 16, 2), 200.0), history=past)


def test_fewer_steps_and_the_rendered_prior_alone() -> None:
    rendering = UVA(tiny_bundle(rendered_prior=True)).world_model()
    actions = np.random.default_rng(0).uniform(0, 512, (3, 16, 2))
    frames = [rendering.rollout(observation(0), actions, steps=n).latents for n in (0, 1, 16, None)]
    torch.testing.assert_close(frames[2], frames[3])
    assert not torch.allclose(frames[0], frames[1]) and not torch.allclose(frames[1], frames[2])
    with pytest.raises(ValueError, match="render none"):
        UVA(tiny_bundle()).world_model().rollout(observation(0), actions, steps=0)


def test_actions_in_another_unit_are_refused(model: UVA) -> None:
    with pytest.raises(ValueError, match="undo their normalisation"):
        model.world_model().rollout(observation(0), np.full((1, 16, 2), -1.0))


def test_a_planner_over_the_world_model_is_vectorised_and_keeps_the_memory_of_the_policy(model: UVA) -> None:
    from uva_agents.planners import GoalImage, SamplingPlanner

    planner = SamplingPlanner(
        dynamics=model.world_model(),
        objective=GoalImage(observation(99)["pixels"]),
        proposals=model.policy(),
        n_samples=3,
        execute=2,
    )
    state, together = planner.initial_state(2, seed=[5, 6]), []
    for t in range(5):
        actions, state = planner.predict(observation(t, 2), state)
        together.append(actions)
        assert len(state[0].observations) == min(t + 1, 13)
    for row in range(2):
        single = planner.initial_state(1, seed=5 + row)
        for t in range(5):
            obs = {k: v[row] for k, v in observation(t, 2).items()}
            action, single = planner.predict(obs, single)
            np.testing.assert_array_equal(action, together[t][row])
    # Proposals of the last decision are the policy's own samples for that history.
    plan = state[0].plan
    assert plan is not None and plan.rollout.frames.shape[1] == 1 and plan.rollout.frame_steps.tolist() == [16]
    assert planner.identity["proposals"]["weights"] == model.fingerprint
