"""Networks of Diffusion Policy: published sizes, what may depend on what, samplers that end where the noise predictor points."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.tiny import tiny_dp_config, tiny_encoder
from uva_agents.model import (
    ActionSampler,
    DiffusionPolicyConfig,
    DiffusionPolicyNet,
    TwoFrameConfig,
    TwoFrameNet,
    UNetConfig,
    dp_c,
    dp_c_config,
    dp_c_nano,
    dp_c_positions_config,
    dp_t,
    dp_t_config,
    sample_chunks,
    two_frame_nano_config,
)
from uva_agents.model.baselines.unet1d import ConditionalUNet1D, TimeConv, mish
from uva_agents.model.vision.encoder import EncoderConfig, ImageEncoder


def size(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_dp_c_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        net = dp_c()
    assert size(net.denoiser) == 251_511_938
    assert size(net.encoder.trunk) == 11_176_512
    assert size(net.encoder.keypoints) == 16_416 and size(net.encoder.out) == 4_160
    assert size(net) == 262_709_026


def test_the_low_dimensional_unets_have_the_published_number_of_parameters() -> None:
    # Two observations of 16 numbers (block pushing) and of 20 (PushT).
    with torch.device("meta"):
        sizes = [
            size(ConditionalUNet1D(action_dim=2, condition=2 * n, stages=(256, 512, 1024), step_dim=256))
            for n in (16, 20)
        ]
    assert [round(n / 1e6, 2) for n in sizes] == [65.67, 65.78]


def test_dp_t_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        net = dp_t(horizon=10, first_action=-1, action_steps=8)
    assert round(size(net.denoiser) / 1e6, 2) == 8.98
    assert round(size(net) / 1e6, 2) == 20.17


def test_the_small_one_fits_two_cores() -> None:
    assert size(dp_c_nano()) < 6e6


@pytest.mark.parametrize("kind", ["unet", "transformer"])
def test_the_noise_depends_on_every_input(kind: str) -> None:
    torch.manual_seed(0)
    net = DiffusionPolicyNet(tiny_dp_config(kind)).eval()
    x, t, observed = torch.randn(2, 16, 2), torch.tensor([3, 70]), torch.randn(2, 2, 18)
    base = net.predict_noise(x, t, net.prepare(observed))
    assert base.shape == (2, 16, 2)
    assert not torch.allclose(base, net.predict_noise(x + 1, t, net.prepare(observed)))
    assert not torch.allclose(base, net.predict_noise(x, t + 20, net.prepare(observed)))
    for step in range(2):
        changed = observed.clone()
        changed[:, step] += 1
        assert not torch.allclose(base, net.predict_noise(x, t, net.prepare(changed)))


def test_in_the_transformer_an_action_sees_only_the_past() -> None:
    torch.manual_seed(0)
    net = DiffusionPolicyNet(tiny_dp_config("transformer", horizon=8, first_action=-1, action_steps=7)).eval()
    x, t, observed = torch.randn(1, 8, 2), torch.tensor([10]), torch.randn(1, 2, 18)
    base = net.predict_noise(x, t, net.prepare(observed))
    later = x.clone()
    later[:, 5:] += 1
    moved = net.predict_noise(later, t, net.prepare(observed))
    torch.testing.assert_close(moved[:, :5], base[:, :5])
    assert not torch.allclose(moved[:, 5:], base[:, 5:])
    # The first action lies at the older observation, and is not shown the newer one.
    newer = observed.clone()
    newer[:, 1] += 1
    moved = net.predict_noise(x, t, net.prepare(newer))
    torch.testing.assert_close(moved[:, 0], base[:, 0])
    assert not torch.allclose(moved[:, 1], base[:, 1])


def test_time_convolution_and_mish_equal_those_of_torch() -> None:
    torch.manual_seed(0)
    conv = TimeConv(channels=3, width=4, kernel=5)
    x = torch.randn(2, 7, 3)
    weight = conv.weight.weight.view(4, 5, 3).transpose(1, 2)
    expected = F.conv1d(x.transpose(1, 2), weight, conv.weight.bias, padding=2).transpose(1, 2)
    torch.testing.assert_close(conv(x), expected)
    y = torch.linspace(-30, 40, 300).requires_grad_()
    torch.testing.assert_close(mish(y), F.mish(y))
    ours, theirs = (torch.autograd.grad(f(y).sum(), y)[0] for f in (mish, F.mish))
    torch.testing.assert_close(ours, theirs)


def test_a_whole_image_is_cropped_in_its_centre() -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder(tiny_encoder()).eval()
    frames = torch.randint(0, 256, (2, 96, 96, 3), dtype=torch.uint8)
    centre = encoder(frames[:, 6:90, 6:90], torch.full((2, 2), 6.0))
    torch.testing.assert_close(encoder(frames), centre)
    with pytest.raises(ValueError, match=r"\(B, 96, 96, 3\), or crops of 84"):
        encoder(frames[:, :80, :80])


@pytest.mark.parametrize("full", [True, False])
def test_key_points_move_with_the_crop_only_in_whole_image_coordinates(full: bool) -> None:
    """A crop that lies 3 pixels further right sees the scene 3 pixels further left."""
    encoder = ImageEncoder(tiny_encoder(full_coordinates=full)).eval()
    seen: list[torch.Tensor] = []
    encoder.out.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].view(-1, 8, 2)))
    frames = torch.randint(0, 256, (1, 84, 84, 3), dtype=torch.uint8)
    for x, y in ((6, 6), (9, 2)):
        encoder(frames, torch.tensor([[x, y]], dtype=torch.float32))
    expected = torch.tensor([3.0, -4.0]) * 2 / 96 if full else torch.zeros(2)
    torch.testing.assert_close((seen[1] - seen[0]), expected.expand(1, 8, 2), atol=1e-6, rtol=0)


@pytest.mark.parametrize("sampler", [ActionSampler("ddim", 16), ActionSampler("ddim", 4), ActionSampler("ddpm", 100)])
@pytest.mark.parametrize(("horizon", "first"), [(16, 0), (20, -1)])
def test_samplers_arrive_where_the_noise_predictor_points_and_return_actions_from_now(
    sampler: ActionSampler, horizon: int, first: int
) -> None:
    net = DiffusionPolicyNet(tiny_dp_config(horizon=horizon, first_action=first))
    # The time of each action, scaled: -1 is the past one.
    target = (torch.arange(horizon) + first)[None, :, None].expand(1, horizon, 2) / 20

    def perfect(x: torch.Tensor, t: torch.Tensor, observed: torch.Tensor) -> torch.Tensor:
        signal = net.alphas_cumprod[t][:, None, None]
        return (x - signal.sqrt() * target) / (1 - signal).sqrt()

    net.predict_noise = perfect
    generators = [torch.Generator().manual_seed(0)]
    chunks = sample_chunks(net, torch.zeros(1, 2, 18), n=3, sampler=sampler, generators=generators)
    assert chunks.shape == (3, 16, 2)
    torch.testing.assert_close(chunks[:, :, 0], (torch.arange(16) / 20).expand(3, 16), atol=1e-3, rtol=0)


def test_training_noise_follows_the_schedule_that_is_sampled() -> None:
    net = DiffusionPolicyNet(tiny_dp_config())
    for kind in ("ddim", "ddpm"):
        expected = ActionSampler(kind, 10).scheduler(100).alphas_cumprod
        torch.testing.assert_close(net.alphas_cumprod, expected, atol=1e-6, rtol=1e-4)


def test_several_draws_for_one_observation_equal_repeated_observations() -> None:
    torch.manual_seed(0)
    net = DiffusionPolicyNet(tiny_dp_config()).eval()
    observed, actions = torch.randn(3, 2, 18), torch.rand(3, 16, 2)
    t, noise = torch.randint(0, 100, (6,)), torch.randn(6, 16, 2)
    observed2, actions2 = observed.repeat_interleave(2, 0), actions.repeat_interleave(2, 0)
    torch.testing.assert_close(net.losses(observed, actions, t, noise), net.losses(observed2, actions2, t, noise))


def batch_of(kind: str, n: int = 8) -> tuple[DiffusionPolicyNet, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    net = DiffusionPolicyNet(tiny_dp_config(kind)).train()
    batch = {
        "frames": torch.randint(0, 256, (n, 2, 84, 84, 3), dtype=torch.uint8),
        "proprio": torch.rand(n, 2, 2) * 2 - 1,
        "actions": torch.rand(n, 1, 2).expand(n, 16, 2) * 1.6 - 0.8,
    }
    return net, batch


@pytest.mark.parametrize("kind", ["unet", "transformer"])
def test_one_batch_is_learned(kind: str) -> None:
    """The noise in actions that the observation determines becomes predictable: the loss falls to a third (from about 1)."""
    net, batch = batch_of(kind)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    losses = []
    for _ in range(160):
        observed = net.observe(batch["frames"], batch["proprio"])
        t, noise = torch.randint(0, 100, (64,)), torch.randn(64, 16, 2)
        loss, _ = net.losses(observed, batch["actions"], t, noise)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-20:]) < np.mean(losses[:5]) / 3, (losses[:5], losses[-5:])


def steps_config(**overrides: object) -> DiffusionPolicyConfig:
    return tiny_dp_config(encoder=tiny_encoder(positions=3), max_step=(0.5, 0.25), **overrides)


def test_chunks_are_steps_from_where_proprioception_is_now_and_back() -> None:
    torch.manual_seed(0)
    net = DiffusionPolicyNet(steps_config()).eval()
    frames, proprio = torch.randint(0, 256, (3, 2, 96, 96, 3), dtype=torch.uint8), torch.rand(3, 2, 2) - 0.5
    observed = net.observe(frames, proprio)
    assert observed.shape == (3, 2, 3 * 2 + 2)
    actions = torch.rand(3, 16, 2) - 0.5
    steps = net.to_steps(actions, observed)
    largest = torch.tensor([0.5, 0.25])
    torch.testing.assert_close(steps[:, 0], (actions[:, 0] - proprio[:, 1]) / largest)
    torch.testing.assert_close(steps[:, 5], (actions[:, 5] - actions[:, 4]) / largest)
    torch.testing.assert_close(net.from_steps(steps, observed), actions)
    # Whatever the network says, samples begin at the newest position and no step is larger than the largest.
    with torch.no_grad():
        chunks = sample_chunks(
            net, observed, n=4, sampler=ActionSampler(steps=4), generators=[torch.Generator().manual_seed(0)]
        )
    path = torch.cat([proprio[:, 1:].repeat_interleave(4, 0), chunks], dim=1)
    beyond = path.diff(dim=1).abs() - largest
    assert -0.2 < float(beyond.max()) < 1e-5


def test_the_loss_of_steps_is_that_of_their_noise() -> None:
    torch.manual_seed(0)
    net = DiffusionPolicyNet(steps_config()).eval()
    observed, actions = torch.rand(2, 2, 8) - 0.5, torch.rand(2, 16, 2) - 0.5
    t, noise = torch.tensor([20, 70]), torch.randn(2, 16, 2)
    signal = net.alphas_cumprod[t][:, None, None]
    path = torch.cat([observed[:, 1:, -2:], actions], dim=1)
    steps = (path[:, 1:] - path[:, :-1]) / torch.tensor([0.5, 0.25])
    net.predict_noise = lambda x, t, o: (x - signal.sqrt() * steps) / (1 - signal).sqrt()  # type: ignore
    loss, _ = net.losses(observed, actions, t, noise)
    torch.testing.assert_close(loss, torch.zeros(()), atol=1e-8, rtol=0)


@pytest.mark.slow
def test_two_ways_of_doing_it_stay_two_ways() -> None:
    """The same observation is followed by actions near 0.6 or near -0.6: samples are either, not their mean."""
    torch.manual_seed(0)
    config = tiny_dp_config(denoiser=UNetConfig(stages=(32, 64), step_dim=32), horizon=8, action_steps=8)
    net = DiffusionPolicyNet(config).train()
    optimizer = torch.optim.AdamW(net.denoiser.parameters(), lr=3e-3)
    observed, steps = torch.zeros(64, 2, 18), 350
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
        side = torch.randint(0, 2, (64, 1, 1)) * 2.0 - 1
        actions = (0.6 * side).expand(64, 8, 2)
        loss, _ = net.losses(observed, actions, torch.randint(0, 100, (64,)), torch.randn(64, 8, 2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        generators = [torch.Generator().manual_seed(1)]
        chunks = sample_chunks(net, observed[:1], n=64, sampler=ActionSampler(steps=16), generators=generators)
    means = chunks.mean((1, 2))
    assert 16 <= int((means > 0).sum()) <= 48, means
    near = (means.abs() - 0.6).abs() < 0.2
    assert float(near.float().mean()) > 0.7, means


@pytest.mark.parametrize("make", [dp_c_config, dp_t_config, tiny_dp_config, dp_c_positions_config])
def test_configurations_survive_json(make: object) -> None:
    import json

    config = make()  # type: ignore[operator]
    again = DiffusionPolicyConfig.from_dict(json.loads(json.dumps(config.to_dict())))
    assert again == config
    pair = two_frame_nano_config()
    assert TwoFrameConfig.from_dict(json.loads(json.dumps(pair.to_dict()))) == pair
    with pytest.raises(ValueError, match="another version"):
        DiffusionPolicyConfig.from_dict({**config.to_dict(), "unknown": 1})


def test_a_pooled_pair_says_what_is_there_more_than_where() -> None:
    frames = torch.zeros(1, 96, 96, 6, dtype=torch.uint8)
    frames[:, 40:50, 40:50] = 200
    moved = frames.roll((16, 16), (1, 2))  # by a multiple of the trunk's stride, well inside the image
    ratios = []
    for pooled in (True, False):
        torch.manual_seed(0)
        encoder = TwoFrameNet(two_frame_nano_config(pooled=pooled)).encoder.eval()
        with torch.no_grad():
            a, b, dark = (encoder.locate(x) for x in (frames, moved, torch.zeros_like(frames)))
        ratios.append(float((a - b).abs().max() / (a - dark).abs().max()))
    assert ratios[0] < 0.6 < 1.2 < ratios[1], ratios
    with pytest.raises(ValueError, match="keypoints must not be 0"):
        EncoderConfig(positions=3, keypoints=0)


def test_impossible_configurations_are_named() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        dp_c_config(horizon=18)
    with pytest.raises(ValueError, match="has 15 actions from now on"):
        dp_c_config(first_action=-1)
    assert dp_c_config(first_action=-1, horizon=20).action_steps == 16
    with pytest.raises(ValueError, match="first_action"):
        dp_c_config(first_action=-2, horizon=20)
    with pytest.raises(ValueError, match="between 1 and the 100"):
        ActionSampler("ddim", 101).scheduler(100)
    with pytest.raises(ValueError, match="'ddim' or 'ddpm'"):
        ActionSampler("euler", 10).scheduler(100)
    with pytest.raises(ValueError, match="in front of a U-Net"):
        dp_t_config(relations=64)
    with pytest.raises(ValueError, match="obs_steps=1"):
        dp_c_positions_config(obs_steps=2)
    with pytest.raises(ValueError, match=r"max_step=\(0.5,\): one positive distance for each of 2"):
        dp_c_config(max_step=(0.5,))
    with pytest.raises(ValueError, match="proprio_dim=0"):
        dp_c_config(max_step=(0.5, 0.5), proprio_dim=0)
    with pytest.raises(ValueError, match="first_action must be 0"):
        dp_c_config(max_step=(0.5, 0.5), first_action=-1, horizon=20)
    with pytest.raises(ValueError, match="crop 97"):
        tiny_encoder(crop=97)
    with pytest.raises(ValueError, match="two frames"):
        TwoFrameConfig(tiny_encoder())
    with pytest.raises(ValueError, match="stride=0"):
        TwoFrameConfig(stride=0)
    with pytest.raises(ValueError, match="proprioception"):
        DiffusionPolicyNet(tiny_dp_config()).observe(torch.zeros(1, 2, 96, 96, 3, dtype=torch.uint8), None)


def test_the_two_frame_network_tells_the_frames_apart() -> None:
    torch.manual_seed(0)
    net = TwoFrameNet(TwoFrameConfig(tiny_encoder(frames=2), width=16)).eval()
    frames = torch.randint(0, 256, (3, 2, 96, 96, 3), dtype=torch.uint8)
    actions = net(frames)
    assert actions.shape == (3, 1, 2) and not torch.allclose(actions, net(frames.flip(1)))
    assert dataclasses.replace(net.config, width=8).width == 8
