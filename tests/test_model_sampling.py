"""What diffusion and masking draw: samplers that do not explode, tables and shares as recorded."""

import numpy as np
import pytest
import torch

from tests.small_nets import context, nano
from uva_agents.model import (
    HeadConfig,
    SamplerConfig,
    Task,
    draw_mask,
    draw_tasks,
    sample_actions,
    sample_video,
)
from uva_agents.model.diffusion import ddim_timesteps, respaced_timesteps
from uva_agents.model.schedulers import sample_few_steps
from uva_agents.model.uva.heads import DiffusionHead
from uva_agents.model.uva.sampling import reveal_counts


def test_few_step_epsilon_sampling_refuses_to_explode() -> None:
    """From the zero-signal end of the cosine schedule an unbounded clean sample is an epsilon error times ~1e4."""
    torch.manual_seed(0)
    noise = torch.randn(64, 8)
    wrong = lambda x, t: 0.9 * x  # noqa: E731  a network that is 10% off
    with pytest.raises(ValueError, match="clip"):
        sample_few_steps(wrong, noise, prediction="epsilon", steps=4)
    bounded = sample_few_steps(wrong, noise, prediction="epsilon", steps=4, clip=1.0)
    assert bounded.abs().max() < 3
    head = DiffusionHead(channels=8, cond_channels=4, config=HeadConfig(width=16, depth=1, prediction="epsilon"))
    for p in head.parameters():
        torch.nn.init.normal_(p, std=0.3)
    assert head.sample(torch.randn(64, 4), steps=4).abs().max() < 20


@pytest.mark.parametrize("prediction", ["flow", "v", "epsilon"])
@pytest.mark.parametrize("steps", [1, 4, 16])
def test_few_step_samplers_recover_a_known_target(prediction: str, steps: int) -> None:
    """With a perfect prediction of one fixed clean sample, every sampler must arrive at it."""
    target = torch.tensor([[0.5, -0.25]])
    torch.manual_seed(0)
    noise = torch.randn(1, 2)
    from uva_agents.model.schedulers import cosine_betas

    bars = np.cumprod(1 - cosine_betas())

    def oracle(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if prediction == "flow":
            sigma = t[0] / 1000
            return (x - target) / sigma
        bar = torch.tensor(bars[int(t[0])], dtype=torch.float32)
        eps = (x - bar.sqrt() * target) / (1 - bar).sqrt()
        return eps if prediction == "epsilon" else bar.sqrt() * eps - (1 - bar).sqrt() * target

    out = sample_few_steps(oracle, noise, prediction=prediction, steps=steps, clip=1.0)
    torch.testing.assert_close(out, target, atol=2e-2, rtol=0)


def test_respaced_timesteps_match_the_recorded_tables(shared) -> None:  # type: ignore[no-untyped-def]
    from uva_agents.model.diffusion import GaussianDiffusion

    recorded = np.load(shared / "golden" / "misc.npz")
    for count in (1000, 100, 16, 10):
        process = GaussianDiffusion(respaced_timesteps(count))
        np.testing.assert_array_equal(process.timestep_map, recorded[f"diffusion{count}/timestep_map"])
        for name in (
            "betas",
            "alphas_cumprod",
            "posterior_log_variance_clipped",
            "posterior_mean_coef1",
            "posterior_mean_coef2",
        ):
            np.testing.assert_allclose(getattr(process, name), recorded[f"diffusion{count}/{name}"], rtol=1e-10)
    np.testing.assert_array_equal(ddim_timesteps(50), recorded["diffusionddim50/timestep_map"])


def test_mask_shares_match_the_recorded_distribution(shared) -> None:  # type: ignore[no-untyped-def]
    recorded = np.load(shared / "golden" / "misc.npz")
    mask = draw_mask(20000, frames=1, tokens=256, generator=torch.Generator().manual_seed(0))
    share = mask.mean((1, 2)).numpy()
    np.testing.assert_allclose(np.quantile(share, recorded["mask/quantiles_p"]), recorded["mask/quantiles"], atol=0.01)
    assert (mask[:, 0] == mask[:, -1]).all()


def test_a_batch_may_share_its_task_and_its_masked_share_as_released(shared) -> None:  # type: ignore[no-untyped-def]
    recorded = np.load(shared / "golden" / "misc.npz")
    generator = torch.Generator().manual_seed(0)
    masks = [draw_mask(4, frames=4, tokens=256, generator=generator, together=True) for _ in range(4000)]
    counts = torch.stack([mask[:, 0].sum(-1) for mask in masks])
    assert (counts == counts[:, :1]).all() and counts.unique().numel() > 50
    assert all((mask == mask[:, :1]).all() for mask in masks), "the frames of a sample hide the same positions"
    assert sum(bool((mask[0] == mask[1]).all()) for mask in masks) < 400, (
        "each sample hides its own (all of them, at times)"
    )
    share = (counts[:, 0] / 256).numpy()
    np.testing.assert_allclose(np.quantile(share, recorded["mask/quantiles_p"]), recorded["mask/quantiles"], atol=0.02)
    tasks = [draw_tasks(4, dict.fromkeys(Task, 0.2), generator, together=True) for _ in range(4000)]
    assert all(len(set(one)) == 1 for one in tasks)
    shares = [sum(one[0] is task for one in tasks) / 4000 for task in Task]
    np.testing.assert_allclose(shares, 0.2, atol=0.03)
    two = {Task.POLICY: 1.0, Task.POLICY_VIDEO: 1.0}
    assert {draw_tasks(3, two, generator, together=True)[0] for _ in range(50)} == set(two)


def test_reveal_schedule_matches_the_recording_and_always_progresses(shared) -> None:  # type: ignore[no-untyped-def]
    recorded = np.load(shared / "golden" / "misc.npz")
    assert reveal_counts(8, 256)[:-1] == recorded["mask/len_after_step_8"].astype(int).tolist()[:-1]
    assert reveal_counts(8, 9)[-1] == 0
    assert all(a > b for a, b in zip([9, *reveal_counts(8, 9)], reveal_counts(8, 9), strict=False))


def test_video_sampling_shapes_and_joint_actions() -> None:
    model = nano(frame_state_dim=4)
    base = context(model)
    sample = sample_video(model, base, task=Task.POLICY_VIDEO, sampler=SamplerConfig(iterations=8, video_steps=2))
    assert sample.tokens.shape == (2, 4, 9, 64) and (sample.tokens != 0).all()
    assert sample.actions is not None and sample.actions.shape == (2, 16, 2)
    assert sample.wrist_tokens is None
    assert sample_actions(model, base, n=3).shape == (6, 16, 2)
    with pytest.raises(ValueError, match="sample_video"):
        sample_actions(model, base, task=Task.VIDEO)


def test_draw_tasks_follows_the_weights_and_refuses_nonsense() -> None:
    drawn = draw_tasks(2000, {Task.POLICY: 3, Task.VIDEO: 1}, torch.Generator().manual_seed(0))
    assert set(drawn) == {Task.POLICY, Task.VIDEO} and abs(drawn.count(Task.POLICY) / 2000 - 0.75) < 0.05
    with pytest.raises(ValueError, match="not all zero"):
        draw_tasks(3, {})
