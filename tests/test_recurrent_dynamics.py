"""Points that are moved step by step."""

import numpy as np
import pytest
import torch
from torch import nn

from uva_agents.envs.block_push.planar import moved
from uva_agents.model.keypoints.recurrent_dynamics import RecurrentDynamics

SCALE = 4.0
"""Network units per metre."""


def pushes(n: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """History (N, 4, 6), actions (N, 16, 2) and courses (N, 16, 6) of a post that goes past or through one of two discs."""
    rng = np.random.default_rng(seed)
    here = rng.uniform(-0.02, 0.02, (n, 2)) + np.array([0.4, 0.0])
    angle = rng.uniform(-np.pi, np.pi, n)
    way = np.stack([np.cos(angle), np.sin(angle)], -1)
    aside = rng.uniform(-0.05, 0.05, (n, 1)) * way[:, ::-1] * [1, -1]
    blocks = np.stack([here + 0.07 * way + aside, here - 0.15 * way], axis=1)
    start = np.concatenate([here[:, None], blocks], axis=1).reshape(n, 6)
    goals, trajectory = [], []
    for _ in range(16):
        target = here + 0.008 * way
        here, blocks = moved(here, blocks, target, np.full(n, 0.028))
        goals.append(target)
        trajectory.append(np.concatenate([here[:, None], blocks], axis=1).reshape(n, 6))
    still = np.repeat(start[:, None], 4, axis=1)
    history, actions, future = (
        torch.tensor((x - np.tile([0.4, 0.0], x.shape[-1] // 2)) * SCALE, dtype=torch.float32)
        for x in (still, np.stack(goals, 1), np.stack(trajectory, 1))
    )
    return history, actions, future


def network(width: int = 32) -> RecurrentDynamics:
    torch.manual_seed(0)
    net = RecurrentDynamics(keypoints=3, frames=4, steps=16, action_dim=2, width=width)
    nn.init.normal_(net.out[2].weight, std=0.01)  # so that something moves
    return net


def test_frames_are_moments_of_the_course() -> None:
    net = network()
    history, actions, _ = pushes(3, seed=0)
    trajectory = net.trajectory(history, actions)
    assert trajectory.shape == (3, 16, 6)
    torch.testing.assert_close(net(history, actions), trajectory[:, 3::4])
    # What happens first does not depend on what is done later.
    later = actions.clone()
    later[:, 8:] += 0.3
    torch.testing.assert_close(net.trajectory(history, later)[:, :8], trajectory[:, :8])
    assert (net.trajectory(history, later)[:, 8:] - trajectory[:, 8:]).abs().max() > 1e-3


def test_it_learns_which_pushes_miss() -> None:
    net = network(48)
    history, actions, trajectory = pushes(2048, seed=1)
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3)
    for step in range(120):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1.0, (step + 1) / 10, (121 - step) / 60)
        rows = torch.randint(len(history), (96,))
        loss = (net.trajectory(history[rows], actions[rows]) - trajectory[rows]).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        optimizer.step()
    history, actions, trajectory = pushes(256, seed=2)
    with torch.no_grad():
        found = net(history, actions)[:, -1].view(-1, 3, 2)
    wanted, before = trajectory[:, -1].view(-1, 3, 2), history[:, -1].view(-1, 3, 2)
    error, shift = (found - wanted).norm(dim=-1)[:, 1], (wanted - before).norm(dim=-1)[:, 1]
    pushed = shift > 0.02 * SCALE
    assert 0.2 < pushed.float().mean() < 0.9
    assert error[pushed].mean() < 0.45 * shift[pushed].mean()
    assert error[~pushed].mean() < 0.45 * shift[pushed].mean()


@pytest.mark.parametrize(("change", "message"), [({"frames": 3}, "evenly"), ({"leading": 3}, "at least one moves")])
def test_settings_that_make_no_sense_are_named(change: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RecurrentDynamics(**{"keypoints": 3, "frames": 4, "steps": 16, "action_dim": 2, **change})
