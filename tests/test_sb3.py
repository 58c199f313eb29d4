"""The bridge to stable-baselines3: agents in its evaluation, UVA's joint latent under its algorithms."""

import importlib.util
import sys
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

pytest.importorskip("stable_baselines3")

from stable_baselines3 import PPO, SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecTransposeImage

from tests.conftest import REPOSITORY
from tests.tiny import tiny_bundle, tiny_weights
from uva_agents.agents.encoding import ObservationEncoder
from uva_agents.agents.uva import UVA
from uva_agents.bridges.latents import JointLatent
from uva_agents.bridges.sb3 import SB3Agent, UVAFeatures, UVAFeatureVecEnv
from uva_agents.envs.pusht import PushTEnv
from uva_agents.model import Task

FORKED = partial(SubprocVecEnv, start_method="fork")


class Seeded(PushTEnv):
    """PushT that starts its k-th episode from seed 10 * first + k, and ends it after 9 + (that seed % 3) steps."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.next = 10 * first

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.left = 9 + self.next % 3
        obs, info = super().reset(seed=self.next, options=options)
        self.next += 1
        return obs, info

    def step(self, action: Any) -> Any:
        obs, reward, terminated, _, info = super().step(action)
        self.left -= 1
        return obs, reward - 1e-3 * float(np.linalg.norm(obs["agent_pos"])), terminated, self.left <= 0, info


@pytest.fixture(scope="module")
def uva() -> UVA:
    return UVA(tiny_bundle())


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights") / "tiny")


def moment(seed: int = 0) -> dict[str, np.ndarray]:
    return PushTEnv().reset(seed=seed)[0]


def space(**changes: gym.Space[Any]) -> gym.spaces.Dict:
    return gym.spaces.Dict({**PushTEnv().observation_space.spaces, **changes})  # type: ignore[attr-defined]


# -- agents ------------------------------------------------------------------------------------------------------------


def alone(uva: UVA, first: int, episodes: int) -> tuple[list[float], list[int]]:
    """The same episodes in a plain loop, with the agent seeds that ``predict`` draws for environment number ``first``."""
    env, agent = Seeded(first), uva.policy()
    rewards, lengths = [], []
    for k in range(episodes):
        (obs, _), state, total, done = env.reset(), agent.initial_state(1, seed=first + k), [], False
        while not done:
            action, state = agent.predict({key: value[None] for key, value in obs.items()}, state)
            obs, reward, terminated, truncated, _ = env.step(action[0])
            done = terminated or truncated
            total.append(reward)
        rewards.append(float(np.sum(np.float32(total), dtype=np.float64)))
        lengths.append(len(total))
    return rewards, lengths


@pytest.mark.parametrize(
    ("kind", "transposed"),
    [
        (DummyVecEnv, False),
        (FORKED, True),
        # Its own way of starting processes imports everything anew in each.
        pytest.param(SubprocVecEnv, False, marks=pytest.mark.slow),
    ],
    ids=["one process", "processes, images transposed", "fresh processes"],
)
def test_evaluate_policy_over_several_environments_equals_the_single_runs(
    uva: UVA, kind: Any, transposed: bool
) -> None:
    env = kind([partial(Seeded, i) for i in range(3)])
    env = VecTransposeImage(env) if transposed else env
    seen: dict[int, list[tuple[float, int]]] = {0: [], 1: [], 2: []}

    def note(scope: dict[str, Any], _: Any) -> None:
        if scope["done"]:
            i = scope["i"]
            seen[i].append((float(scope["current_rewards"][i]), int(scope["current_lengths"][i])))

    # deterministic=False: every environment has to have its own random stream.
    evaluate_policy(SB3Agent(uva.policy()), env, 6, deterministic=False, callback=note, warn=False)
    env.close()
    for first, episodes in seen.items():
        rewards, lengths = alone(uva, first, 2)
        assert [n for _, n in episodes] == lengths
        np.testing.assert_allclose([r for r, _ in episodes], rewards, rtol=1e-6)
    assert len({n for episodes in seen.values() for _, n in episodes}) > 1  # they did end at different times


def test_an_agent_without_predict_is_named() -> None:
    with pytest.raises(TypeError, match=r"Env has no predict"):
        SB3Agent(gym.Env())


# -- the features extractor --------------------------------------------------------------------------------------------


def expected(uva: UVA, obs: dict[str, np.ndarray], pool: str, history: Any = None) -> np.ndarray:
    """Pooled by hand."""
    with torch.no_grad():
        encoder = ObservationEncoder(uva)
        inputs, _ = encoder.context(encoder.memories(obs, history)[0])
        model, n = uva.net, inputs.batch_size
        z = model.joint_latent(inputs, model.visibility(Task.POLICY, n))
        if pool == "action":
            return model.action_condition(z).numpy()
        grid = z.view(n, 4, 9, -1)
        return {"frames": grid.mean(2).flatten(1), "mean": z.mean(1), "tokens": z.flatten(1)}[pool].numpy()


@pytest.mark.parametrize("pool", ["action", "frames", "mean", "tokens"])
@pytest.mark.parametrize("order", ["last", "first"])
def test_features_are_the_joint_latent_of_either_image_order(weights: Path, pool: str, order: str) -> None:
    obs = {k: np.stack([moment(s)[k] for s in (0, 1)]) for k in ("pixels", "agent_pos")}
    pixels = obs["pixels"] if order == "last" else np.moveaxis(obs["pixels"], -1, 1)
    extractor = UVAFeatures(
        space(pixels=gym.spaces.Box(0, 255, pixels.shape[1:], np.uint8)), weights=weights, pool=pool
    )
    # As stable-baselines3 preprocesses: images to [0, 1].
    features = extractor({"pixels": torch.tensor(pixels) / 255.0, "agent_pos": torch.tensor(obs["agent_pos"])})
    assert features.shape == (2, extractor.features_dim) and not features.requires_grad
    uva = UVA.from_pretrained(weights, device="cpu")
    np.testing.assert_array_equal(features.numpy(), expected(uva, obs, pool))
    assert not np.allclose(features[0], features[1])


def test_stacked_frames_are_the_history(weights: Path) -> None:
    env = gym.wrappers.FrameStackObservation(PushTEnv(), 13, padding_type="reset")
    obs, _ = env.reset(seed=3)
    frames = [{k: v[-1] for k, v in obs.items()}]
    extractor = UVAFeatures(env.observation_space, weights=weights)
    uva = UVA.from_pretrained(weights, device="cpu")
    for t in range(16):
        if t in (0, 2, 7, 15):
            batch = {k: torch.tensor(np.asarray(v)[None]).float() for k, v in obs.items()}
            past = {k: np.stack([f[k] for f in frames[:-1]]) for k in frames[0]} if t else None
            np.testing.assert_allclose(extractor(batch).numpy(), expected(uva, frames[-1], "action", past), atol=1e-6)
        obs, *_ = env.step(np.array([100.0 + 20 * t, 300.0], np.float32))
        frames.append({k: v[-1] for k, v in obs.items()})
    still = extractor({k: v[:, -1:].expand_as(v) for k, v in batch.items()})
    assert not np.allclose(still, extractor(batch))  # a single frame says less


@pytest.mark.parametrize("algorithm", [PPO, SAC])
def test_algorithms_train_on_it_and_load_again(weights: Path, tmp_path: Path, algorithm: Any) -> None:
    short = (
        dict(n_steps=8, batch_size=8, n_epochs=1)
        if algorithm is PPO
        else dict(buffer_size=50, learning_starts=12, batch_size=4)
    )
    env = gym.wrappers.RescaleAction(gym.make("uva/PushT-v0", max_episode_steps=6), -1.0, 1.0)
    kwargs = {"features_extractor_class": UVAFeatures, "features_extractor_kwargs": {"weights": str(weights)}}
    model = algorithm("MultiInputPolicy", env, policy_kwargs=kwargs, seed=0, device="cpu", **short)
    before = UVA.from_pretrained(weights, device="cpu").fingerprint
    model.learn(16)
    extractor = next(m for m in model.policy.modules() if isinstance(m, UVAFeatures))
    assert extractor._latent.weights.fingerprint == before  # not trained, and not initialised anew
    assert not list(extractor.parameters())
    model.save(tmp_path / "model")
    again = algorithm.load(tmp_path / "model", device="cpu")
    obs = moment(4)
    np.testing.assert_array_equal(again.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    assert not any("encoder_blocks" in name for name in model.policy.state_dict())


def test_a_trained_policy_refuses_other_weights(weights: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.symlink_to(weights)
    kwargs = {"features_extractor_class": UVAFeatures, "features_extractor_kwargs": {"weights": str(folder)}}
    PPO("MultiInputPolicy", gym.make("uva/PushT-v0"), policy_kwargs=kwargs, device="cpu").save(tmp_path / "model")
    from uva_agents.bridges import sb3
    from uva_agents.checkpoints import save_bundle

    folder.unlink()
    save_bundle(tiny_bundle(seed=1), folder)
    sb3._shared.cache_clear()
    with pytest.raises(ValueError, match="features of other weights"):
        PPO.load(tmp_path / "model", device="cpu")


def test_thawed_weights_begin_as_they_were_are_trained_and_saved(weights: Path, tmp_path: Path) -> None:
    kwargs = {
        "features_extractor_class": UVAFeatures,
        "features_extractor_kwargs": {"weights": str(weights), "frozen": False},
    }
    env = gym.wrappers.RescaleAction(gym.make("uva/PushT-v0", max_episode_steps=6), -1.0, 1.0)
    model = PPO(
        "MultiInputPolicy", env, policy_kwargs=kwargs, n_steps=8, batch_size=8, n_epochs=1, seed=0, device="cpu"
    )
    extractor: Any = model.policy.features_extractor
    original = UVA.from_pretrained(weights, device="cpu")
    ours, theirs = extractor.model.state_dict(), original.bundle.model.state_dict()
    assert all(torch.equal(ours[k], theirs[k]) for k in theirs)  # SB3's orthogonal initialisation left them alone
    vae = {k: v.clone() for k, v in extractor._latent.weights.vae.state_dict().items()}
    model.learn(8)
    assert not torch.equal(extractor.model.mix.weight, original.bundle.model.mix.weight)
    assert all(torch.equal(v, vae[k]) for k, v in extractor._latent.weights.vae.state_dict().items())
    reader, same = extractor.model.guide.detector.state_dict(), original.bundle.model.guide.detector.state_dict()
    assert all(torch.equal(reader[k], same[k]) for k in same)
    model.save(tmp_path / "model")
    again = PPO.load(tmp_path / "model", device="cpu")
    np.testing.assert_array_equal(
        again.predict(moment(), deterministic=True)[0], model.predict(moment(), deterministic=True)[0]
    )


def test_images_that_are_not_scaled_are_noticed(weights: Path) -> None:
    obs = {k: torch.tensor(v[None]).float() for k, v in moment().items()}
    with pytest.raises(ValueError, match=r"normalize_images=False.*byte"):
        UVAFeatures(space(), weights=weights)(obs)
    right = UVAFeatures(space(), weights=weights, image_range="byte")
    with pytest.raises(ValueError, match="leave image_range out"):
        right({**obs, "pixels": obs["pixels"] / 255})
    for wrong in (-1.0, torch.nan, torch.inf):
        with pytest.raises(ValueError, match="values that no image has"):
            right({**obs, "pixels": torch.where(obs["pixels"] == obs["pixels"].max(), wrong, obs["pixels"])})
    scaled = UVAFeatures(space(), weights=weights)({**obs, "pixels": obs["pixels"] / 255})
    assert torch.equal(right(obs), scaled)
    assert torch.equal(right({**obs, "pixels": obs["pixels"].to(torch.uint8)}), scaled)


@pytest.mark.parametrize(
    ("changed", "options", "error", "message"),
    [
        (space()["pixels"], {}, TypeError, "dict observations"),
        (gym.spaces.Dict({"pixels": space()["pixels"]}), {}, ValueError, r"also need \['agent_pos'\]"),
        (space(pixels=gym.spaces.Box(0, 255, (64, 64, 3), np.uint8)), {}, ValueError, r"'pixels' is \(64, 64, 3\)"),
        (space(pixels=gym.spaces.Box(0, 255, (13, 96, 96, 3), np.uint8)), {}, ValueError, "stack all keys or none"),
        (space(), {"pool": "max"}, ValueError, "choose one of action, frames, mean, tokens"),
        (space(), {"image_range": "half"}, ValueError, "image_range='half'"),
        (space(), {"weights": "pusht-nono"}, FileNotFoundError, "pusht-nano"),
    ],
    ids=["image", "no position", "small", "half stacked", "pool", "range", "weights"],
)
def test_what_the_weights_cannot_read_is_named(
    weights: Path, changed: Any, options: Any, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        UVAFeatures(changed, **{"weights": weights, **options})


# -- features as observations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [DummyVecEnv, FORKED], ids=["one process", "processes"])
def test_wrapped_environments_show_features_with_their_own_history(uva: UVA, kind: Any) -> None:
    env = UVAFeatureVecEnv(kind([partial(Seeded, i) for i in range(3)]), uva, batch_size=1)
    rng = np.random.default_rng(0)
    seen: list[Any] = [env.reset()]
    singles = [Seeded(i) for i in range(3)]
    past = [[single.reset()[0]] for single in singles]
    latent = JointLatent(uva)
    for t in range(24):
        actions = rng.uniform(100, 400, (3, 2)).astype(np.float32)
        stepped: Any = env.step(actions)
        features, _, dones, infos = stepped
        for i, single in enumerate(singles):
            obs, _, terminated, truncated, _ = single.step(actions[i])
            past[i].append(obs)
            assert dones[i] == (terminated or truncated)
            if dones[i]:
                np.testing.assert_allclose(infos[i]["terminal_observation"], now(uva, past[i]), atol=1e-6)
                past[i] = [single.reset()[0]]
            if t % 6 == i or dones[i]:
                np.testing.assert_allclose(features[i], now(uva, past[i]), atol=1e-6)
        seen.append(features)
    env.close()
    assert np.stack(seen).shape == (25, 3, latent.size)


def now(uva: UVA, seen: list[dict[str, np.ndarray]]) -> np.ndarray:
    past = {k: np.stack([f[k] for f in seen[:-1]]) for k in seen[0]} if len(seen) > 1 else None
    features: np.ndarray = expected(uva, seen[-1], "action", past)[0]
    return features


def test_wrapped_environments_take_transposed_images_and_refuse_stacks(uva: UVA) -> None:
    plain = UVAFeatureVecEnv(DummyVecEnv([partial(Seeded, 0)]), uva)
    turned = UVAFeatureVecEnv(VecTransposeImage(DummyVecEnv([partial(Seeded, 0)])), uva)
    np.testing.assert_array_equal(plain.reset(), turned.reset())
    assert plain.observation_space.shape == (320,)
    stacked = DummyVecEnv([lambda: gym.wrappers.FrameStackObservation(Seeded(0), 13)])
    with pytest.raises(ValueError, match="history is kept here"):
        UVAFeatureVecEnv(stacked, uva)


# -- the example -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("through", [["wrapper"], ["extractor", "--thaw"]], ids=" ".join)
def test_the_example_trains_saves_loads_and_reports(
    weights: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    through: list[str],
) -> None:
    path = REPOSITORY / "examples" / "ppo_from_uva_features.py"
    spec = importlib.util.spec_from_file_location("ppo_from_uva_features", path)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, example)  # dataclasses look their module up
    spec.loader.exec_module(example)
    small = ["--steps", "32", "--envs", "2", "--rollout", "8", "--epochs", "1", "--max-steps", "8", "--episodes", "2"]
    assert example.main([*small, "--weights", str(weights), "--out", str(tmp_path / "ppo"), "--through", *through]) == 0
    out = capsys.readouterr().out
    assert "random actions:" in out and "saved and loaded: final coverage" in out
    assert "     16 steps: final coverage" in out and "(n = 2)" in out
    assert (tmp_path / "ppo.zip").exists()
