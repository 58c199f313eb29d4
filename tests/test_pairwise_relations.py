"""Policies on where things are: relations between objects, a mixture prior, and scenes made from other scenes."""

import pytest
import torch

from tests.tiny import tiny_points_config
from uva_agents.model import DiffusionPolicyNet
from uva_agents.model.baselines.relations import PairwiseRelations
from uva_agents.training.baselines.position_augmentation import PositionAugmentation, exchanged, rotated

SCALE = torch.tensor([0.5, 0.25])


def scenes(n: int = 64, things: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Positions, where the effector is, actions."""
    torch.manual_seed(0)
    return torch.rand(n, 2 * things) - 0.5, torch.rand(n, 2) - 0.5, torch.rand(n, 8, 2) - 0.5


def test_a_turned_scene_keeps_every_distance_in_metres() -> None:
    points, here, actions = scenes()
    other, moved = rotated(points, here, actions, SCALE)

    def distances(p: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        things = torch.cat([here[:, None], p.unflatten(1, (-1, 2)), a], dim=1) / SCALE
        return torch.cdist(things, things)

    torch.testing.assert_close(distances(other, moved), distances(points, actions), atol=1e-3, rtol=0)
    assert (other - points).abs().mean() > 0.1

    def handedness(p: torch.Tensor) -> torch.Tensor:
        a, b = ((p.unflatten(1, (-1, 2))[:, i] - here) / SCALE for i in (0, 1))
        return torch.sign(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])

    mirrored = handedness(other) != handedness(points)
    assert 16 < int(mirrored.sum()) < 48


def test_only_things_of_a_group_change_places() -> None:
    points, _, _ = scenes(400)
    before, after = (p.unflatten(1, (-1, 2)) for p in (points, exchanged(points, ((1, 3),))))
    torch.testing.assert_close(after[:, [0, 2]], before[:, [0, 2]])
    swapped = (after[:, 1] == before[:, 3]).all(1) & (after[:, 3] == before[:, 1]).all(1)
    kept = (after[:, [1, 3]] == before[:, [1, 3]]).flatten(1).all(1)
    assert bool((swapped | kept).all()) and 140 < int(swapped.sum()) < 260


def test_augmentation_keeps_what_is_measured_of_the_effector() -> None:
    points, here, actions = scenes()
    observed = torch.cat([points, here], dim=1)[:, None]
    changed, _ = PositionAugmentation(noise=0.1, turn=True).applied(observed, actions, SCALE.tolist())
    torch.testing.assert_close(changed[:, 0, -2:], here)
    same, unobserved = PositionAugmentation().applied(observed, actions, SCALE.tolist())
    torch.testing.assert_close(same, observed)
    torch.testing.assert_close(unobserved, actions)
    noisy, _ = PositionAugmentation(noise=0.1).applied(observed, actions, SCALE.tolist())
    spread = ((noisy - observed)[:, 0, :-2].unflatten(1, (-1, 2)) / SCALE).std()
    assert 0.08 < float(spread) < 0.12


def test_relations_do_not_depend_on_where_the_scene_is() -> None:
    points, here, _ = scenes()
    net = PairwiseRelations(objects=4, scale=SCALE.tolist(), horizon=8, width=16, modes=3).eval()
    embedding, prior = net(points, here)
    assert embedding.shape == (64, PairwiseRelations.outputs) and prior.modes.shape == (64, 3, 8, 2)
    torch.testing.assert_close(prior.log_weights.exp().sum(1), torch.ones(64))
    shift = torch.tensor([0.3, -0.2])
    moved = net((points.unflatten(1, (-1, 2)) + shift).flatten(1), here + shift)
    torch.testing.assert_close(moved[0], embedding, atol=1e-4, rtol=0)
    seen = points.clone()
    seen[:, :2] += 1  # where the effector was seen gives way to where it was measured
    torch.testing.assert_close(net(seen, here)[0], embedding)
    assert (net(points, here + 0.1)[0] - embedding).abs().max() > 1e-3
    stacked = net(torch.zeros(1, 8), torch.zeros(1, 2))
    assert all(bool(torch.isfinite(x).all()) for x in (stacked[0], stacked[1].modes, stacked[1].log_weights))


@pytest.mark.parametrize("field", [{"relations": 0}, {"modes": 0}])
def test_parts_can_be_left_out(field: dict[str, int]) -> None:
    import dataclasses

    net = DiffusionPolicyNet(dataclasses.replace(tiny_points_config(), **field)).eval()
    observed, actions = torch.rand(2, 1, 8), torch.rand(2, 8, 2)
    denoising, prior_loss = net.losses(observed, actions, torch.tensor([3, 60]), torch.randn(2, 8, 2))
    assert float(denoising) > 0 and float(prior_loss) == 0
