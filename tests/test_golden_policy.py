"""The whole released policy at its full size (made-up weights), from camera frames to actions and losses."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.released import network_state, vae_state
from tests.test_golden_misc import made_up_weight
from uva_agents.checkpoints.official.keys import rename, rename_vae
from uva_agents.data import LinearNormalizer
from uva_agents.model import (
    VAE,
    Context,
    Draws,
    SamplerConfig,
    Task,
    UVANet,
    Visibility,
    joint_loss,
    optimize_for_inference,
    sample_actions,
    uva_base_config,
)
from uva_agents.model.layers import Attention

pytestmark = pytest.mark.slow


class Released:
    """``mar_base`` and kl-f16, weights made from their names."""

    def __init__(self, folder: Path) -> None:
        self.recorded = dict(np.load(folder / "policy_pusht.npz"))
        config = uva_base_config()
        with torch.device("meta"):
            model, vae = UVANet(config), VAE(config.vae)
            shapes = {k.removeprefix("model."): v.shape for k, v in network_state(model).items()}
            vae_shapes = {k.removeprefix("vae_model."): v.shape for k, v in vae_state(vae).items()}
        weights = {rename(k): made_up_weight(k, tuple(s)) for k, s in shapes.items()}
        vae_weights = rename_vae({k: made_up_weight(k, tuple(s)) for k, s in vae_shapes.items()})
        model.load_state_dict(weights, assign=True)
        vae.load_state_dict(vae_weights, assign=True)
        self.model, self.vae = model.eval().requires_grad_(False), vae.eval().requires_grad_(False)
        field = torch.from_numpy(self.recorded["image_field"]).float()
        images = F.interpolate(field, (96, 96), mode="bilinear", align_corners=False).add(0.5).clamp(0, 1)
        self.images = F.interpolate(images * 2 - 1, (256, 256), mode="bilinear", align_corners=False)
        limits = self.recorded["normalizer_fit_action_min"], self.recorded["normalizer_fit_action_max"]
        self.normalizer = LinearNormalizer.from_limits({"action": limits})

    def tokens(self, frames: list[int], noise: np.ndarray) -> torch.Tensor:
        drawn = torch.from_numpy(noise.reshape(len(frames), 16, 16, 16))
        return self.model.to_tokens(self.vae.encode(self.images[frames], noise=drawn))[None]


@pytest.fixture(scope="module")
def policy(shared: Path) -> Released:
    return Released(shared / "golden")


@pytest.fixture(params=[False, True], ids=["as released", "as our agents run it"])
def either_way(policy: Released, request: pytest.FixtureRequest) -> Iterator[Released]:
    def optimize(on: bool) -> None:
        optimize_for_inference(policy.vae, on)
        optimize_for_inference(policy.model, on)

    optimize(request.param)
    yield policy
    optimize(False)
    for module in policy.model.modules():
        if isinstance(module, Attention):
            module.fused = True  # as it was built


def test_actions_from_camera_frames_match_the_recording(either_way: Released, monkeypatch: pytest.MonkeyPatch) -> None:
    policy, r = either_way, either_way.recorded
    draws = list(np.split(r["predict/noise_flat"], np.cumsum(r["predict/draw_sizes"])[:-1]))
    history = policy.tokens([3, 7, 11, 15], draws.pop(0))
    streams = [torch.from_numpy(d.reshape(16, 2)) for d in draws]
    monkeypatch.setattr(torch, "randn", lambda *a, **k: streams.pop(0))
    chunk = sample_actions(
        policy.model,
        Context(history=history),
        sampler=SamplerConfig(action_steps=100, temperature=0.95, ancestral=True),
    )
    assert not streams, "every recorded draw is used"
    actions = policy.normalizer.unnormalize("action", chunk).numpy()
    scale = float((r["normalizer_fit_action_max"] - r["normalizer_fit_action_min"]).max()) / 2
    np.testing.assert_allclose(actions, r["predict/action_pred"], atol=1e-3 * scale)
    np.testing.assert_allclose(actions[:, :8], r["predict/action"], atol=1e-3 * scale)


@pytest.mark.parametrize("task", [Task.POLICY_VIDEO, Task.FORWARD])
def test_training_losses_match_the_recording(policy: Released, task: Task) -> None:
    r = {k.removeprefix(f"train_{task.value}/"): v for k, v in policy.recorded.items()}
    noise = np.split(r["noise_flat"], np.cumsum(r["draw_sizes"])[:-1])
    future, history = policy.tokens([19, 23, 27, 31], noise[0]), policy.tokens([3, 7, 11, 15], noise[1])
    for tokens, key in ((future, "z_future"), (history, "z_cond")):
        maps = tokens[0].view(4, 16, 16, 16).permute(0, 3, 1, 2).numpy()
        np.testing.assert_allclose(maps, r[key][0], atol=2e-4)
    raw = torch.from_numpy(policy.recorded["actions_raw"][:, 15:31]).float()
    actions = policy.normalizer.normalize("action", raw)
    np.testing.assert_allclose(actions.numpy(), r["trajectory"], atol=1e-5)
    mask = torch.from_numpy(r["mask"]).float()[:, None].expand(-1, 4, -1)
    draws = {"video": Draws(torch.from_numpy(r["t0"]).long(), torch.from_numpy(noise[2].reshape(1024, 16)))}
    if "t1" in r:
        draws["action"] = Draws(torch.from_numpy(r["t1"]).long(), torch.from_numpy(noise[3].reshape(16, 2)))
    losses = joint_loss(
        policy.model,
        Context(history=history, future=future, actions=actions),
        Visibility.for_tasks([task], mask),
        draws=draws,
    )
    total, video, action = (float(v) for v in r["losses"])
    assert float(losses.total) == pytest.approx(total, rel=1e-4)
    assert float(losses.video) == pytest.approx(video, rel=1e-4)
    assert float(losses.action) == pytest.approx(action, rel=1e-4, abs=1e-6)
