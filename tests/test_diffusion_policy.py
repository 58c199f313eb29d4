"""DiffusionPolicy and TwoFrameInverse as agents: the contract, samples, state as a value, and errors that name the mistake."""

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

import uva_agents as uva
from tests.tiny import observation, tiny_dp_bundle, tiny_two_frame_bundle, tiny_weights
from uva_agents.agents import Agent, AgentState, DiffusionPolicy, TwoFrameInverse, load_policy
from uva_agents.checkpoints import NetBundle, info, save_net
from uva_agents.model import DiffusionPolicyNet
from uva_agents.model.vision.encoder import ImageEncoder
from uva_agents.utils.images import resize_frames


@pytest.fixture(scope="module")
def bundle() -> NetBundle[DiffusionPolicyNet]:
    return tiny_dp_bundle()


@pytest.fixture
def policy(bundle: NetBundle[DiffusionPolicyNet]) -> DiffusionPolicy:
    return DiffusionPolicy(bundle, steps=4)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """(network, batch size) of every call."""
    made: list[tuple[str, int]] = []
    encode, denoise = ImageEncoder.forward, DiffusionPolicyNet.predict_noise
    monkeypatch.setattr(
        ImageEncoder, "forward", lambda self, x, *rest: made.append(("encoder", len(x))) or encode(self, x, *rest)
    )
    monkeypatch.setattr(
        DiffusionPolicyNet,
        "predict_noise",
        lambda self, x, *rest: made.append(("denoiser", len(x))) or denoise(self, x, *rest),
    )
    return made


@pytest.mark.parametrize("kind", ["unet", "transformer"])
def test_samples_are_chunks_in_environment_units_and_differ(kind: str) -> None:
    policy = DiffusionPolicy(tiny_dp_bundle(kind), steps=4)
    chunks = policy.sample(observation(0), n=5)
    assert chunks.shape == (5, 16, 2) and chunks.dtype == np.float32
    assert chunks.min() >= 0 and chunks.max() <= 512 and chunks.max() > 2
    assert all(not np.allclose(chunks[i], chunks[j]) for i in range(5) for j in range(i))
    assert policy.sample(observation(0, 3), n=4).shape == (3, 4, 16, 2)
    with pytest.raises(ValueError, match="at least 1"):
        policy.sample(observation(0), n=0)


def test_a_hundred_samples_are_one_batch_behind_one_encoding(
    policy: DiffusionPolicy, calls: list[tuple[str, int]]
) -> None:
    policy.sample(observation(0), n=100)
    assert calls == [("encoder", 2)] + [("denoiser", 100)] * 4


def test_the_seed_determines_a_sample_and_the_stream_goes_on_without_one(policy: DiffusionPolicy) -> None:
    first = policy.sample(observation(0), n=2, seed=7)
    np.testing.assert_array_equal(first, policy.sample(observation(0), n=2, seed=7))
    assert not np.array_equal(first, policy.sample(observation(0), n=2, seed=8))
    policy.reset(seed=3)
    free = [policy.sample(observation(0)) for _ in range(2)]
    assert not np.array_equal(*free)
    policy.reset(seed=3)
    np.testing.assert_array_equal(free[0], policy.sample(observation(0)))


def test_ddpm_draws_noise_at_every_step_and_is_reproducible(bundle: NetBundle[DiffusionPolicyNet]) -> None:
    policy = DiffusionPolicy(bundle, sampler="ddpm", steps=10)
    assert DiffusionPolicy(bundle, sampler="ddpm").sampler.steps == 100 and DiffusionPolicy(bundle).sampler.steps == 16
    one = policy.sample(observation(0), n=3, seed=1)
    np.testing.assert_array_equal(one, policy.sample(observation(0), n=3, seed=1))
    assert not np.allclose(one, DiffusionPolicy(bundle, steps=10).sample(observation(0), n=3, seed=1))
    with pytest.raises(ValueError, match="between 1 and the 100"):
        DiffusionPolicy(bundle, steps=0)
    with pytest.raises(ValueError, match="'ddim' or 'ddpm'"):
        DiffusionPolicy(bundle, sampler="heun")


def test_history_changes_the_sample_and_padding_repeats_the_first_observation(policy: DiffusionPolicy) -> None:
    now = observation(0)
    past = {k: np.stack([observation(i)[k] for i in (1, 2)]) for k in now}
    alone = policy.sample(now, n=2, seed=0)
    assert not np.allclose(alone, policy.sample(now, n=2, seed=0, history=past))
    repeated = {k: v[None] for k, v in now.items()}
    np.testing.assert_allclose(alone, policy.sample(now, n=2, seed=0, history=repeated), atol=1e-3)
    with pytest.raises(ValueError, match="single observation"):
        policy.sample(observation(0, 2), history=past)


def test_it_is_an_agent_and_acts_inside_the_action_space(policy: DiffusionPolicy) -> None:
    assert isinstance(policy, Agent) and isinstance(policy.initial_state(2), AgentState)
    policy.reset(seed=0)
    for i in range(20):
        action = policy.act(observation(i))
        assert action.shape == (2,) and action.dtype == np.float32 and policy.action_space.contains(action)
    policy.check_env(gym.make("uva/PushT-v0"))
    with pytest.raises(ValueError, match="use weights trained for it"):
        policy.check_env(gym.make("Pendulum-v1"))


def test_the_first_action_of_a_chunk_is_the_one_to_take_now(policy: DiffusionPolicy) -> None:
    state = policy.initial_state(1, seed=5)
    queue = []
    for t in range(8):
        action, state = policy.predict(observation(t), state)
        queue.append(action)
    # Decided at the first observation, all eight of them.
    again, after = policy.predict(observation(0), policy.initial_state(1, seed=5))
    np.testing.assert_array_equal(again, queue[0])
    np.testing.assert_array_equal(after[0].queue, np.stack(queue[1:]))


def test_a_new_decision_comes_after_execute_actions(bundle: NetBundle[DiffusionPolicyNet]) -> None:
    policy = DiffusionPolicy(bundle, execute=6, steps=2)
    state = policy.initial_state(1, seed=0)
    decisions = []
    for t in range(13):
        _, state = policy.predict(observation(t), state)
        decisions.append(state[0].decisions)
    assert decisions == [1] * 6 + [2] * 6 + [3]
    assert DiffusionPolicy(bundle).execute == 8
    with pytest.raises(ValueError, match="between 1 and the chunk length 16"):
        DiffusionPolicy(bundle, execute=17)


def test_a_batch_equals_the_single_runs_bit_for_bit_whatever_resets_when(policy: DiffusionPolicy) -> None:
    seeds, steps = [11, 22, 33], 20
    restarts = {(7, 0): 44, (13, 1): 55}
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


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_decisions_computed_together_draw_the_same_noise(bundle: NetBundle[DiffusionPolicyNet], sampler: Any) -> None:
    results = []
    for batch_size in (1, 3):
        policy = DiffusionPolicy(bundle, sampler=sampler, steps=5, batch_size=batch_size)
        results.append(policy.predict(observation(0, 3), policy.initial_state(3, seed=4))[0])
    np.testing.assert_allclose(results[0], results[1], atol=0.05)  # rounding, in pixels of 512


def test_deterministic_prediction_ignores_the_seed(policy: DiffusionPolicy) -> None:
    runs = [
        policy.predict(observation(0), policy.initial_state(1, seed=s), deterministic=d)[0]
        for d in (True, False)
        for s in (1, 2)
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[2], runs[3])


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        (lambda o: (o, {}), TypeError, r"\(obs, info\)"),
        (lambda o: {"agent_pos": o["agent_pos"]}, KeyError, "no 'pixels'"),
        (lambda o: {"pixels": o["pixels"]}, KeyError, "no 'agent_pos'"),
        (lambda o: {**o, "pixels": o["pixels"] / 255}, ValueError, "uint8"),
        (lambda o: {**o, "pixels": o["pixels"][:80]}, ValueError, "96x96"),
        (lambda o: {**o, "agent_pos": np.zeros(3)}, ValueError, "agent_pos"),
    ],
)
def test_a_wrong_observation_is_named(policy: DiffusionPolicy, change: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        policy.predict(change(observation(0)))
    with pytest.raises(error, match=match):
        policy.sample(change(observation(0)))


def test_a_state_of_another_batch_is_refused(policy: DiffusionPolicy) -> None:
    with pytest.raises(ValueError, match="2 environments, the observation has 3"):
        policy.predict(observation(0, 3), policy.initial_state(2, seed=0))


def test_the_benchmark_evaluates_it_the_same_side_by_side(
    policy: DiffusionPolicy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gym.registry["uva/PushT-v0"], "max_episode_steps", 10)
    reports = [uva.evaluate(policy, "uva/PushT-v0", 2, n_envs=n, progress=False) for n in (1, 2)]
    episodes = [[vars(e) for e in report.episodes] for report in reports]
    assert len(episodes[0]) == 2 and episodes[0] == episodes[1]


def test_stable_baselines3_evaluates_it(policy: DiffusionPolicy) -> None:
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import DummyVecEnv

    make = lambda: gym.make("uva/PushT-v0", max_episode_steps=12)  # noqa: E731
    rewards, lengths = evaluate_policy(
        policy, DummyVecEnv([make, make]), n_eval_episodes=3, return_episode_rewards=True, warn=False
    )
    assert len(rewards) == 3 and all(n <= 12 for n in lengths)


def test_weights_round_trip(tmp_path: Path, bundle: NetBundle[DiffusionPolicyNet]) -> None:
    folder = save_net(bundle, tmp_path / "w", card="# tiny\n", dtype=torch.float32)
    again = uva.DiffusionPolicy.from_pretrained(folder, steps=4)
    assert again.name == "tiny-dp" and again.bundle.model.config == bundle.model.config
    ours = DiffusionPolicy(bundle, steps=4)
    np.testing.assert_array_equal(ours.sample(observation(0), seed=1), again.sample(observation(0), seed=1))
    assert again.fingerprint == ours.fingerprint and again.identity == ours.identity
    assert isinstance(load_policy(folder, device="cpu"), DiffusionPolicy)
    text = info(folder)
    assert "diffusion-policy: load with uva.DiffusionPolicy" in text and "# tiny" in text


def test_the_wrong_class_names_the_right_one(tmp_path: Path, bundle: NetBundle[DiffusionPolicyNet]) -> None:
    dp, pair, joint = tmp_path / "dp", tmp_path / "pair", tiny_weights(tmp_path / "uva")
    save_net(bundle, dp)
    save_net(tiny_two_frame_bundle(), pair)
    for load in (uva.Policy, uva.WorldModel, uva.InverseModel, uva.UVA, uva.TwoFrameInverse):
        with pytest.raises(ValueError, match=r"holds diffusion-policy weights.*uva\.DiffusionPolicy"):
            load.from_pretrained(dp)
    with pytest.raises(ValueError, match=r"holds uva weights.*uva\.Policy"):
        uva.DiffusionPolicy.from_pretrained(joint)
    with pytest.raises(ValueError, match=r"holds uva weights.*uva\.Policy"):
        uva.DiffusionPolicy.from_pretrained("pusht-nano")
    with pytest.raises(ValueError, match=r"holds two-frame-inverse weights.*uva\.TwoFrameInverse"):
        uva.DiffusionPolicy.from_pretrained(pair)
    with pytest.raises(ValueError, match="do not act"):
        load_policy(pair)
    with pytest.raises(FileNotFoundError, match="no weights called 'dp-d'"):
        uva.DiffusionPolicy.from_pretrained("dp-d")
    with pytest.raises(ValueError, match="torch file"):
        uva.DiffusionPolicy.from_pretrained("latest.ckpt")


def test_a_kind_of_a_later_version_is_refused(tmp_path: Path, bundle: NetBundle[DiffusionPolicyNet]) -> None:
    folder = save_net(bundle, tmp_path / "w")
    config = folder / "config.json"
    config.write_text(config.read_text().replace("diffusion-policy", "quantum-policy"))
    with pytest.raises(ValueError, match="'quantum-policy' weights"):
        uva.DiffusionPolicy.from_pretrained(folder)


def test_frames_of_another_size_are_resized_as_in_training() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8)
    assert resize_frames(frames, 96).shape == (3, 96, 96, 3)
    np.testing.assert_array_equal(resize_frames(frames, 32, batch_size=2), resize_frames(frames, 32))
    same = np.zeros((2, 96, 96, 3), np.uint8)
    assert resize_frames(same, 96) is same


# -- the two-frame baseline ------------------------------------------------------------------------------------------


def test_two_frames_give_the_action_between_them_and_a_video_all_of_them() -> None:
    inverse = TwoFrameInverse(tiny_two_frame_bundle())
    video = np.stack([observation(i)["pixels"] for i in range(7)])
    track = inverse.label(video)
    assert track.shape == (6, 2) and track.dtype == np.float32
    for t in range(6):
        np.testing.assert_allclose(inverse.infer(video[t : t + 2])[0], track[t], atol=0.05)
    both = inverse.infer(np.stack([video, video[::-1]]))
    assert both.shape == (2, 6, 2)
    np.testing.assert_allclose(both[0], track, atol=0.05)
    np.testing.assert_allclose(TwoFrameInverse(inverse.bundle, batch_size=2).label(video), track, atol=0.05)
    assert all(inverse.action_space.contains(a) for a in track)
    with pytest.raises(ValueError, match="at least 2 frames"):
        inverse.infer(video[:1])
    with pytest.raises(ValueError, match="at least 2 frames"):
        inverse.label(video[:1])
    with pytest.raises(ValueError, match="one video"):
        inverse.label(video[None])
    with pytest.raises(ValueError, match="uint8"):
        inverse.label(video / 255)


@pytest.mark.parametrize("length", [2, 4, 5, 9, 11])
def test_frames_further_apart_give_the_actions_between_and_still_label_every_step(length: int) -> None:
    inverse = TwoFrameInverse(tiny_two_frame_bundle(stride=4))
    video = np.stack([observation(i)["pixels"] for i in range(length)])
    pair = inverse.infer(video[[0, min(4, length - 1)]])
    assert pair.shape == (4, 2) and np.abs(pair[1:] - pair[0]).max() > 0  # four answers, not one repeated
    track = inverse.label(video)
    assert track.shape == (length - 1, 2)
    np.testing.assert_allclose(track[:4], pair[: length - 1], atol=0.05)
    if length > 5:  # the last actions come from the last frame and the one four steps before
        end = inverse.infer(video[[-5, -1]])
        np.testing.assert_allclose(track[-((length - 1) % 4 or 4) :], end[-((length - 1) % 4 or 4) :], atol=0.05)
    if length == 9:
        np.testing.assert_array_equal(inverse.infer(video[::4]), track)
        swapped = video.copy()
        swapped[[1, 2, 3, 5, 6, 7]] = 0  # frames between are not looked at
        np.testing.assert_array_equal(inverse.label(swapped), track)


def test_two_frame_weights_round_trip(tmp_path: Path) -> None:
    bundle = tiny_two_frame_bundle()
    again = uva.TwoFrameInverse.from_pretrained(save_net(bundle, tmp_path / "w", dtype=torch.float32))
    video = np.stack([observation(i)["pixels"] for i in range(3)])
    np.testing.assert_array_equal(again.label(video), TwoFrameInverse(bundle).label(video))
    assert again.name == "tiny-pair"
