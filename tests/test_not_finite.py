"""NaN and infinity never leave an agent: an error names weights, head and input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch

import uva_agents as uva
from tests.small_nets import EVERYTHING
from tests.tiny import observation, tiny_bundle, tiny_dp_bundle, tiny_points_config, tiny_two_frame_bundle
from uva_agents.agents import Rollout
from uva_agents.agents.uva import UVA
from uva_agents.bridges.latents import JointLatent
from uva_agents.data import encode_frames
from uva_agents.data.conventions import AbsolutePoses
from uva_agents.errors import InputError, NotFiniteError
from uva_agents.model import ActionSampler, DiffusionPolicyNet, HeadConfig, SamplerConfig
from uva_agents.model.diffusion import GaussianDiffusion, respaced_timesteps
from uva_agents.model.schedulers import sample_few_steps

FRAMES = np.random.default_rng(0).integers(0, 256, (2, 4, 96, 96, 3), dtype=np.uint8)
ACTIONS = np.random.default_rng(1).uniform(0, 512, (2, 16, 2)).astype(np.float32)
BATCH = observation(0, batch=3)


def brightness(rollout: Rollout) -> np.ndarray:
    costs: np.ndarray = rollout.frames.mean((1, 2, 3, 4))
    return costs


@pytest.fixture(scope="module")
def model() -> UVA:
    return UVA(tiny_bundle(rendered_prior=True))


@contextmanager
def damaged(tensor: torch.Tensor, value: float = float("nan"), at: int | None = None) -> Iterator[None]:
    """One number of a tensor, for a while; the middle one, if nothing is said."""
    flat = tensor.data.as_strided((tensor.numel(),), (1,))
    at = len(flat) // 2 if at is None else at
    before = flat[at].item()
    flat[at] = value
    try:
        yield
    finally:
        flat[at] = before


def outputs(model: UVA) -> dict[str, Callable[[], Any]]:
    """Everything that comes out of these weights."""
    policy, world = uva.Policy(model, steps=2), model.world_model()
    inverse = uva.InverseModel(model, steps=2, draws=2)

    def dream() -> list[np.ndarray]:
        env = world.as_env(brightness, starts=[observation(0)])
        first = env.reset(seed=0)[0]
        second = env.step(np.full(2, 300, np.float32))[0]
        return [*first.values(), *second.values()]

    def parts(rollout: Rollout) -> list[np.ndarray]:
        found = [rollout.frames, np.asarray(rollout.latents), rollout.actions, rollout.keypoints]
        return [x for x in found if x is not None]

    return {
        "act": lambda: policy.predict(BATCH, policy.initial_state(3, seed=0))[0],
        "sample": lambda: policy.sample(observation(0), n=2, seed=0),
        "rollout": lambda: parts(world.rollout(observation(0), ACTIONS, steps=2)),
        "latents": lambda: parts(world.rollout(observation(0), ACTIONS, steps=2, decode=False)),
        "imagine": lambda: parts(world.imagine(observation(0), seed=0)),
        "infer": lambda: inverse.infer(FRAMES),
        "encode": lambda: [x.numpy() for x in vars(model.encode(FRAMES[0])).values() if x is not None],
        "dream": dream,
        "features": lambda: JointLatent(model, "mean")(_seen(model))[0].detach().numpy(),
    }


def _seen(model: UVA) -> list[Any]:
    policy = model.policy()
    return [policy._observe(row, policy._read(observation(0)), 0) for row in policy.initial_state(1, seed=0).rows]


def same(a: Any, b: Any) -> bool:
    a, b = (x if isinstance(x, list) else [x] for x in (a, b))
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def answer(run: Callable[[], Any]) -> tuple[Any, str]:
    """What comes out, or nothing and the error."""
    try:
        return run(), ""
    except NotFiniteError as error:
        return None, str(error)


def test_no_nan_in_any_tensor_gives_another_finite_answer(model: UVA) -> None:
    """Either an output is not touched by it, or it is an error: whichever tensor, whichever output."""
    check_tensors(model, 8)


def check_tensors(model: UVA, count: int) -> None:
    runs = outputs(model)
    clean = {name: run() for name, run in runs.items()}
    tensors = [(n, t) for module in (model.bundle.model, model.bundle.vae) for n, t in module.named_parameters()]
    rng = np.random.default_rng(0)
    refused = dict.fromkeys(runs, 0)
    for name, tensor in [tensors[i] for i in rng.permutation(len(tensors))[:count]]:
        with damaged(tensor):
            for output, run in runs.items():
                found, told = answer(run)
                refused[output] += bool(told)
                if told:
                    assert "'tiny'" in told and name in told, told
                else:
                    assert same(found, clean[output]), f"{output} with NaN in {name}"
    assert sum(refused.values()) > 2 * min(count, len(tensors)), refused


@pytest.mark.long
def test_no_nan_in_every_tensor_gives_another_finite_answer(model: UVA) -> None:
    """The same for all of them."""
    check_tensors(model, 1000)


@pytest.mark.parametrize(
    ("output", "part", "head"),
    [
        ("act", "action_head.head.net.final_layer.linear.bias", "action head gave .* observation 0 of 3"),
        ("infer", "action_head.head.net.final_layer.linear.bias", "action head gave .* video 0 of 2"),
        ("rollout", "video_head.net.final_layer.linear.bias", r"video head gave .* future 0 of 2 .*'actions' from"),
        ("latents", "video_head.net.final_layer.linear.bias", "video head gave .* future 0 of 2"),
        ("dream", "video_head.net.final_layer.linear.bias", "video head gave .* future 0"),
        ("act", "guide.detector.net.0.bias", "keypoint detector gave"),
    ],
)
def test_the_error_names_weights_head_and_input(model: UVA, output: str, part: str, head: str) -> None:
    tensor = dict(model.bundle.model.named_parameters())[part]
    with damaged(tensor), pytest.raises(NotFiniteError, match=f"weights 'tiny': the {head}") as caught:
        outputs(model)[output]()
    assert part in str(caught.value) and "from 0 to 255" in str(caught.value)


def test_an_autoencoder_that_breaks_is_named_on_both_of_its_sides(model: UVA) -> None:
    encoder, decoder = model.bundle.vae.net.encoder, model.bundle.vae.net.decoder
    with damaged(next(iter(encoder.parameters()))), pytest.raises(NotFiniteError, match="the autoencoder gave"):
        outputs(model)["act"]()
    with damaged(next(iter(decoder.parameters()))):
        with pytest.raises(NotFiniteError, match=r"autoencoder's decoder gave .* future 0 of 2"):
            outputs(model)["rollout"]()
        outputs(model)["latents"]()  # nothing is decoded
    vae = model.bundle.vae
    with damaged(next(iter(encoder.parameters()))), pytest.raises(NotFiniteError, match="frame 0 of 4"):
        encode_frames(vae, FRAMES[0], patch_size=model.bundle.model.config.patch_size)


def test_one_bad_row_of_a_batch_is_named(model: UVA, monkeypatch: pytest.MonkeyPatch) -> None:
    head = model.bundle.model.action_head
    original = head.sample

    def spoilt(*args: Any, **kwargs: Any) -> torch.Tensor:
        actions: torch.Tensor = original(*args, **kwargs)
        actions[-1] = float("inf")
        return actions

    monkeypatch.setattr(head, "sample", spoilt)
    policy = uva.Policy(model, steps=1, batch_size=8)
    with pytest.raises(NotFiniteError, match=r"observation 2 of 3 \(counted from 0\).*tensors are all finite"):
        policy.predict(BATCH)


@pytest.mark.parametrize("bundle", [tiny_dp_bundle, lambda: _points()], ids=["unet", "points"])
@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_a_diffusion_policy_never_acts_on_nan(bundle: Any, sampler: Any) -> None:
    policy = uva.DiffusionPolicy(bundle(), steps=3, sampler=sampler)
    clean = policy.sample(BATCH, n=2, seed=0)
    refused = 0
    tensors = list(policy.bundle.model.named_parameters())
    for i in np.random.default_rng(0).permutation(len(tensors))[:12]:
        name, tensor = tensors[i]
        with damaged(tensor):
            found, told = answer(lambda: policy.sample(BATCH, n=2, seed=0))
        refused += bool(told)
        if told:
            assert "weights 'tiny-dp'" in told and name in told and "observation 0 of 3" in told
        else:
            assert np.array_equal(found, clean), name
    assert refused > 8
    first = next(iter(policy.bundle.model.encoder.parameters()))
    with damaged(first), pytest.raises(NotFiniteError, match="the image encoder gave"):
        policy.act(observation(0))


def _points() -> Any:
    bundle = tiny_dp_bundle()
    torch.manual_seed(0)
    net = DiffusionPolicyNet(tiny_points_config()).eval().requires_grad_(False)
    return type(bundle)(net, bundle.normalizer, bundle.spec, "tiny-dp")


def test_the_two_frame_baseline_never_answers_nan() -> None:
    inverse = uva.TwoFrameInverse(tiny_two_frame_bundle())
    first = next(iter(inverse.bundle.model.parameters()))
    match = r"'tiny-pair': the two-frame network gave .*frames 0 and 1 of video 0"
    with damaged(first), pytest.raises(NotFiniteError, match=match):
        inverse.infer(FRAMES)


def test_a_text_encoder_is_checked_once_and_by_name() -> None:
    bundle = tiny_bundle(text_dim=8)
    calls = []

    class Encoder(torch.nn.Module):
        value = float("nan")

        def embed(self, text: str) -> torch.Tensor:
            calls.append(text)
            return torch.full((8,), self.value)

    encoder: Any = Encoder()
    model = UVA(type(bundle)(bundle.model, bundle.vae, bundle.normalizer, bundle.spec, "tiny", encoder))
    policy = uva.Policy(model, steps=1)
    obs = {**observation(0), "task": "push the block"}
    with pytest.raises(NotFiniteError, match=r"text encoder gave .* 'push the block'"):
        policy.act(obs)
    encoder.value = 0.5
    policy.reset()
    policy.act(obs)
    policy.act(obs)
    assert len(calls) == 2
    with pytest.raises(InputError, match="task_embedding"):
        policy.act({**observation(0), "task_embedding": np.full(8, np.nan)})


@pytest.mark.parametrize("value", [float("inf"), -float("inf")])
@pytest.mark.parametrize("prediction", ["flow", "v", "epsilon"])
def test_a_bound_on_samples_makes_no_number_of_infinity(prediction: Any, value: float) -> None:
    noise = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        out = 0.5 * x
        out[1, 2] = value if float(t[0]) > 400 else 0.0
        return out

    sample = sample_few_steps(network, noise, prediction=prediction, steps=4, clip=1.0)
    assert torch.isnan(sample[1]).any() and torch.isfinite(sample[[0, 2]]).all()


def test_the_published_samplers_make_no_number_of_infinity_either() -> None:
    process = GaussianDiffusion(respaced_timesteps(8))

    def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        out = torch.cat([0.5 * x, 0 * x], -1)
        out[1, 2] = float("inf") if int(t[0]) > 400 else 0.0
        return out

    sample = process.sample(network, (3, 4), clip=1.0, generator=torch.Generator().manual_seed(0))
    assert torch.isnan(sample[1]).any() and torch.isfinite(sample[[0, 2]]).all()
    for kind in ("ddim", "ddpm"):
        scheduler = ActionSampler(kind, 4).scheduler(100)  # type: ignore[arg-type]
        x = torch.zeros(2, 2)
        for i in range(4):
            output = torch.tensor([[float("inf") if i == 1 else 0.1, 0.1], [0.1, 0.1]])
            x = scheduler.step(output, i, x, torch.Generator().manual_seed(i))
        assert not torch.isfinite(x[0, 0]) and torch.isfinite(x[1]).all(), kind


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e39])
def test_inputs_that_are_not_finite_are_named(model: UVA, value: float) -> None:
    policy, world = uva.Policy(model, steps=1), model.world_model()
    obs = observation(0)
    spoilt = {**obs, "agent_pos": np.array([1.0, value])}
    batch = {**BATCH, "agent_pos": np.array([[1.0, 2.0], [3.0, value], [5.0, 6.0]])}
    actions = ACTIONS.astype(np.float64)
    actions[1, 3, 0] = value
    for call, match in (
        (lambda: policy.act(spoilt), "'agent_pos' has NaN"),
        (lambda: policy.predict(batch), "'agent_pos' has NaN or infinity in observation 1 of 3"),
        (lambda: policy.sample(obs, history=batch), "'agent_pos' has NaN"),
        (lambda: world.rollout(obs, actions), "actions have NaN or infinity, first in candidate 1"),
        (lambda: world.rollout(spoilt, ACTIONS), "'agent_pos' has NaN"),
    ):
        with pytest.raises(InputError, match=match):
            call()


def test_values_that_normalisation_makes_infinite_do_not_count_as_unknown(model: UVA) -> None:
    """Networks take NaN for what is not known; a wild number must not be taken for that."""
    bundle = tiny_bundle()
    scale = {**bundle.normalizer.scale, "agent_pos": np.full(2, 1e10), "action": np.full(2, 1e38)}
    wild = UVA(
        type(bundle)(bundle.model, bundle.vae, type(bundle.normalizer)(scale, bundle.normalizer.offset), bundle.spec)
    )
    with pytest.raises(InputError, match=r"'agent_pos'.*is not finite once normalised"):
        wild.policy().act({**observation(0), "agent_pos": np.full(2, 1e30)})
    with pytest.raises(InputError, match=r"'action'.*is not finite once normalised"):
        wild.world_model().rollout(observation(0), ACTIONS)


def test_poses_that_are_none_are_not_clipped_to_some() -> None:
    """Rotations from two rows of zeros are no rotations, though every number of the network was finite."""
    bundle = tiny_bundle(action_dim=10, proprio_dim=0, frame_state_dim=0, num_keypoints=0)
    low, high = (-1.0,) * 7, (1.0,) * 7
    spec = type(bundle.spec)((96, 96), low, high, action_transforms=(AbsolutePoses(),))
    normalizer = type(bundle.normalizer)({"action": np.ones(10)}, {"action": np.zeros(10)})
    model = UVA(type(bundle)(bundle.model, bundle.vae, normalizer, spec, "poses"))
    with np.errstate(all="ignore"):
        with pytest.raises(NotFiniteError, match="'poses': the action head"):
            model.environment_actions(torch.full((16, 10), float("nan")))
        try:
            poses = model.environment_actions(torch.zeros(16, 10))
        except NotFiniteError:
            return
    assert np.isfinite(poses).all()


def test_every_kind_of_network_reports_what_it_samples() -> None:
    """Wrist frames, text, executed actions, and heads that predict noise with a bound."""
    sizes = {
        "wrist_image": False,
        "predict_wrist": False,
        "predict_proprio_dim": 0,
        "num_keypoints": 10,
        "frame_state_dim": 20,
    }
    noise = HeadConfig(prediction="epsilon", clip=3.0)
    bundle = tiny_bundle(**{**EVERYTHING, **sizes, "action_head": noise})
    model = UVA(bundle)
    obs = {**observation(0), "task_embedding": np.ones(8, np.float32)}
    for policy in (uva.Policy(model, steps=2), uva.Policy(model, steps=4, ancestral=True)):
        assert np.isfinite(policy.sample(obs, seed=0)).all()
        for value in (float("nan"), float("inf")):
            bias = model.bundle.model.action_head.head.net.final_layer.linear.bias
            with damaged(bias, value, at=0), pytest.raises(NotFiniteError, match="action head"):
                policy.sample(obs, seed=0)
    world = uva.WorldModel(model, sampler=SamplerConfig(iterations=2, video_steps=2))
    with damaged(model.bundle.model.video_head.net.final_layer.linear.bias), pytest.raises(NotFiniteError):
        world.rollout(obs, ACTIONS)


def test_what_is_divided_by_infinity_is_no_answer() -> None:
    """It would be a finite one: the middle of the action space, whatever is seen."""
    bundle = tiny_bundle(rendered_prior=True)
    model = UVA(bundle)
    std = bundle.model.token_std
    for value in (float("inf"), 0.0):
        with damaged(std, value, at=0), pytest.raises(NotFiniteError, match=r"'tiny': 'model\.token_std'"):
            model.policy().sample(observation(0), seed=0)
    scales: Any = bundle.normalizer.scale
    for key, value, call in (
        ("action", np.inf, lambda: model.policy().sample(observation(0), seed=0)),
        ("action", 0.0, lambda: model.world_model().rollout(observation(0), ACTIONS)),
        ("agent_pos", 0.0, lambda: model.policy().sample(observation(0), seed=0)),
    ):
        before = scales[key]
        scales[key] = np.array([1.0, value])
        with pytest.raises(NotFiniteError, match=f"scale of '{key}'"):
            call()
        scales[key] = before
    assert np.isfinite(model.policy().sample(observation(0), seed=0)).all()


def test_networks_in_training_mode_or_cast_are_refused_by_name() -> None:
    model, dp = UVA(tiny_bundle(rendered_prior=True)), uva.DiffusionPolicy(tiny_dp_bundle(), steps=2)
    pair = uva.TwoFrameInverse(tiny_two_frame_bundle())
    start = model.world_model().prepare(observation(0))
    dream = model.world_model().as_env(brightness, starts=[observation(0)])
    dream.reset(seed=0)
    calls: list[tuple[torch.nn.Module, Callable[[], Any]]] = [
        (model.bundle.model, lambda: model.policy().act(observation(0))),
        (model.bundle.vae, lambda: model.policy().act(observation(0))),
        (model.bundle.model, lambda: model.world_model().rollout(start, ACTIONS)),
        (model.bundle.model, lambda: dream.step(np.zeros(2, np.float32))),
        (model.bundle.model, lambda: model.inverse_model().infer(FRAMES)),
        (dp.bundle.model, lambda: dp.act(observation(0))),
        (pair.bundle.model, lambda: pair.infer(FRAMES)),
    ]
    for network, call in calls:
        network.train()
        with pytest.raises(InputError, match=r"weights 'tiny.*': bundle\.(model|vae) is in training mode"):
            call()
        network.eval()
        for cast in (network.half, network.double, network.bfloat16):
            cast()
            with pytest.raises(InputError, match=r"bundle\.(model|vae) has been cast to torch\.(b?float16|float64)"):
                call()
        network.float()
        call()
