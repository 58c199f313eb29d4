"""MixturePrior of a chunk: what they learn, and what they make of a noisy one."""

import math

import pytest
import torch

from tests.tiny import tiny_points_config
from uva_agents.model import ActionSampler, DiffusionPolicyNet, sample_chunks
from uva_agents.model.baselines.mixture_prior import MixturePrior, bounded_std, winner_takes_all_loss
from uva_agents.model.baselines.relations import PairwiseRelations


def prior_of(steps: torch.Tensor, weights: tuple[float, ...] = (0.5, 0.5), std: float = 0.1) -> MixturePrior:
    shape = steps.shape[1:]
    return MixturePrior(steps, torch.tensor(weights).log().expand(len(steps), -1), torch.full(shape, std))


def test_the_nearest_mode_is_the_one_that_learns() -> None:
    steps = torch.ones(1, 4, 2)
    made = torch.stack([torch.zeros(1, 4, 2), torch.full((1, 4, 2), -1.0)], dim=1).requires_grad_()
    winner_takes_all_loss(prior_of(made), steps).backward()
    assert made.grad is not None
    near, far = made.grad[0].abs().sum((1, 2))
    assert float(near) > 20 * float(far) > 0


def test_weights_and_deviations_tell_which_mode_and_how_far() -> None:
    """Three quarters of the chunks are near the first mode, half a step away on average, a quarter exactly the second."""
    torch.manual_seed(0)
    made = torch.stack([torch.zeros(4, 2), torch.full((4, 2), 3.0)]).expand(512, -1, -1, -1)
    first = (torch.arange(512) % 4 > 0).float()[:, None, None]
    steps = first * 0.5 * torch.randn(512, 4, 2) + (1 - first) * 3.0
    logits, raw = torch.zeros(2, requires_grad=True), torch.zeros(2, 4, 2, requires_grad=True)
    optimizer = torch.optim.Adam([logits, raw], lr=0.05)
    for _ in range(150):
        share = logits.log_softmax(0).expand(512, -1)
        loss = winner_takes_all_loss(MixturePrior(made, share, bounded_std(raw)), steps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert abs(logits.softmax(0)[0].item() - 0.75) < 0.02
    near, exact = bounded_std(raw).mean((1, 2)).tolist()
    assert 0.45 < near < 0.55 and exact < 0.06


@pytest.mark.parametrize("signal", [0.999, 0.5, 0.01])
def test_what_a_noisy_chunk_stems_from_is_the_mean_over_everything_that_could_be(signal: float) -> None:
    """Against the same mean over many chunks drawn from the prior, each weighed by how well it explains the noisy one."""
    torch.manual_seed(0)
    prior = prior_of(torch.tensor([0.0, 1.0]).view(1, 2, 1, 1), (0.3, 0.7), 0.2)
    noisy = torch.tensor([[[0.4]]])
    found = prior.clean(noisy, torch.tensor(signal).view(1, 1, 1))
    which = (torch.rand(400_000) < 0.7).double()
    clean = which + 0.2 * torch.randn(400_000, dtype=torch.float64)
    weight = torch.softmax(-0.5 * (0.4 - math.sqrt(signal) * clean).square() / (1 - signal), dim=0)
    torch.testing.assert_close(found.item(), float((weight * clean).sum()), atol=0.01, rtol=0)


def test_a_policy_that_has_not_learned_yet_samples_from_its_prior() -> None:
    torch.manual_seed(0)
    net = DiffusionPolicyNet(tiny_points_config()).eval()
    assert net.relations is not None
    with torch.no_grad():
        net.relations.raw_std.fill_(-1.0)
        net.relations.modes.weight.mul_(3.0)  # modes far from each other
        observed = torch.rand(1, 1, 8)
        prior = net.prepare(observed).prior
        assert prior is not None
        sampler = ActionSampler(steps=16)
        chunks = sample_chunks(net, observed, n=64, sampler=sampler, generators=[torch.Generator().manual_seed(0)])
        steps = net.to_steps(chunks, observed.expand(64, -1, -1))
    off = (steps[:, None] - prior.modes.clamp(-1, 1)).abs().mean((2, 3))
    assert float(off.min(1).values.max()) < 0.05
    assert set(off.argmin(1).tolist()) == {0, 1}


def test_two_ways_to_go_on_become_two_modes() -> None:
    """The effector goes to either of two things: the modes end at one and at the other, none between them."""
    torch.manual_seed(0)
    net = PairwiseRelations(objects=3, scale=(0.15, 0.15), horizon=8, width=64, modes=2)
    optimizer, steps = torch.optim.AdamW(net.parameters(), lr=3e-3), 500

    def batch(n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        angle, here = torch.rand(n) * 2 * math.pi, 0.1 * torch.randn(n, 2)
        first = torch.stack([angle.cos(), angle.sin()], dim=-1)
        return torch.stack([here, here + first, here - first], dim=1).flatten(1), here, first

    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
        points, here, first = batch(128)
        goal = first * torch.where(torch.rand(128, 1) < 0.5, -1.0, 1.0)
        loss = winner_takes_all_loss(net(points, here)[1], (goal[:, None] / 8 / 0.15).expand(128, 8, 2))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    points, here, first = batch(40)
    with torch.no_grad():
        ends = (net(points, here)[1].modes.sum(2) * 0.15 * first[:, None]).sum(-1)
    assert float((ends.abs() - 1).abs().mean()) < 0.15, ends
    assert bool((ends.prod(1) < 0).float().mean() > 0.9), ends
