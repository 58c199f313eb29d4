"""The sampling steps written out here are those of diffusers, bit for bit."""

from typing import Any

import numpy as np
import pytest
import torch

from uva_agents.model.baselines.net import ActionSampler
from uva_agents.model.schedulers import TRAIN_STEPS, cosine_betas, few_step_scheduler


@pytest.fixture(scope="module")
def diffusers() -> Any:
    return pytest.importorskip("diffusers")


def network(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Anything that depends on both, with values well outside [-1, 1] too."""
    return torch.sin(3 * x + t.float() / 100) * 1.7 + 0.3 * x


def assert_same_path(ours: Any, theirs: Any, x: torch.Tensor, *, draws: bool, whole: bool) -> None:
    assert torch.equal(ours.timesteps, theirs.timesteps)
    mine, other = x, x
    first, second = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    for i, t in enumerate(theirs.timesteps):
        options = {"generator": second} if draws else {}
        other = theirs.step(network(other, t), int(t) if whole else t, other, **options).prev_sample
        mine = ours.step(network(mine, t), i, mine, first)
        assert torch.equal(mine, other), f"step {i}"
    assert torch.equal(torch.randn(3, generator=first), torch.randn(3, generator=second))


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 16, 50, 333])
@pytest.mark.parametrize("prediction", ["flow", "v", "epsilon"])
def test_few_steps_equal_those_of_diffusers(diffusers, prediction, steps):
    if prediction == "flow":
        theirs = diffusers.FlowMatchEulerDiscreteScheduler(num_train_timesteps=TRAIN_STEPS)
        theirs.set_timesteps(sigmas=np.linspace(1.0, 1.0 / steps, steps).tolist())
    else:
        theirs = diffusers.DDIMScheduler(
            num_train_timesteps=TRAIN_STEPS,
            trained_betas=cosine_betas(),
            prediction_type="v_prediction" if prediction == "v" else "epsilon",
            timestep_spacing="trailing",
            clip_sample=False,
        )
        theirs.set_timesteps(steps)
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(steps))
    assert_same_path(few_step_scheduler(prediction, steps), theirs, x, draws=False, whole=False)


@pytest.mark.parametrize("steps", [1, 2, 10, 16, 33, 100])
@pytest.mark.parametrize("kind", ["ddim", "ddpm"])
def test_steps_of_chunks_equal_those_of_diffusers(diffusers, kind, steps):
    shared = dict(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2", prediction_type="epsilon")
    if kind == "ddim":
        theirs = diffusers.DDIMScheduler(**shared, clip_sample=True, set_alpha_to_one=True)
    else:
        theirs = diffusers.DDPMScheduler(**shared, clip_sample=True, variance_type="fixed_small")
    theirs.set_timesteps(steps)
    x = torch.randn(3, 16, 2, generator=torch.Generator().manual_seed(steps))
    ours = ActionSampler(kind, steps).scheduler(100)
    assert torch.equal(ours.alphas_cumprod, theirs.alphas_cumprod)
    assert_same_path(ours, theirs, x, draws=kind == "ddpm", whole=True)


def test_more_steps_than_training_had_are_refused():
    with pytest.raises(ValueError, match="at most 1000, got 1001"):
        few_step_scheduler("v", 1001)
